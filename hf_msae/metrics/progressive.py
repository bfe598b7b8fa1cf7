"""Progressive recovery by level: sparse probing of few latents, and stability across seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.deprecation import renamed_arguments
from .._utils.evaluating import evaluation_mode
from .dictionary import seed_stability
from .firing import SparsityAccumulator
from .levels import level_codes
from .sparse_probing import SparseProbing, sparse_probing

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel


def progressive_ks(num_latents: int, smallest: int = 16) -> list[int]:
    """Return the granularities of the MSAE paper's progressive recovery: 16, 32, 64, ... and num_latents.

    Raises:
        ValueError: `smallest` is below 1.
    """
    if smallest < 1:
        raise ValueError(f"smallest must be at least 1, got {smallest}")
    ks, k = [], smallest
    while k < num_latents:
        ks.append(k)
        k *= 2
    return [*ks, num_latents]


@torch.no_grad()
def sparse_probing_by_level(
    model: MSAEModel,
    train: EmbeddingDataset,
    test: EmbeddingDataset,
    labels: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]],
    ks: Sequence[int],
    probe_ks: Sequence[int] = (1, 5),
    max_samples: int = 10_000,
    seed: int = 0,
    progress: bool = True,
    of_dictionary: bool = False,
) -> dict[int, dict[str, dict[str, float | int]]]:
    """Run `sparse_probing` at every level: how well few latents of the codes with k activations recognize classes.

    Every class is probed against all others; of two classes, only the second. If there are more than `max_samples`, a
    random sample is drawn. Codes of one level are held in memory at a time.

    Args:
        model: The MSAE.
        train: Embeddings for choosing latents and training probes.
        test: Other embeddings to measure on.
        labels: For each name, the class numbers of `train` and of `test` (-1: unknown, left out) and the class names.
        ks: Levels.
        probe_ks: Numbers of latents to probe with; those above the number of latents or columns are left out.
        max_samples: Largest number of samples of each part.
        seed: Random seed of the sample.
        progress: Show a progress bar.
        of_dictionary: Whether the levels are widths of prefixes of the dictionary instead of k.

    Returns:
        For each level and name: `auroc_1`, `balanced_accuracy_1` etc. for every number of latents, averaged over
        classes; `embeds_auroc_1` etc. for the same number of the embeddings' own columns; `num_concepts`, `num_train`
        and `num_test`.

    Raises:
        ValueError: No class can be probed, or as `sparse_probing`.
    """
    found: dict[int, dict[str, dict[str, float | int]]] = {k: {} for k in ks}
    bar = tqdm(total=len(labels) * (len(ks) + 1), desc="sparse probing", unit="level", disable=not progress)
    with evaluation_mode(model), bar:
        for name, (train_labels, test_labels, classes) in labels.items():
            rng = np.random.default_rng(seed)  # anew, so that the sample of a name does not depend on the other names
            wanted = np.arange(len(classes))[len(classes) == 2 :]  # of two classes, one determines the other
            rows, test_rows = (_sample(each, max_samples, rng) for each in (train_labels, test_labels))
            truth, test_truth = train_labels[rows, None] == wanted, test_labels[test_rows, None] == wanted
            x, test_x, names = train[rows], test[test_rows], [classes[index] for index in wanted]
            train.check_finite(x, rows)
            test.check_finite(test_x, test_rows)
            own: dict[str, float | int] = {"num_train": len(x), "num_test": len(test_x)}
            for k in (None, *ks):
                codes, test_codes = x, test_x
                if k is not None:
                    codes, test_codes = (_codes(model, each, k, of_dictionary) for each in (x, test_x))
                try:
                    result = sparse_probing(codes, truth, test_codes, test_truth, probe_ks, names, progress=False)
                except ValueError as error:
                    raise ValueError(f"sparse probing of {name!r}: {error}") from None
                if k is None:
                    own |= _means(result, "embeds_")
                else:
                    found[k][name] = _means(result, "") | own
                bar.update()
    return found


@renamed_arguments(acts="embeddings")
@torch.no_grad()
def seed_stability_by_level(
    model: MSAEModel,
    others: Sequence[MSAEModel],
    embeddings: EmbeddingDataset,
    ks: Sequence[int],
    batch_size: int = 4096,
    progress: bool = True,
    of_dictionary: bool = False,
) -> dict[int, dict[str, float | int | None]]:
    """Compute the `seed_stability` of the latents that are alive at every level.

    Args:
        model: The MSAE.
        others: MSAEs of the same embeddings trained with other seeds.
        embeddings: Embeddings; a latent is alive at a level if it is active there on any of them.
        ks: Levels; the other models must have at least as many latents.
        batch_size: Number of embeddings encoded at a time.
        progress: Show a progress bar.
        of_dictionary: Whether the levels are widths of prefixes of the dictionary instead of k.

    Returns:
        For each level, the means over the other models of `mean_cosine`, `fraction_above` and `by_chance` (the mean
        cosine of as many random directions), the largest `error` of a matching that is not exact, and `num_latents`,
        the number of `model`'s latents that are alive. The means are None if no latent is alive.

    Raises:
        ValueError: Another model has a different width, or fewer latents than a k.
    """
    check_comparable(model, others, ks)
    alive, *others_alive = (
        _alive(each, embeddings, ks, batch_size, progress, of_dictionary) for each in (model, *others)
    )
    records: dict[int, dict[str, float | int | None]] = {}
    match = cache(_match)  # from some k on, the same latents are alive: match them only once
    with tqdm(total=len(ks) * len(others), desc="matching seeds", unit="level", disable=not progress) as bar:
        for k in ks:
            found = []
            for other, other_alive in zip(others, others_alive, strict=True):
                found.append(match(model, other, alive[k], other_alive[k]))
                bar.update()
            usable = [each for each in found if each is not None]
            means = np.mean([each[:3] for each in usable], axis=0).tolist() if usable else [None] * 3
            records[k] = dict(zip(("mean_cosine", "fraction_above", "by_chance"), means, strict=True))
            records[k]["error"] = max((each[3] for each in usable), default=0.0)
            records[k]["num_latents"] = len(alive[k])
    return records


def check_comparable(model: MSAEModel, others: Sequence[MSAEModel], ks: Sequence[int]) -> None:
    """Raise ValueError if `seed_stability_by_level` cannot compare these models at these levels."""
    for other in others:
        name = other.config.name_or_path or "another model"
        if other.config.d_in != model.config.d_in:
            raise ValueError(f"{name} takes embeddings of {other.config.d_in} columns, not of {model.config.d_in}")
        if max(ks) > other.config.num_latents:
            raise ValueError(f"{name} has {other.config.num_latents} latents: it has no level k = {max(ks)}")
        if torch.equal(other.dictionary.cpu(), model.dictionary.cpu()):
            raise ValueError(f"{name} is the model itself: give one that was trained with another seed")


def _match(
    model: MSAEModel, other: MSAEModel, alive: tuple[int, ...], other_alive: tuple[int, ...]
) -> tuple[float, float, float, float] | None:
    """(mean cosine, fraction above, mean cosine of random directions, error), or None if no latent is alive."""
    if not alive or not other_alive:
        return None
    dictionaries = model.dictionary[list(alive)], other.dictionary[list(other_alive)]
    found = seed_stability(*dictionaries)
    random = [np.random.default_rng(seed).normal(size=each.shape) for seed, each in enumerate(dictionaries)]
    return found.mean_cosine, found.fraction_above, seed_stability(*random).mean_cosine, found.error


def _alive(
    model: MSAEModel,
    embeddings: EmbeddingDataset,
    ks: Sequence[int],
    batch_size: int,
    progress: bool,
    of_dictionary: bool,
) -> dict[int, tuple[int, ...]]:
    """For each level, the latents that are active on any of the embeddings."""
    firing = {k: SparsityAccumulator(model.config.num_latents) for k in ks}
    bar = tqdm(total=len(embeddings), desc="alive latents", unit="row", disable=not progress)
    with evaluation_mode(model), bar:
        for first in range(0, len(embeddings), batch_size):
            x = embeddings[first : first + batch_size]
            embeddings.check_finite(x, range(first, first + len(x)))
            code = model.full_code(x.to(model.device))
            for level_ks, latents, _ in level_codes(code, sorted(ks), model.config.soft_cap, of_dictionary):
                for k in level_ks:
                    firing[k].update(latents)
            bar.update(len(x))
    return {k: tuple(each.firings.nonzero().flatten().tolist()) for k, each in firing.items()}


def _codes(model: MSAEModel, x: torch.Tensor, size: int, of_dictionary: bool, batch_size: int = 4096) -> torch.Tensor:
    k = model.config.num_latents if of_dictionary else size
    codes = torch.cat([model.encode(part.to(model.device), k=k).float().cpu() for part in x.split(batch_size)])
    return codes[:, :size] if of_dictionary else codes


def _sample(labels: np.ndarray, max_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted rows with a label, at most `max_samples`."""
    rows = np.flatnonzero(labels >= 0)
    return np.sort(rng.choice(rows, max_samples, replace=False)) if len(rows) > max_samples else rows


def _means(found: SparseProbing, prefix: str) -> dict[str, float | int]:
    means = found.summary()[["auroc", "balanced_accuracy"]]
    figures = {f"{prefix}{name}_{k}": float(means.loc[k, name]) for name in means for k in means.index}
    return figures | {"num_concepts": found.to_pandas()["concept"].nunique()}
