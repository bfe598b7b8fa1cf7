"""Name latents by the words that their activations agree with, on pictures, and test the names on other pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..statistics import auroc_interval, benjamini_hochberg, null_p_values
from .codes import Embeddings, collect_codes, open_embeddings
from .collectors import ColumnCollector
from .moments import Moments, MomentsCollector
from .vocabulary import Vocabulary, check_vocabulary_embeds

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

SLACK = 0.02
"""Words whose agreement is within this share of the best are synonyms: the pictures cannot tell them apart."""

EFFECT = ("zero_shot_auroc", "zero_shot_auroc_low", "zero_shot_auroc_high")
MIN_ROWS = 20
_MOST_SYNONYMS = 20
_NULL_NAMES = 10_000  # decoy names that p-values are taken from, at least one per latent
_MOST_ROUNDS = 20
_EFFECT_ENTRIES = 2**25  # activations held for the effect sizes: 128 MiB
_EFFECT_ROWS = 20_000
_MIN_BEST = 25  # pictures that fit a word best


@torch.no_grad()
def name_by_agreement(
    msae: MSAEModel,
    embeddings: Embeddings,
    vocabulary: Vocabulary,
    vocabulary_embeds: torch.Tensor,
    seed: int = 0,
    batch_size: int = 2048,
    progress: bool = True,
) -> pd.DataFrame:
    """Name latents by the words whose zero-shot scores rise and fall with their activations.

    The score of word w for picture x is the cosine of their embeddings, and the agreement of latent j and word w is
    the correlation of activation and score over pictures:

        agreement(j, w) = corr_x(a_j(x), cos(x, w))

    What all pictures or all words have in common, such as the modality gap, drops out. Pictures are split at random
    into two halves. On the first, each latent gets the word of highest agreement. Pictures cannot tell words within 2%
    of it apart, so of these the most frequent one is taken if the vocabulary is ordered by frequency. The figures
    returned are of the second half, so the choice among many words does not inflate them.

    The p-values come from a competition with decoys: random mixtures of the words, one as far from the words' mean as
    each word is, from which a name is chosen and read in the same way. A name's p-value is the share of the latents'
    decoy names that agree at least as well; q-values are Benjamini and Hochberg's.
    (Target-decoy competition: Elias and Gygi, "Target-decoy search strategy", Nature Methods 2007.)

    The effect size in plain terms is the AUROC with which the activation tells the pictures that fit the word best
    from all others, with Newcombe's 95% interval (`auroc_interval`). The best are 1% of the second half, but at least
    25 and at most a quarter of it; with fewer than 25 the interval is so wide that hardly a name passes.

    All agreements come from second moments, which take one pass over the data whatever the number of words; the
    AUROCs need at most 20,000 pictures again, and pass over them once for every 1,677 latents or more.

    Near-duplicates that fall into both halves make the figures look better than they are.

    Args:
        msae: The MSAE.
        embeddings: Embeddings of the MSAE's backbone, of pictures; anything `load_embeddings` accepts.
        vocabulary: The candidates for names.
        vocabulary_embeds: Embeddings (len(vocabulary), d_in) from `Vocabulary.embed`, by the same backbone.
        seed: Random seed of the split and of the decoys.
        batch_size: Rows encoded at a time.
        progress: Whether to show progress bars.

    Returns:
        One row per latent: latent, name, agreement, runner_up (the best word that is no synonym of the name),
        runner_up_agreement, synonyms (comma-separated), also (the best candidate for a second meaning), also_agreement
        (its agreement, or its partial correlation with the activation given the name's score if that is lower),
        zero_shot_auroc, zero_shot_auroc_low, zero_shot_auroc_high, p_value and q_value. Latents that are never active
        or agree with no word have no name, and a p-value of 1.

    Raises:
        ValueError: The word embeddings do not fit, or there are fewer than 20 pictures.
    """
    embeds = check_vocabulary_embeds(msae, vocabulary, vocabulary_embeds)
    embeddings = open_embeddings(msae, embeddings)
    if len(embeddings) < MIN_ROWS:
        raise ValueError(
            f"names need at least {MIN_ROWS} pictures as evidence, but {embeddings.source} has {len(embeddings)}"
        )
    held_out = random_half(len(embeddings), seed)
    collector = MomentsCollector(held_out)
    (halves,) = collect_codes(
        msae, embeddings, [collector], batch_size=batch_size, progress=progress, description="agreement"
    )
    choosing, testing = halves
    words = F.normalize(embeds, dim=-1).to(msae.device)
    decoy_rounds = min(_MOST_ROUNDS, -(-_NULL_NAMES // msae.config.num_latents))
    generator = torch.Generator().manual_seed(seed)
    with tqdm(
        total=msae.config.num_latents * (2 + decoy_rounds), desc="words", unit="latent", disable=not progress
    ) as bar:
        found = _choose(choosing, testing, words, vocabulary, bar)
        null = []
        for _ in range(decoy_rounds):
            decoys = _decoys(embeds.to(msae.device), generator)
            best = torch.cat([values.argmax(dim=1) for _, values in choosing.agreements(decoys, bar)])
            null.append(testing.agreement_of(decoys[best]))
    alive = found["name"].notna().to_numpy()
    p_values = np.ones(len(found))
    if alive.any():
        p_values[alive] = null_p_values(found["agreement"][alive], np.concatenate(null)[np.tile(alive, decoy_rounds)])
    q_values = np.ones(len(found))
    q_values[alive] = benjamini_hochberg(p_values[alive])
    rows = spread(np.flatnonzero(held_out))
    effects = _effects(msae, embeddings, rows, found, vocabulary, words, batch_size, progress)
    return found.assign(**effects, p_value=p_values, q_value=q_values)


def _choose(
    choosing: Moments, testing: Moments, words: torch.Tensor, vocabulary: Vocabulary, bar: tqdm
) -> pd.DataFrame:
    """Choose names, runners-up and second meanings on one half; read how well they agree on the other."""
    n = len(choosing.spread)
    name, runner_up = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    best, synonyms = np.zeros(n), [""] * n
    # Words come most frequent first; otherwise their order says nothing, and the best stays.
    by_frequency = vocabulary.order == "frequency"
    for part, values in choosing.agreements(words, bar):
        highest, where = values.max(dim=1)
        near = (values >= (1 - SLACK) * highest[:, None]) & (highest[:, None] > 0)
        name[part], best[part] = where.cpu().numpy(), highest.cpu().numpy()
        latents, candidates = (each.cpu().numpy() for each in near.nonzero(as_tuple=True))
        of_candidates = values[near].cpu().numpy()
        values.masked_fill_(near, -torch.inf)
        runner_up[part] = values.argmax(dim=1).cpu().numpy()
        starts = np.unique(latents, return_index=True)[1]
        for first, last in zip(starts, [*starts[1:], len(latents)], strict=True):
            ordered = candidates[first:last]
            if not by_frequency:
                ordered = ordered[np.argsort(-of_candidates[first:last], kind="stable")]
            latent = part.start + latents[first]
            name[latent] = ordered[0]
            synonyms[latent] = ", ".join(vocabulary.words[i] for i in ordered[1 : 1 + _MOST_SYNONYMS])
    also, partial = _second_meanings(choosing, testing, words, name, bar)
    alive = ((choosing.spread > 0) & (testing.spread > 0)).cpu().numpy() & (best > 0)

    def text(chosen: np.ndarray, there: np.ndarray) -> list[str | None]:
        return [vocabulary.words[i] if known else None for i, known in zip(chosen, there, strict=True)]

    return pd.DataFrame(
        {
            "latent": np.arange(n),
            "name": text(name, alive),
            "agreement": np.where(alive, testing.agreement_of(words[name]), np.nan),
            "runner_up": text(runner_up, alive & (runner_up != name)),
            "runner_up_agreement": np.where(alive, testing.agreement_of(words[runner_up]), np.nan),
            "synonyms": [each if known else "" for each, known in zip(synonyms, alive, strict=True)],
            "also": text(also, alive),
            "also_agreement": np.where(alive, partial, np.nan),
        }
    )


def _second_meanings(
    choosing: Moments, testing: Moments, words: torch.Tensor, name: np.ndarray, bar: tqdm
) -> tuple[np.ndarray, np.ndarray]:
    """Find the word with the highest partial correlation given each latent's name, and read it on the other half."""
    named, also = words[name], np.empty(len(name), dtype=int)
    for part, values in choosing.agreements(words, bar):
        partial = _partial(values, *_with_name(choosing, named, words, part))
        also[part] = torch.minimum(values, partial).argmax(dim=1).cpu().numpy()
    chosen = words[also]
    between = ((named @ testing.embeddings) * chosen).sum(dim=1) / (
        testing.spread_of(named) * testing.spread_of(chosen)
    ).clamp(min=1e-12)
    of_name, of_chosen = (torch.from_numpy(testing.agreement_of(each)).to(words.device) for each in (named, chosen))
    return also, torch.minimum(of_chosen, _partial(of_chosen, of_name, between)).cpu().numpy()


def _with_name(moments: Moments, named: torch.Tensor, words: torch.Tensor, part: slice) -> tuple[torch.Tensor, ...]:
    """Return the agreement of latents with their names (n, 1), and of their names' scores with all words' (n, W)."""
    spread = moments.spread_of(named[part])[:, None]
    between = (named[part] @ moments.embeddings @ words.T) / (spread * moments.spread_of(words)).clamp(min=1e-12)
    own = (moments.covariance[part] * named[part]).sum(dim=1, keepdim=True)
    return own / (moments.spread[part, None] * spread).clamp(min=1e-12), between


def _partial(with_word: torch.Tensor, with_name: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """Return the partial correlation of activation and word, given the name. Near copies of the name get none."""
    left = (1 - with_name.square()).clamp(min=1e-6) * (1 - between.square()).clamp(min=0.1)
    return (with_word - with_name * between) / left.sqrt()


def _decoys(embeds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw one unit vector for each word: a random mixture of all words, as far from their mean as the word is.

    Without the distances, decoys would be too weak where a few words lie much farther out than the others.
    """
    mean = embeds.mean(dim=0)
    differences = embeds - mean
    directions = F.normalize(differences, dim=-1)
    values, axes = torch.linalg.eigh(directions.T @ directions)
    normal = torch.randn(len(embeds), len(values), generator=generator).to(embeds.device)
    mixed = F.normalize(normal * values.clamp(min=0).sqrt() @ axes.T, dim=-1)
    return F.normalize(mean + mixed * differences.norm(dim=-1, keepdim=True), dim=-1)


def _effects(
    msae: MSAEModel,
    embeddings: Embeddings,
    rows: np.ndarray,
    found: pd.DataFrame,
    vocabulary: Vocabulary,
    words: torch.Tensor,
    batch_size: int,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Compute the AUROCs of activations for the pictures that fit the names best, with intervals."""
    place = {word: i for i, word in enumerate(vocabulary.words)}
    named = np.flatnonzero(found["name"].notna())
    result = {column: np.full(len(found), np.nan) for column in EFFECT}
    positives = min(max(_MIN_BEST, len(rows) // 100), len(rows) // 4)
    units = F.normalize(embeddings[rows].float(), dim=-1).to(words.device)
    for part, values in activations_in_parts(msae, embeddings, rows, named, batch_size, progress):
        scores = units @ words[[place[name] for name in found["name"].iloc[part]]].T
        best = scores.topk(positives, dim=0).indices.cpu().numpy()
        negatives = len(rows) - positives
        sums = np.take_along_axis(rankdata(values, axis=0), best, axis=0).sum(axis=0)
        area = (sums - positives * (positives + 1) / 2) / (positives * negatives)
        low, high = auroc_interval(area, positives, negatives)
        for column, figures in zip(EFFECT, (area, low, high), strict=True):
            result[column][part] = figures
    return result


def random_half(number: int, seed: int) -> np.ndarray:
    """Choose the half of the rows that names are tested on: bool (number,)."""
    return np.random.default_rng(seed).permutation(number) < number // 2


def spread(rows: np.ndarray) -> np.ndarray:
    """Return at most 20,000 of the rows, evenly spread."""
    return rows[:: -(-len(rows) // _EFFECT_ROWS)]


def activations_in_parts(
    msae: MSAEModel, embeddings: Embeddings, rows: np.ndarray, latents: np.ndarray, batch_size: int, progress: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some of the latents and their activations (rows, latents), as many at a time as memory should hold."""
    size = max(1, _EFFECT_ENTRIES // len(rows))
    for first in range(0, len(latents), size):
        part = latents[first : first + size]
        (columns,) = collect_codes(
            msae,
            embeddings,
            [ColumnCollector(part)],
            rows=rows,
            batch_size=batch_size,
            progress=progress,
            description="effect sizes",
        )
        yield part, columns.values
