"""The one pass over a dataset: encode its embeddings in batches, and collect what is needed from the codes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from .._utils.checks import check_integers
from .._utils.evaluating import evaluation_mode
from .._utils.provenance import difference_of, origin_label
from ..model.checks import check_k
from ..model.nested_topk import nested_codes, top_activations

if TYPE_CHECKING:
    import datasets

    from ..embeddings import EmbeddingDataset
    from ..model.configuration_msae import MSAEConfig
    from ..model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)

Embeddings: TypeAlias = "EmbeddingDataset | str | os.PathLike | datasets.Dataset | np.ndarray | torch.Tensor"


@dataclass(frozen=True)
class CodeBatch:
    """What a collector gets of one batch. Codes are on the model's device."""

    rows: slice  # places of the batch among the rows of the pass
    embeddings: torch.Tensor  # raw embeddings, float32 (B, d_in), on the CPU
    latents: torch.Tensor | None  # the full code (B, num_latents); None unless the collector needs it
    values: torch.Tensor | None  # the k largest activations (B, k), largest first; None unless the collector has a k
    indices: torch.Tensor | None  # the latents of `values`, int64 (B, k)


class Collector(ABC):
    """Collects something in a pass over a dataset. Subclasses declare what they need of a batch and get only that."""

    needs_latents: bool = False  # whether `update` reads the full code
    k: int | None = None  # how many of the largest activations `update` reads

    def start(self, msae: MSAEModel, num_rows: int) -> None:  # noqa: B027  most need nothing
        """Prepare for a pass over `num_rows` rows."""

    @abstractmethod
    def update(self, batch: CodeBatch) -> None:
        """Take what is needed from a batch. Batches come in the order of the rows."""

    @abstractmethod
    def result(self) -> Any:
        """Return what was collected."""


@torch.no_grad()
def collect_codes(
    msae: MSAEModel,
    embeddings: Embeddings,
    collectors: Sequence[Collector],
    rows: range | np.ndarray | None = None,
    batch_size: int = 4096,
    progress: bool = True,
    description: str = "encoding",
) -> tuple[Any, ...]:
    """Encode embeddings once and feed every batch to all collectors.

    Each batch is encoded once, whatever the number of collectors: the largest activations of a batch are taken from
    its full code where that is needed too, and a collector with a smaller k gets a prefix of the largest k.

    Args:
        msae: The MSAE. It encodes in evaluation mode and is left in the mode it was in.
        embeddings: Embeddings of the MSAE's width: opened ones, or anything `load_embeddings` accepts.
        collectors: What to collect.
        rows: Rows to read, in this order. Defaults to all.
        batch_size: Rows encoded at a time.
        progress: Whether to show a progress bar.
        description: Label of the progress bar.

    Returns:
        The results of the collectors, in their order.

    Raises:
        ValueError: The embeddings have another width than the MSAE, a row of them is not finite, or a collector's k
            or `batch_size` is out of range.
    """
    embeddings = open_embeddings(msae, embeddings)
    check_integers(batch_size=(batch_size, 1))
    rows = range(len(embeddings)) if rows is None else rows
    feed = CodeFeed(msae, collectors, len(rows))
    bar = tqdm(total=len(rows), desc=description, unit="row", disable=not progress, delay=1)
    with bar, evaluation_mode(msae):
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            contiguous = isinstance(part, range) and part.step == 1
            x = embeddings[part.start : part.stop] if contiguous else embeddings[np.asarray(part)]
            embeddings.check_finite(x, part)
            feed.update(first, x)
            bar.update(len(x))
    return feed.results()


class CodeFeed:
    """Feeds batches to collectors, for callers that make a pass of their own; others use `collect_codes`.

    The MSAE has to be in evaluation mode while batches come; `num_rows` will come in total.
    """

    def __init__(self, msae: MSAEModel, collectors: Sequence[Collector], num_rows: int) -> None:
        self.msae, self.collectors = msae, collectors
        ks = [check_k(collector.k, msae.config) for collector in collectors if collector.k is not None]
        self._widest = max(ks, default=None)
        self._needs_latents = any(collector.needs_latents for collector in collectors)
        for collector in collectors:
            collector.start(msae, num_rows)

    @torch.no_grad()
    def update(self, first: int, embeddings: torch.Tensor, full_code: torch.Tensor | None = None) -> None:
        """Feed raw embeddings (B, d_in), the first of which is row `first` of the pass.

        `full_code` is theirs, if the caller has it.
        """
        latents, values, indices = self._encode(embeddings.to(self.msae.device), full_code)
        place = slice(first, first + len(embeddings))
        for collector in self.collectors:
            few = (None, None) if collector.k is None else (values[:, : collector.k], indices[:, : collector.k])
            collector.update(CodeBatch(place, embeddings, latents if collector.needs_latents else None, *few))

    def results(self) -> tuple[Any, ...]:
        """Return the results of the collectors, in their order."""
        return tuple(collector.result() for collector in self.collectors)

    def _encode(
        self, x: torch.Tensor, full_code: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        msae, k = self.msae, self._widest
        if not self._needs_latents and full_code is None:
            return (None, None, None) if k is None else (None, *msae.encode_topk(x, k))
        full_code = msae.full_code(x) if full_code is None else full_code
        soft_cap, default_k = msae.config.soft_cap, msae.family.default_k(msae.config)
        latents = nested_codes(full_code, [default_k], soft_cap)[0] if self._needs_latents else None
        return (latents, None, None) if k is None else (latents, *top_activations(full_code, k, soft_cap))


def open_embeddings(
    msae: MSAEModel,
    embeddings: Embeddings,
    column: str | None = None,
    split: str | None = None,
    verify: bool = True,
) -> EmbeddingDataset:
    """Open embeddings for an MSAE, from anything `load_embeddings` accepts, by default those of its hook point.

    Raises ValueError if they have another width than the MSAE's. Others are warned of if they and the MSAE say where
    they are from, and that differs.
    """
    config = msae.config
    from ..embeddings import EmbeddingDataset, load_embeddings  # here, since datasets takes a second

    if not isinstance(embeddings, EmbeddingDataset):
        embeddings = load_embeddings(embeddings, column, config.hook_point, split, verify=verify)
    if embeddings.width != config.d_in:
        trained_on = ", ".join(filter(None, (config.base_model_name_or_path, config.hook_point)))
        raise ValueError(
            f"embeddings have {embeddings.width} columns ({embeddings.source}), but this MSAE was trained on "
            f"{config.d_in} ({trained_on})"
        )
    _warn_of_another_origin(config, embeddings)
    return embeddings


_ORIGIN = ("name_or_path", "revision", "weights_sha256", "processor_sha256")


def _warn_of_another_origin(config: MSAEConfig, embeddings: EmbeddingDataset) -> None:
    """Warn once of embeddings of another backbone or hook point: many are 768 wide, so the width does not tell."""
    mine = {"hook_point": config.hook_point} | {
        name: getattr(config, name) for name in (f"base_model_{part}" for part in _ORIGIN)
    }
    theirs, weights = dict(embeddings.provenance), "base_model_weights_sha256"
    if theirs.get("base_model_dtype") not in (None, "float32") and theirs.get(weights) != mine[weights]:
        theirs[weights] = None  # it may be the hash of the same weights after rounding
    if found := difference_of(mine, theirs):
        logger.warning_once(
            f"{embeddings.source} holds {origin_label(theirs)}, but this MSAE was trained on {origin_label(mine)} "
            f"({found}): its latents mean something else there, or nothing"
        )
