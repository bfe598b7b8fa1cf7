"""Evaluate an MSAE on a data set at every level, in memory that does not depend on the size of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from ..nested_topk import soft_capped, top_activations
from ._inputs import as_matrix
from .alignment import CknnaAccumulator, Neighbourhood
from .dictionary import decoder_orthogonality
from .firing import SparsityAccumulator
from .reconstruction import ReconstructionAccumulator
from .result import EvaluationResult

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..activations import ActivationDataset
    from ..modeling_msae import MSAEModel


@torch.no_grad()
def evaluate_msae(
    model: MSAEModel,
    acts: ActivationDataset,
    ks: Sequence[int] | None = None,
    batch_size: int = 4096,
    cknna_batch_size: int | None = 1024,
    progress: bool = True,
    accelerator: Accelerator | None = None,
) -> EvaluationResult:
    """All metrics of an MSAE on raw embeddings, at every level.

    Each batch is encoded once, and the codes of all levels are taken from that one full code by the model's own
    ranking. Sums are kept in float64. With several processes each takes its own batches, all return the same result,
    and it is that of a single process up to rounding: batches, CKNNA's included, are counted from the first row of
    the data whoever computes them.

    Args:
        model: the MSAE, on any device; also as wrapped by `accelerator.prepare`. Its mode is the same afterwards.
        acts: raw embeddings, or anything `load_activations` accepts.
        ks: levels to evaluate; by default those the model was trained on. The largest gives the headline figures.
        batch_size: embeddings encoded at a time, rounded to a multiple of `cknna_batch_size`, at least one.
        cknna_batch_size: samples per CKNNA batch, since the metric depends on it; None leaves CKNNA out.
        progress: show a progress bar (on the main process).
        accelerator: splits the work over its processes; each must call this function.

    Raises:
        ValueError: embeddings and model have different widths, a k is out of range, a row of the data is not finite
            or makes a metric undefined, or the model's output is not finite.
    """
    if not hasattr(acts, "statistics"):
        from ..activations import load_activations

        acts = load_activations(acts)
    if accelerator is not None:
        model = accelerator.unwrap_model(model)
    ks = _check(model, acts, ks, batch_size)
    statistics = acts.statistics(progress=progress and _is_main(accelerator))

    reconstruction = {k: ReconstructionAccumulator(statistics.mean) for k in ks}
    sparsity = {k: SparsityAccumulator(model.config.num_latents) for k in ks}
    cknna = {} if cknna_batch_size is None else {k: CknnaAccumulator(cknna_batch_size) for k in ks}
    baseline = ReconstructionAccumulator(statistics.mean)

    was_training = model.training
    model.eval()
    try:
        for first_row, x in _batches(acts, batch_size, cknna_batch_size, progress, accelerator):
            x = x.to(model.device)
            try:  # what this refuses, no level can be measured on
                baseline.update(x, statistics.mean.expand(len(x), -1), first_row)
            except ValueError as error:
                raise ValueError(f"{acts.source}: {error}") from None
            pieces = _cknna_pieces(x, len(acts), cknna_batch_size)
            for level_ks, latents in _level_codes(model, x, ks):
                part = ReconstructionAccumulator(statistics.mean)
                part.update(x, model.decode(latents), first_row)
                firing = SparsityAccumulator(model.config.num_latents)
                firing.update(latents, first_row)
                alignments = [_align(piece, neighbours, x, latents, cknna_batch_size) for piece, neighbours in pieces]
                for k in level_ks:
                    reconstruction[k].merge(part)
                    sparsity[k].merge(firing)
                    for alignment in alignments:
                        cknna[k].merge(alignment)
    finally:
        model.train(was_training)

    constant = {"decoder_orthogonality": _orthogonality(model), "num_samples": len(acts)}
    levels = {}
    for k in ks:
        aligned = cknna[k].reduce(accelerator).compute() if cknna else {"cknna": None, "cknna_batch_size": None}
        levels[k] = {
            **reconstruction[k].reduce(accelerator).compute(),
            **sparsity[k].reduce(accelerator).compute(),
            **aligned,
            **constant,
        }
    return EvaluationResult.from_levels(levels, baseline.reduce(accelerator).compute())


def _check(model: MSAEModel, acts: ActivationDataset, ks: Sequence[int] | None, batch_size: int) -> list[int]:
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
    acts: ActivationDataset,
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


def _level_codes(model: MSAEModel, x: torch.Tensor, ks: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """(levels, their code (B, n)), from one encoding and one ranking; levels that drop nothing come together.

    One level at a time, so that no more than two dense codes are held.
    """
    code = model._activations(model._pre_activations(model._normalise(x)))
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


def _align(
    piece: slice, neighbours: Neighbourhood | None, x: torch.Tensor, latents: torch.Tensor, cknna_batch_size: int
) -> CknnaAccumulator:
    accumulator = CknnaAccumulator(cknna_batch_size)
    if neighbours is None:
        accumulator.update(x[piece], latents[piece])
    else:
        accumulator.count(neighbours, Neighbourhood(as_matrix("latents", latents[piece])))
    return accumulator


def _orthogonality(model: MSAEModel) -> float | None:
    return decoder_orthogonality(model.dictionary) if model.config.num_latents > 1 else None


def _is_main(accelerator: Accelerator | None) -> bool:
    return accelerator is None or accelerator.is_main_process
