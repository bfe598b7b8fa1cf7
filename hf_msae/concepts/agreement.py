"""Name latents by the words that their activations agree with, on pictures, and test the names on other pictures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..statistics import auroc_interval, benjamini_hochberg, null_p_values
from .codes import Embeddings, collect_codes, open_embeddings
from .halves import picture_groups, random_half, usual_rows
from .moments import Moments, MomentsCollector
from .vocabulary import Vocabulary, check_vocabulary_embeds
from .zero_shot import RankedPictures, spread

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

_SLACK = (0.25, 0.02)  # synonyms miss an area of 1 by at most a quarter more than the best word, and by 0.02 more

LEVEL = 0.6827
"""Level of the interval of the area: one standard error to each side."""

MIN_ROWS = 20
_CANDIDATES = 20  # words of highest agreement, of which the name is chosen; on both worlds no more are needed
_NULL_NAMES = 10_000  # decoy names that p-values are taken from, at least one per latent
_MOST_ROUNDS = 20


_WITHOUT_NAME = {
    "name": None,
    "agreement": np.nan,
    "runner_up": None,
    "runner_up_agreement": np.nan,
    "synonyms": "",
    "also": None,
    "also_agreement": np.nan,
    "zero_shot_auroc": np.nan,
    "zero_shot_auroc_low": np.nan,
    "zero_shot_auroc_high": np.nan,
    "zero_shot_pictures": np.nan,
    "p_value": 1.0,
    "q_value": 1.0,
}
"""The columns of the table, and what they hold for a latent without a name."""


def check_enough(number: int, source: str) -> None:
    """Raise ValueError if there are too few different pictures to take evidence from."""
    if number < MIN_ROWS:
        raise ValueError(f"names need at least {MIN_ROWS} different pictures as evidence, but {source} has {number}")


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
    """Name latents by the words whose best pictures their activations detect.

    The zero-shot score of word w for picture x is the cosine of their embeddings. Candidates for the name of latent j
    are the 20 words whose scores agree best with its activations a_j, by correlation over pictures:

        agreement(j, w) = corr_x(a_j(x), cos(x, w))

    What all pictures have in common, such as the modality gap, drops out. Some pictures have higher cosines than
    others with whatever word; if that makes up more than 40% of the variance of cosines, it is subtracted until it
    does not (`Moments.common_part`). Of the candidates, the name is the word whose pictures the activation detects
    best. Which pictures are a word's is a matter of degree: picture x counts with the weight exp(2 z(x)), where z is
    the standard score of cos(x, w) over pictures, so that a word has few pictures where few stand out. The area is
    that under the ROC curve with these weights (`RankedPictures.areas`): how often the activation is higher in a
    picture of the word than in another one.

    Pictures are split at random into two halves. Names are chosen on the first; words whose area misses 1 by at most
    a quarter more than the best, and by at most 0.02 more, are synonyms that pictures cannot tell apart. Of these, the
    most frequent one is taken if the vocabulary is ordered by frequency. The figures returned are of the second half,
    so the choice among many words does not inflate them. They are

    - the area with an interval of one standard error to each side, by Newcombe's method (`auroc_interval`), for as
      many pictures as the weights amount to,
    - a p-value from a competition with decoys: random mixtures of the words, one as far from the words' mean as each
      word is, from which a name is chosen and read in the same way. It is the share of the latents' decoy names with
      at least the same area; q-values are Benjamini and Hochberg's. (Target-decoy competition: Elias and Gygi,
      "Target-decoy search strategy", Nature Methods 2007.)

    Agreements come from second moments, which take one pass over the data whatever the number of words. Areas take at
    most 20,000 pictures of each half, and fewer if over 13,000 latents are active in some.

    At most one row in 100 is left out, with a warning, if it lies far from all others along the words' mean
    (`usual_rows`). Copies of a picture, with the same embedding, are in the same half. Near-duplicates that fall into
    both halves make the figures look better than they are.

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
        zero_shot_auroc, zero_shot_auroc_low, zero_shot_auroc_high, zero_shot_pictures (the number of pictures that
        the weights amount to), p_value and q_value. Latents that are never active or agree with no word have no name,
        and a p-value of 1.

    Raises:
        ValueError: The word embeddings do not fit, or there are fewer than 20 different pictures.
    """
    embeds = check_vocabulary_embeds(msae, vocabulary, vocabulary_embeds)
    embeddings = open_embeddings(msae, embeddings)
    words = F.normalize(embeds, dim=-1).to(msae.device)
    rows = usual_rows(embeddings, words.mean(dim=0), batch_size)
    groups = picture_groups(embeddings, batch_size)[rows]
    check_enough(len(np.unique(groups)), embeddings.source)
    held_out = random_half(groups, seed)
    collectors = [MomentsCollector(held_out)]
    (halves,) = collect_codes(
        msae, embeddings, collectors, rows, batch_size=batch_size, progress=progress, description="agreement"
    )
    # Latents whose activation never changes get no name, and no decoys.
    latents = ((halves[0].spread > 0) & (halves[1].spread > 0)).nonzero()[:, 0]
    n, number = msae.config.num_latents, len(latents)
    if not number:
        return _of_all(n, latents, {})
    choosing, testing = (half.select(latents) for half in halves)
    read = partial(
        RankedPictures.read, msae, embeddings, latents.cpu().numpy(), batch_size=batch_size, progress=progress
    )
    common = choosing.common_part(words)
    units, words = words, words - common
    decoy_rounds = min(_MOST_ROUNDS, -(-_NULL_NAMES // number))
    generator = torch.Generator().manual_seed(seed)
    decoys = []
    pictures = read(spread(np.asarray(rows)[~held_out], number))
    with tqdm(total=number * (2 + decoy_rounds), desc="words", unit="latent", disable=not progress) as bar:
        found = choose_names(choosing, pictures, words, vocabulary, bar)
        for _ in range(decoy_rounds):
            mixtures = _decoys(units, generator) - common
            candidates, _, areas = _candidates(choosing, pictures, mixtures, bar)
            decoys.append(mixtures[candidates.gather(1, areas.argmax(dim=1, keepdim=True))[:, 0]])
        name = torch.from_numpy(found["name"]).to(words.device)
        also, also_agreement = _second_meanings(choosing, testing, words, name, bar)
    del pictures  # before those of the other half are read
    pictures = read(spread(np.asarray(rows)[held_out], number))
    areas, fitting = (each[:, 0].cpu().double().numpy() for each in pictures.areas(words, name[:, None]))
    places = torch.arange(number, device=words.device)[:, None]
    null = torch.stack([pictures.areas(each, places)[0][:, 0] for each in decoys]).cpu().numpy()

    named = found["agreement"] > 0
    low, high = auroc_interval(areas, fitting, len(pictures.units) - fitting, level=LEVEL)
    p_values, q_values = np.ones((2, number))
    if named.any():
        p_values[named] = null_p_values(areas[named], null[:, named].flatten())
        q_values[named] = benjamini_hochberg(p_values[named])
    runner_up = found["runner_up"]
    texts = np.array([*vocabulary.words, None], dtype=object)  # the place -1 is that of no word
    columns = {
        "name": texts[found["name"]],
        "agreement": testing.agreement_of(words[name]),
        "runner_up": texts[runner_up],
        "runner_up_agreement": np.where(runner_up >= 0, testing.agreement_of(words[runner_up]), np.nan),
        "synonyms": found["synonyms"],
        "also": texts[also],
        "also_agreement": also_agreement.astype(np.float64),
        "zero_shot_auroc": areas,
        "zero_shot_auroc_low": low,
        "zero_shot_auroc_high": high,
        "zero_shot_pictures": fitting,
        "p_value": p_values,
        "q_value": q_values,
    }
    return _of_all(n, latents[torch.from_numpy(named)], {key: values[named] for key, values in columns.items()})


def _of_all(n: int, latents: torch.Tensor, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return a table of all latents from columns of some."""
    table = {"latent": np.arange(n)}
    for column, without in _WITHOUT_NAME.items():
        table[column] = np.full(n, without, dtype=np.float64 if isinstance(without, float) else object)
        table[column][latents.cpu().numpy()] = columns.get(column, [])
    return pd.DataFrame(table)


def _candidates(
    moments: Moments, pictures: RankedPictures, words: torch.Tensor, bar: tqdm
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the words (n, m) of highest agreement, best first, their agreements, and their areas."""
    best = [values.topk(min(_CANDIDATES, len(words)), dim=1) for _, values in moments.agreements(words, bar)]
    candidates = torch.cat([each.indices for each in best])
    return candidates, torch.cat([each.values for each in best]), pictures.areas(words, candidates)[0]


def choose_names(
    moments: Moments, pictures: RankedPictures, words: torch.Tensor, vocabulary: Vocabulary, bar: tqdm
) -> dict[str, np.ndarray]:
    """Choose names and runners-up (-1 if there is none), with the names' agreement and synonyms.

    `words` are unit embeddings (W, d); `bar` advances once for each neuron.
    """
    candidates, agreements, areas = (each.cpu().numpy() for each in _candidates(moments, pictures, words, bar))
    areas[agreements <= 0] = -1
    best = areas.max(axis=1, keepdims=True)
    near = areas >= best - np.minimum(_SLACK[0] * (1 - best), _SLACK[1])
    # Words come most frequent first; otherwise their order says nothing, and the best stays.
    if vocabulary.order == "frequency":
        order = np.where(near, candidates, len(words)).argsort(axis=1, kind="stable")
    else:
        order = np.where(near, -areas, 2).argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(candidates, order, axis=1)
    first = order[:, :1]
    areas[near] = -1
    second = areas.argmax(axis=1)[:, None]
    return {
        "name": ordered[:, 0],
        "agreement": np.take_along_axis(agreements, first, axis=1)[:, 0],
        "runner_up": np.where(
            np.take_along_axis(areas, second, axis=1) >= 0, np.take_along_axis(candidates, second, axis=1), -1
        )[:, 0],
        "synonyms": np.array(
            [
                ", ".join(vocabulary.words[i] for i in row[1:number])
                for row, number in zip(ordered, near.sum(axis=1), strict=True)
            ],
            dtype=object,
        ),
    }


def _second_meanings(
    choosing: Moments, testing: Moments, words: torch.Tensor, name: torch.Tensor, bar: tqdm
) -> tuple[np.ndarray, np.ndarray]:
    """Find the word with the highest partial correlation given each latent's name, and read it on the other half.

    The place is -1, and the figure NaN, where no other word agrees with the latent.
    """
    named, also = words[name], np.empty(len(name), dtype=int)
    spread_of_words = choosing.spread_of(words)
    for part, values in choosing.agreements(words, bar):
        partial = _partial(values, *_with_name(choosing, named[part], words, spread_of_words, part))
        scores = torch.minimum(values, partial).scatter(1, name[part][:, None], -1.0)
        best, place = scores.max(dim=1)
        also[part] = torch.where(best > 0, place, -1).cpu().numpy()
    chosen = words[also]
    between = ((named @ testing.embeddings) * chosen).sum(dim=1) / (
        testing.spread_of(named) * testing.spread_of(chosen)
    ).clamp(min=1e-12)
    of_name, of_chosen = (torch.from_numpy(testing.agreement_of(each)).to(words.device) for each in (named, chosen))
    figure = torch.minimum(of_chosen, _partial(of_chosen, of_name, between)).cpu().numpy()
    return also, np.where(also >= 0, figure, np.nan)


def _with_name(
    moments: Moments, named: torch.Tensor, words: torch.Tensor, spread_of_words: torch.Tensor, part: slice
) -> tuple[torch.Tensor, ...]:
    """Return the agreement of latents with their names (n, 1), and of their names' scores with all words' (n, W)."""
    spread_of_names = moments.spread_of(named)[:, None]
    between = (named @ moments.embeddings @ words.T) / (spread_of_names * spread_of_words).clamp(min=1e-12)
    own = (moments.covariance[part] * named).sum(dim=1, keepdim=True)
    return own / (moments.spread[part, None] * spread_of_names).clamp(min=1e-12), between


def _partial(with_word: torch.Tensor, with_name: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
    """Return the partial correlation of activation and word, given the name. Near copies of the name get none."""
    left = (1 - with_name.square()).clamp(min=1e-6) * (1 - between.square()).clamp(min=0.1)
    return (with_word - with_name * between) / left.sqrt()


def _decoys(words: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a unit vector for each unit vector of a word: a mixture of all, as far from their mean as the word is.

    Without the distances, decoys would be too weak where a few words lie much farther out than the others.
    """
    mean = words.mean(dim=0)
    differences = words - mean
    directions = F.normalize(differences, dim=-1)
    values, axes = torch.linalg.eigh(directions.T @ directions)
    normal = torch.randn(len(words), len(values), generator=generator).to(words.device)
    mixed = F.normalize(normal * values.clamp(min=0).sqrt() @ axes.T, dim=-1)
    return F.normalize(mean + mixed * differences.norm(dim=-1, keepdim=True), dim=-1)
