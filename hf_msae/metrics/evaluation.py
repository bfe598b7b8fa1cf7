"""Evaluate an MSAE on a data set at every level, in memory that does not depend on the size of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.fingerprint import model_fingerprint
from ..model.nested_topk import soft_capped, top_activations
from ._inputs import as_matrix
from .alignment import Neighbourhood
from .classification import ClassificationAccumulator, LinearClassifier, number_labels
from .dictionary import decoder_orthogonality
from .level import EvaluationBatch, LevelAccumulator, Measurements
from .measured_data import describe_embeddings
from .reconstruction import ReconstructionAccumulator
from .result import EvaluationResult

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel


@torch.no_grad()
def evaluate_msae(
    model: MSAEModel,
    acts: EmbeddingDataset,
    ks: Sequence[int] | None = None,
    batch_size: int = 4096,
    cknna_batch_size: int | None = 1024,
    progress: bool = True,
    accelerator: Accelerator | None = None,
    classifiers: Mapping[str, LinearClassifier] | None = None,
    labels: Mapping[str, Sequence | np.ndarray | torch.Tensor] | None = None,
    encoder_embeds: EmbeddingDataset | None = None,
    encoder: str | None = None,
) -> EvaluationResult:
    """All metrics of an MSAE on raw embeddings, at every level.

    Each batch is encoded once, and the codes of all levels are taken from that one full code by the model's own
    ranking. Sums are kept in float64. With several processes each takes its own batches, all return the same result,
    and it is that of a single process up to rounding: batches, CKNNA's included, are counted from the first row of
    the data whoever computes them.

    Args:
        model: the MSAE, on any device; also as wrapped by `accelerator.prepare`. Its mode is the same afterwards.
        acts: raw embeddings, or anything `load_embeddings` accepts.
        ks: levels to evaluate; by default those the model was trained on. The largest gives the headline figures.
            [`progressive_ks`] has those of the MSAE paper's progressive recovery.
        batch_size: embeddings encoded at a time, rounded to a multiple of `cknna_batch_size`, at least one.
        cknna_batch_size: samples per CKNNA batch, since the metric depends on it; None leaves CKNNA out.
        progress: show a progress bar (on the main process).
        accelerator: splits the work over its processes; each must call this function.
        classifiers: by name; each is asked about embeddings and reconstructions. Trained on other data than `acts`.
        labels: by a classifier's name, the class of every row of `acts`, as a number (-1: unknown) or a name: gives
            accuracies too.
        encoder_embeds: another encoder's embeddings of the same samples in the same order, which judge
            monosemanticity; or anything `load_embeddings` accepts.
        encoder: the name of that encoder; by default the backbone that `encoder_embeds` were extracted with.

    Returns:
        [`EvaluationResult`]. Its `data` says what `acts` are; whether they were held out from the training, the caller
        alone can add: `result.with_data(held_out=True)`.

    Raises:
        ValueError: embeddings and model have different widths, a k is out of range, a row of the data is not finite
            or makes a metric undefined, the model's output is not finite, or classifiers, labels or the other
            encoder's embeddings do not fit the data.
    """
    acts = _open(acts)
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    ks = _check(model, acts, ks, batch_size)
    numbers = _check_classifiers(acts, classifiers or {}, labels or {})
    encoder_embeds, encoder = _check_encoder(acts, encoder_embeds, encoder)
    statistics = acts.statistics(progress=progress and _is_main(accelerator))
    measurements = Measurements(
        statistics.mean, model.config.num_latents, cknna_batch_size, dict(classifiers or {}), encoder
    )
    levels = {k: LevelAccumulator(measurements) for k in ks}
    baseline = ReconstructionAccumulator(statistics.mean)
    baseline_classifiers = {name: ClassificationAccumulator(each) for name, each in measurements.classifiers.items()}

    was_training = model.training
    model.eval()
    try:
        for first_row, x in _batches(acts, batch_size, cknna_batch_size, progress, accelerator):
            rows = slice(first_row, first_row + len(x))
            x = x.to(model.device)
            mean = statistics.mean.to(x).expand(len(x), -1)
            batch = EvaluationBatch(
                first_row,
                x,
                {name: each[rows] for name, each in numbers.items()},
                None if encoder_embeds is None else encoder_embeds[rows].to(x.device),
                _cknna_pieces(x, len(acts), cknna_batch_size),
            )
            try:  # what this refuses, no level can be measured on
                baseline.update(x, statistics.mean.expand(len(x), -1), first_row)
            except ValueError as error:
                raise ValueError(f"{acts.source}: {error}") from None
            for name, each in baseline_classifiers.items():
                each.update(x, mean, batch.labels.get(name))
            for level_ks, latents in level_codes(model, x, ks):
                part = LevelAccumulator(measurements)
                part.update(batch, latents, model.decode(latents))
                for k in level_ks:
                    levels[k].merge(part)
    finally:
        model.train(was_training)

    constant = {"decoder_orthogonality": _orthogonality(model), "num_samples": len(acts)}
    of_mean = baseline.reduce(accelerator).compute()
    of_mean["classifiers"] = {name: each.reduce(accelerator).compute() for name, each in baseline_classifiers.items()}
    of_levels = {k: {**levels[k].compute(accelerator), **constant} for k in ks}
    data = {**describe_embeddings(acts), "held_out": None}
    return EvaluationResult.from_levels(of_levels, of_mean, _fingerprint(model), data)


def _open(acts: Any) -> EmbeddingDataset:
    if hasattr(acts, "statistics"):
        return acts
    from ..embeddings import load_embeddings

    return load_embeddings(acts)


def _check_classifiers(
    acts: EmbeddingDataset, classifiers: Mapping[str, LinearClassifier], labels: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Class numbers of all rows, by classifier."""
    for name, classifier in classifiers.items():
        if classifier.weight.shape[1] != acts.width:
            raise ValueError(
                f"the classifier {name!r} takes embeddings of {classifier.weight.shape[1]} columns, but those of "
                f"{acts.source} have {acts.width}"
            )
    unknown = set(labels) - set(classifiers)
    if unknown:
        raise ValueError(f"there are labels for {sorted(unknown)[0]!r}, but no classifier of that name")
    numbers = {}
    for name, given in labels.items():
        found, _ = number_labels(given, classifiers[name].classes)
        if len(found) != len(acts):
            raise ValueError(f"{acts.source} has {len(acts)} rows, but there are {len(found)} labels for {name!r}")
        numbers[name] = torch.from_numpy(found)
    return numbers


def _check_encoder(
    acts: EmbeddingDataset, embeds: EmbeddingDataset | None, encoder: str | None
) -> tuple[EmbeddingDataset | None, str | None]:
    if embeds is None:
        if encoder is not None:
            raise ValueError(f"the encoder {encoder!r} is named, but its encoder_embeds are missing")
        return None, None
    embeds = _open(embeds)
    encoder = encoder or embeds.provenance.get("base_model_name_or_path")
    if not encoder:
        raise ValueError(f"name the encoder of {embeds.source}: a monosemanticity score means little without")
    if len(embeds) != len(acts):
        raise ValueError(f"{acts.source} has {len(acts)} rows, but {embeds.source}, of {encoder}, has {len(embeds)}")
    embeds.statistics()  # reads and checks every row, before the pass over `acts` is begun
    return embeds, str(encoder)


def _check(model: MSAEModel, acts: EmbeddingDataset, ks: Sequence[int] | None, batch_size: int) -> list[int]:
    config = model.config
    if acts.width != config.d_in:
        trained_on = ", ".join(str(each) for each in (config.base_model_name_or_path, config.hook_point) if each)
        raise ValueError(
            f"embeddings of {acts.source} have {acts.width} columns, but this MSAE was trained on {config.d_in} "
            f"({trained_on})"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    ks = list(config.nesting_ks if ks is None else ks)
    if not ks:
        raise ValueError("ks is empty: name at least one level to evaluate, or None for the model's own")
    outside = [k for k in ks if not 1 <= k <= config.num_latents]
    if outside:
        raise ValueError(f"k must be between 1 and num_latents={config.num_latents}, got {outside[0]} in ks")
    return sorted({int(k) for k in ks})


def _batches(
    acts: EmbeddingDataset,
    batch_size: int,
    cknna_batch_size: int | None,
    progress: bool,
    accelerator: Accelerator | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(number of its first row, batch) for every batch of this process: each row of the data is in exactly one."""
    if cknna_batch_size is not None:
        batch_size = max(1, batch_size // cknna_batch_size) * cknna_batch_size
    rank, processes = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    starts = range(rank * batch_size, len(acts), processes * batch_size)
    rows = sum(min(batch_size, len(acts) - start) for start in starts)
    with tqdm(total=rows, desc="evaluating", unit="row", disable=not (progress and _is_main(accelerator))) as bar:
        for start in starts:
            batch = acts[start : start + batch_size]
            yield start, batch
            bar.update(len(batch))


def level_codes(model: MSAEModel, x: torch.Tensor, ks: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """(levels, their code (B, n)), from one encoding and one ranking; levels that drop nothing come together.

    One level at a time, so that no more than two dense codes are held.
    """
    code = model.full_code(x)
    most_active = int((code > 0).sum(dim=1).max())
    partial = [k for k in ks if k < most_active]
    if partial:
        values, indices = top_activations(code, max(partial), model.config.soft_cap)
        for k in partial:
            yield [k], torch.zeros_like(code).scatter_(1, indices[:, :k], values[:, :k])
    if len(partial) < len(ks):
        yield ks[len(partial) :], soft_capped(code, model.config.soft_cap)


def _cknna_pieces(
    x: torch.Tensor, num_samples: int, cknna_batch_size: int | None
) -> list[tuple[slice, Neighbourhood | None]]:
    """The CKNNA batches within a batch, and the neighbourhoods of their embeddings, which all levels share.

    A rest that fills no CKNNA batch is left out, unless it is all the data there is (its neighbourhood is None: there
    may be too few samples for one).
    """
    if cknna_batch_size is None:
        return []
    if num_samples < cknna_batch_size:
        return [(slice(0, num_samples), None)]
    starts = range(0, len(x) - cknna_batch_size + 1, cknna_batch_size)
    pieces = [slice(start, start + cknna_batch_size) for start in starts]
    return [(piece, Neighbourhood(as_matrix("embeddings", x[piece]))) for piece in pieces]


def _orthogonality(model: MSAEModel) -> float | None:
    return decoder_orthogonality(model.dictionary) if model.config.num_latents > 1 else None


def _fingerprint(model: MSAEModel) -> str | None:
    # Of a model in pieces (FSDP) no process has the weights.
    in_pieces = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    return None if in_pieces else model_fingerprint(model)


def _is_main(accelerator: Accelerator | None) -> bool:
    return accelerator is None or accelerator.is_main_process
