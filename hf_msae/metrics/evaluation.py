"""Evaluate an MSAE on a dataset at every level, in one pass and with memory independent of the data's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.deprecation import renamed_arguments
from .._utils.evaluating import evaluation_mode
from .._utils.fingerprint import model_fingerprint
from ..model.nested_topk import soft_capped, top_activations
from .accumulator import as_matrix
from .alignment import CknnaAccumulator, Neighborhood, smallest_batch
from .classification import ClassificationAccumulator, LinearClassifier, number_labels
from .dictionary import decoder_orthogonality
from .level import EvaluationBatch, LevelAccumulator
from .measured_data import describe_embeddings
from .reconstruction import ReconstructionAccumulator
from .result import EvaluationResult

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel


@renamed_arguments(acts="embeddings")
@torch.no_grad()
def evaluate_msae(
    model: MSAEModel,
    embeddings: EmbeddingDataset,
    ks: Sequence[int] | None = None,
    batch_size: int = 4096,
    cknna_batch_size: int | None = 1024,
    progress: bool = True,
    accelerator: Accelerator | None = None,
    classifiers: Mapping[str, LinearClassifier] | None = None,
    labels: Mapping[str, Sequence | np.ndarray | torch.Tensor] | None = None,
    encoder_embeds: EmbeddingDataset | None = None,
    encoder: str | None = None,
    observe: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> EvaluationResult:
    """Compute all metrics of an MSAE on raw embeddings at every level.

    Each batch is encoded once; the codes of all levels come from that one full code, by the model's own ranking. Sums
    are kept in float64. With several processes, each takes its own batches and all return the same result, which
    equals that of a single process up to rounding.

    Args:
        model: The MSAE, on any device; may be wrapped by `accelerator.prepare`. Its mode is restored afterwards.
        embeddings: Raw embeddings, or anything `load_embeddings` accepts.
        ks: Levels to evaluate. Defaults to those the model was trained with. The largest gives the headline figures.
            [`progressive_ks`] returns those of the MSAE paper's progressive recovery.
        batch_size: Number of embeddings encoded at a time, rounded down to a multiple of `cknna_batch_size` (at least
            one).
        cknna_batch_size: Number of samples per CKNNA batch, which the metric depends on; None leaves CKNNA out.
        progress: Show a progress bar (on the main process).
        accelerator: Splits the work over its processes, which must all call this function.
        classifiers: Classifiers by name, applied to embeddings and reconstructions. Train them on other data.
        labels: By a classifier's name, the class of every row of `embeddings`, as a number (-1: unknown) or a name.
            Adds accuracies.
        encoder_embeds: Another encoder's embeddings of the same samples in the same order, which judge
            monosemanticity; or anything `load_embeddings` accepts.
        encoder: Name of that encoder. Defaults to the backbone `encoder_embeds` were extracted with.
        observe: Called with the number of the first row, the embeddings and the full code of every batch, so that a
            caller can collect more from the same pass.

    Returns:
        An [`EvaluationResult`]. Its `data` describes `embeddings`; only the caller knows whether they were held out
        from training: `result.with_data(held_out=True)`.

    Raises:
        ValueError: The embeddings and the model have different widths, a k is out of range, a row of the data is not
            finite or makes a metric undefined, the model's output is not finite, or classifiers, labels or the other
            encoder's embeddings do not fit the data.
    """
    embeddings, classifiers = _open(embeddings), dict(classifiers or {})
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    ks = _check(model, embeddings, ks, batch_size)
    cknna_size = None  # of the CKNNA batches, if there are enough samples for one
    if cknna_batch_size is not None:
        cknna_batch_size = min(CknnaAccumulator(cknna_batch_size).batch_size, len(embeddings))
        cknna_size = cknna_batch_size if cknna_batch_size >= smallest_batch() else None
    numbers = _check_classifiers(embeddings, classifiers, labels or {})
    encoder_embeds, encoder = _check_encoder(embeddings, encoder_embeds, encoder)
    is_main = accelerator is None or accelerator.is_main_process
    mean = embeddings.statistics(progress=progress and is_main).mean

    def accumulator() -> LevelAccumulator:
        return LevelAccumulator(mean, model.config.num_latents, cknna_size, classifiers, encoder)

    levels = {k: accumulator() for k in ks}
    baseline = ReconstructionAccumulator(mean)
    baseline_classifiers = {name: ClassificationAccumulator(each) for name, each in classifiers.items()}
    with evaluation_mode(model):
        for first_row, x in _batches(embeddings, batch_size, cknna_batch_size, progress and is_main, accelerator):
            rows, x = slice(first_row, first_row + len(x)), x.to(model.device)
            batch = EvaluationBatch(
                first_row,
                x,
                {name: each[rows] for name, each in numbers.items()},
                None if encoder_embeds is None else encoder_embeds[rows].to(x.device),
                _cknna_pieces(x, cknna_size),
            )
            try:  # rows refused here cannot be measured at any level
                baseline.update(x, mean.expand(len(x), -1), first_row)
            except ValueError as error:
                raise ValueError(f"{embeddings.source}: {error}") from None
            for name, each in baseline_classifiers.items():
                each.update(x, mean.to(x).expand(len(x), -1), batch.labels.get(name))
            code = model.full_code(x)
            if observe is not None:
                observe(first_row, x, code)
            for level_ks, latents in level_codes(code, ks, model.config.soft_cap):
                part = accumulator()
                part.update(batch, latents, model.decode(latents))
                for k in level_ks:
                    levels[k].merge(part)

    orthogonality = decoder_orthogonality(model.dictionary) if model.config.num_latents > 1 else None
    constant = {"decoder_orthogonality": orthogonality, "num_samples": len(embeddings)}
    constant["cknna_batch_size"] = cknna_batch_size
    baseline_mean = baseline.reduce(accelerator).compute()
    baseline_mean["classifiers"] = {
        name: each.reduce(accelerator).compute() for name, each in baseline_classifiers.items()
    }
    of_levels = {k: {**levels[k].compute(accelerator), **constant} for k in ks}
    # No process has all the weights of a model that is sharded (FSDP).
    sharded = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    data = {**describe_embeddings(embeddings), "held_out": None}
    return EvaluationResult.from_levels(of_levels, baseline_mean, None if sharded else model_fingerprint(model), data)


def _open(embeddings: Any) -> EmbeddingDataset:
    from ..embeddings import EmbeddingDataset, load_embeddings

    return embeddings if isinstance(embeddings, EmbeddingDataset) else load_embeddings(embeddings)


def _check_classifiers(
    embeddings: EmbeddingDataset, classifiers: Mapping[str, LinearClassifier], labels: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the class numbers of all rows, by classifier."""
    for name, classifier in classifiers.items():
        if (width := classifier.weight.shape[1]) != embeddings.width:
            raise ValueError(
                f"the classifier {name!r} takes embeddings of {width} columns, but those of {embeddings.source} have "
                f"{embeddings.width}"
            )
    numbers = {}
    for name, given in labels.items():
        if name not in classifiers:
            raise ValueError(f"there are labels for {name!r}, but no classifier of that name")
        found, _ = number_labels(given, classifiers[name].classes)
        if len(found) != len(embeddings):
            raise ValueError(
                f"{embeddings.source} has {len(embeddings)} rows, but there are {len(found)} labels for {name!r}"
            )
        numbers[name] = torch.from_numpy(found)
    return numbers


def _check_encoder(
    embeddings: EmbeddingDataset, embeds: EmbeddingDataset | None, encoder: str | None
) -> tuple[EmbeddingDataset | None, str | None]:
    if embeds is None:
        if encoder is not None:
            raise ValueError(f"encoder is {encoder!r}, but its encoder_embeds are missing")
        return None, None
    embeds = _open(embeds)
    encoder = encoder or embeds.provenance.get("base_model_name_or_path")
    if not encoder:
        raise ValueError(f"name the encoder of {embeds.source}: a monosemanticity score means little without it")
    if len(embeds) != len(embeddings):
        raise ValueError(
            f"{embeddings.source} has {len(embeddings)} rows, but {embeds.source}, of {encoder}, has {len(embeds)}"
        )
    embeds.statistics()  # reads and checks every row before the pass over `embeddings`
    return embeds, str(encoder)


def _check(model: MSAEModel, embeddings: EmbeddingDataset, ks: Sequence[int] | None, batch_size: int) -> list[int]:
    config = model.config
    if embeddings.width != config.d_in:
        trained_on = ", ".join(str(each) for each in (config.base_model_name_or_path, config.hook_point) if each)
        raise ValueError(
            f"embeddings of {embeddings.source} have {embeddings.width} columns, but this MSAE was trained on "
            f"{config.d_in} ({trained_on})"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    ks = sorted({int(k) for k in (config.nesting_ks if ks is None else ks)})
    if not ks:
        raise ValueError("ks is empty: name at least one level to evaluate, or None for the model's own")
    if outside := [k for k in ks if not 1 <= k <= config.num_latents]:
        raise ValueError(f"k must be between 1 and num_latents={config.num_latents}, got {outside[0]} in ks")
    return ks


def _batches(
    embeddings: EmbeddingDataset,
    batch_size: int,
    cknna_batch_size: int | None,
    progress: bool,
    accelerator: Accelerator | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (index of its first row, batch) for every batch of this process."""
    if cknna_batch_size is not None:
        batch_size = max(1, batch_size // cknna_batch_size) * cknna_batch_size
    rank, processes = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    starts = range(rank * batch_size, len(embeddings), processes * batch_size)
    rows = sum(min(batch_size, len(embeddings) - start) for start in starts)
    with tqdm(total=rows, desc="evaluating", unit="row", disable=not progress) as bar:
        for start in starts:
            batch = embeddings[start : start + batch_size]
            yield start, batch
            bar.update(len(batch))


def level_codes(code: torch.Tensor, ks: list[int], soft_cap: float | None) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (levels, their code (B, n)) from one full code and one ranking; levels that drop nothing come together.

    Levels come one at a time, so that at most two dense codes are held in memory.
    """
    most_active = int((code > 0).sum(dim=1).max())
    partial = [k for k in ks if k < most_active]
    if partial:
        values, indices = top_activations(code, max(partial), soft_cap)
        for k in partial:
            yield [k], torch.zeros_like(code).scatter_(1, indices[:, :k], values[:, :k])
    if len(partial) < len(ks):
        yield ks[len(partial) :], soft_capped(code, soft_cap)


def _cknna_pieces(x: torch.Tensor, size: int | None) -> list[tuple[slice, Neighborhood]]:
    """The full CKNNA batches within a batch, and the neighborhoods of their embeddings, which all levels share."""
    if size is None:
        return []
    pieces = [slice(start, start + size) for start in range(0, len(x) - size + 1, size)]
    return [(piece, Neighborhood(as_matrix("embeddings", x[piece]))) for piece in pieces]
