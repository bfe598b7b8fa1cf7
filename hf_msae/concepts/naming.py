"""Name latents by words, with the evidence for each name: of pictures if there are any, else of directions alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .._utils.checks import check_integers
from .._utils.deprecation import renamed_arguments
from .._utils.fingerprint import model_fingerprint
from ..statistics import benjamini_hochberg, null_p_values
from .activation_naming import name_by_activations
from .agreement import LEVEL, name_by_agreement
from .codes import Embeddings, open_embeddings
from .table import ConceptTable
from .vocabulary import Vocabulary, check_vocabulary_embeds

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

_CHUNK_ENTRIES = 2**25  # similarities held at a time: 128 MiB
_STRONGEST = 100  # samples of each latent that its activation name is taken from

DIRECTIONS = ("decoder", "decoder+mean", "decoder+bias")
NULLS = ("vocabulary", "dictionary", "shuffled", "isotropic")


@torch.no_grad()
@renamed_arguments(centre="center")
def name_latents(
    msae: MSAEModel,
    vocabulary: Vocabulary,
    vocabulary_embeds: torch.Tensor,
    embeddings: Embeddings | None = None,
    center: bool = True,
    direction: str = "decoder",
    ratio_over: str = "words",
    null: str = "vocabulary",
    null_samples: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> ConceptTable:
    """Give every latent a name from a vocabulary, with the evidence for it.

    With `embeddings` of pictures, a latent's name is the word whose pictures its activation detects best, tested on
    pictures that were not used to choose it: see [`name_by_agreement`]. That works on any backbone.
    A name is validated if it is better than chance (q-value at most 0.05) and strong enough: the AUROC is at least 0.9
    after one standard error is taken off, and the agreement at least 0.4.

    Without pictures, the name is a suggestion: the word whose text embedding has the highest cosine with the latent's
    direction.

    Rows of the dictionary are differences from the mean embedding, while text embeddings of CLIP-like models share a
    large common part, the modality gap. `center` subtracts the vocabulary's mean from the text embeddings, so that
    differences are compared with differences. (Argmax over words: Rao et al. 2024, "Discover-then-Name"; centering:
    Bhalla et al. 2024, "SpLiCE".)

    Every latent has a nearest word, so this name needs evidence too. Its p-value is the share of random directions
    whose nearest word is at least as near. Its q-value (Benjamini-Hochberg over latents) is the expected share of
    false names among the names at least as good, provided that latents without a meaning are like the random
    directions. `null` says which directions these are:

    - "vocabulary": random mixtures of all words (Gaussian, with the words' covariance). A latent whose direction mixes
      several words passes the other nulls, but not this one.
    - "dictionary": random mixtures of all latents.
    - "shuffled": latents with their coordinates in random order.
    - "isotropic": any direction.

    Args:
        msae: The MSAE.
        vocabulary: The candidates for names.
        vocabulary_embeds: Embeddings (len(vocabulary), d_in) from `Vocabulary.embed`.
        embeddings: Embeddings of pictures to take names and evidence from: an array or tensor (N, d_in), opened
            embeddings, or their path. The table then also has the name by direction alone, with its similarity and
            q-value, and the names of `name_by_activations`.
        center: Whether to subtract the vocabulary's mean embedding.
        direction: What of a latent is compared with the words: its row of the dictionary ("decoder"), or that row
            added to the mean embedding ("decoder+mean", as in the MSAE authors' code) or to the model's bias
            ("decoder+bias").
        ratio_over: What `ratio` divides the similarity by: that of the second-best of the "words" for the latent, or
            of the second-best of the "latents" for the word.
        null: Kind of random directions that p-values are taken over.
        null_samples: Number of random directions.
        seed: Random seed of the random directions, of the split of the pictures, and of the decoys.
        progress: Whether to show progress bars.

    Raises:
        TypeError: `vocabulary` is no `Vocabulary`.
        ValueError: The word embeddings do not match the vocabulary or the MSAE or are not finite, there are too few
            words to center or pictures to test on, or an option is unknown.
    """
    embeds = check_vocabulary_embeds(msae, vocabulary, vocabulary_embeds)
    check_options(vocabulary, center, direction, ratio_over, null, null_samples)
    check_integers(seed=(seed, 0))
    seed = int(seed)  # neither torch nor JSON takes numpy's integers
    if center:
        embeds = embeds - embeds.mean(0)
    dictionary = msae.dictionary.detach().float()
    words = F.normalize(embeds, dim=-1).to(dictionary.device)
    generator = torch.Generator().manual_seed(seed)
    total = len(dictionary) + null_samples
    with tqdm(total=total, desc="naming", unit="direction", disable=not progress) as bar:
        best, values, of_words = _nearest(
            _directions(msae, dictionary, direction), words, bar, ratio_over == "latents"
        )
        random = _random_directions(null, null_samples, dictionary, embeds.to(dictionary.device), generator)
        of_null = _nearest(_directions(msae, random, direction), words, bar)[1][:, 0]
    similarity = values[:, 0]
    p_value = null_p_values(similarity, of_null)
    if ratio_over == "words":
        second = values[:, 1]
    else:  # the best of the word's other latents
        first, runner_up = of_words[best[:, 0]].T
        second = np.where(similarity >= first, runner_up, first)
    names, others = ([vocabulary.words[i] if i >= 0 else None for i in best[:, place]] for place in (0, 1))
    table = ConceptTable.from_columns(
        names,
        similarity,
        others,
        values[:, 1],
        ratio=similarity / np.maximum(second, 1e-6),
        p_value=p_value,
        q_value=benjamini_hochberg(p_value),
    )
    table.provenance.update(
        words=len(vocabulary),
        order=vocabulary.order,
        templates=list(vocabulary.templates),
        centre=center,  # spelled as in files of earlier versions
        direction=direction,
        ratio_over=ratio_over,
        model_sha256=model_fingerprint(msae),
        null=null,
        null_samples=null_samples,
        seed=seed,
    )
    if embeddings is None:
        return table
    embeddings = open_embeddings(msae, embeddings)
    found = name_by_agreement(msae, embeddings, vocabulary, vocabulary_embeds, seed, progress=progress)
    directions = _directions(msae, dictionary, direction)
    table = _with_picture_names(table, found, directions, words, {word: i for i, word in enumerate(vocabulary.words)})
    table.provenance.update(evidence="pictures", pictures=len(embeddings), interval_level=LEVEL)
    number = min(_STRONGEST, len(embeddings))
    return table.with_activation_names(
        name_by_activations(msae, embeddings, vocabulary, vocabulary_embeds, number, progress=progress)
    )


def check_options(
    vocabulary: Vocabulary, center: bool, direction: str, ratio_over: str, null: str, null_samples: int
) -> None:
    """Raise ValueError if `name_latents` does not know an option, or cannot use it with these words."""
    for name, value, known in (
        ("direction", direction, DIRECTIONS),
        ("ratio_over", ratio_over, ("words", "latents")),
        ("null", null, NULLS),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    check_integers(null_samples=(null_samples, 1))
    if center and len(vocabulary) < 3:
        raise ValueError(f"centering needs at least 3 words, got {len(vocabulary)}; or center=False (--no_center)")


def _with_picture_names(
    table: ConceptTable, found: pd.DataFrame, directions: torch.Tensor, words: torch.Tensor, place: dict[str, int]
) -> ConceptTable:
    """Take names from the pictures; latents that no picture activates keep the name of their direction."""
    by_direction = {f"direction_{column}": table.frame[column] for column in ("name", "similarity", "q_value")}
    active = found["name"].notna()
    columns = {}
    for column, similarity in (("name", "similarity"), ("runner_up", "runner_up_similarity")):
        names = found[column].where(active, table.frame[column])
        known = np.flatnonzero(names.notna())
        chosen = words[[place[name] for name in names.iloc[known]]]
        cosines = np.full(len(names), np.nan)
        cosines[known] = (directions[known] * chosen).sum(dim=1).cpu().numpy()
        columns |= {column: names, similarity: cosines}
    evidence = found.drop(columns=["latent", "name", "runner_up"])
    return replace(table, frame=table.frame.assign(**columns, **evidence, **by_direction))


def _directions(msae: MSAEModel, rows: torch.Tensor, direction: str) -> torch.Tensor:
    """Return unit vectors (n, d) of rows in normalized space."""
    if direction == "decoder+mean":
        rows = rows / msae.input_scale.float() + msae.input_mean.float()
    elif direction == "decoder+bias":
        rows = rows + msae.pre_bias.detach().float()
    return F.normalize(rows, dim=-1)


def _random_directions(
    null: str, number: int, dictionary: torch.Tensor, embeds: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw random rows (number, d), each as long as the dictionary's rows on average."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dictionary.device)

    if null == "shuffled":
        chosen = torch.randint(len(dictionary), (number,), generator=generator).to(dictionary.device)
        orders = torch.rand(number, dictionary.shape[1], generator=generator).argsort(dim=1).to(dictionary.device)
        return dictionary[chosen].gather(1, orders)
    if null == "isotropic":
        rows = normal(number, dictionary.shape[1])
    else:
        # Mixtures with normal weights are themselves normal, so a d x d root of the second moments is enough.
        vectors = embeds if null == "vocabulary" else dictionary
        values, axes = torch.linalg.eigh(vectors.T @ vectors)
        rows = normal(number, len(values)) * values.clamp(min=0).sqrt() @ axes.T
    return F.normalize(rows, dim=-1) * dictionary.norm(dim=1).mean()


def _nearest(
    directions: torch.Tensor, words: torch.Tensor, bar: tqdm, with_words: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the nearest words of directions, without holding the whole matrix of cosines.

    Returns the two nearest words of each direction and their cosines, both (n, 2), -1 and NaN where there is only one
    word; and, if asked for, the two highest cosines of each word with any direction, (W, 2).
    """
    indices = np.full((len(directions), 2), -1)
    values = np.full((len(directions), 2), np.nan, dtype=np.float32)
    of_words = torch.full((len(words), 2), -torch.inf, device=words.device)
    size = max(1, _CHUNK_ENTRIES // len(words))
    for first, rows in zip(range(0, len(directions), size), directions.split(size), strict=True):
        cosines = rows @ words.T
        if with_words:
            highest = cosines.topk(min(2, len(rows)), dim=0).values.T
            of_words = torch.cat([of_words, highest], dim=1).topk(2, dim=1).values
        part = slice(first, first + len(rows))
        for place in range(min(2, len(words))):
            highest, where = cosines.max(dim=1)  # twice is several times as fast as topk
            indices[part, place], values[part, place] = where.cpu(), highest.cpu()
            cosines.scatter_(1, where[:, None], -torch.inf)
        bar.update(len(rows))
    return indices, values, of_words.cpu().numpy()
