"""Name latents by the words whose text embeddings point the same way, and say how far a name is to be believed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch.nn import functional as F
from tqdm.auto import tqdm

from .._utils.fingerprint import model_fingerprint
from .table import ConceptTable
from .vocabulary import Vocabulary

_CHUNK_ENTRIES = 2**25  # similarities held at a time: 128 MiB

DIRECTIONS = ("decoder", "decoder+mean", "decoder+bias")
NULLS = ("vocabulary", "dictionary", "shuffled", "isotropic")


@torch.no_grad()
def name_latents(
    msae: torch.nn.Module,
    vocabulary: Vocabulary,
    vocabulary_embeds: torch.Tensor,
    centre: bool = True,
    direction: str = "decoder",
    ratio_over: str = "words",
    null: str = "vocabulary",
    null_samples: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> ConceptTable:
    """Give every latent the word whose text embedding has the highest cosine with the latent's direction.

    Rows of the dictionary are differences from the mean embedding; text embeddings of CLIP-like models share a large
    common part, the modality gap. `centre` takes the vocabulary's mean off the text embeddings, so that differences
    are compared with differences. (Argmax over words: Rao et al. 2024, "Discover-then-Name"; centring: Bhalla et al.
    2024, "SpLiCE".)

    Every latent has a nearest word, so a name needs evidence. Its p-value is the share of random directions whose
    nearest word is at least as near, and its q-value (Benjamini-Hochberg over latents) the share of false names among
    names as good as it, in so far as latents without a name are like those random directions:

    - "vocabulary": random mixtures of all words (Gaussian, with the words' covariance). A latent whose direction is a
      mixture of several words passes the nulls below, but not this one.
    - "dictionary": random mixtures of all latents.
    - "shuffled": latents with their coordinates in random order.
    - "isotropic": any direction.

    Args:
        msae: an MSAEModel.
        vocabulary: the candidates.
        vocabulary_embeds: (len(vocabulary), d_in), from `Vocabulary.embed`.
        centre: subtract the vocabulary's mean embedding.
        direction: what of a latent is compared: "decoder", its row of the dictionary; or that row on top of the mean
            embedding, "decoder+mean", as the MSAE authors' code has it, or of the model's bias, "decoder+bias".
        ratio_over: what the runner-up of `ratio` is: the second-best of the "words" for the latent, or the second-best
            of the "latents" for the word.
        null: which random directions.
        null_samples: how many.
        seed: which.
        progress: show a progress bar.

    Raises:
        ValueError: embeddings of another number of words or another width, not finite, or too few words to centre; an
            unknown option.
    """
    embeds = check_embeds(msae, vocabulary, vocabulary_embeds)
    for name, value, known in (
        ("direction", direction, DIRECTIONS),
        ("ratio_over", ratio_over, ("words", "latents")),
        ("null", null, NULLS),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    if null_samples < 1:
        raise ValueError(f"null_samples must be positive, got {null_samples}")
    if centre and len(vocabulary) < 3:
        raise ValueError(f"centring needs at least 3 words, the vocabulary has {len(vocabulary)}; pass centre=False")
    if centre:
        embeds = embeds - embeds.mean(0)
    dictionary = msae.dictionary.detach().float()
    words = F.normalize(embeds, dim=-1).to(dictionary.device)
    generator = torch.Generator().manual_seed(seed)
    total = len(dictionary) + null_samples
    with tqdm(total=total, desc="naming", unit="direction", disable=not progress) as bar:
        best, values, of_words = _nearest(_directions(msae, dictionary, direction), words, bar)
        random = _random_directions(null, null_samples, dictionary, embeds.to(dictionary.device), generator)
        of_null = _nearest(_directions(msae, random, direction), words, bar)[1][:, 0]
    similarity = values[:, 0]
    ascending = np.sort(of_null)
    as_near = null_samples - np.searchsorted(ascending, similarity, side="left")
    p_value = (1 + as_near) / (1 + null_samples)
    if ratio_over == "words":
        second = values[:, 1]
    else:  # the best of the word's other latents
        first, runner_up = of_words[best[:, 0]].T
        second = np.where(similarity >= first, runner_up, first)
    columns = {
        "ratio": similarity / np.maximum(second, 1e-6),
        "p_value": p_value,
        "q_value": false_discovery_control(p_value, method="bh"),
    }
    names, others = ([vocabulary.words[i] if i >= 0 else None for i in best[:, place]] for place in (0, 1))
    table = ConceptTable.from_columns(names, similarity, others, values[:, 1], **columns)
    how = {"words": len(vocabulary), "order": vocabulary.order, "templates": list(vocabulary.templates)}
    how |= {"centre": centre, "direction": direction, "ratio_over": ratio_over}
    how["model_sha256"] = model_fingerprint(msae)
    return ConceptTable(table.frame, {**how, "null": null, "null_samples": null_samples, "seed": seed})


def check_embeds(msae: torch.nn.Module, vocabulary: Vocabulary, vocabulary_embeds: torch.Tensor) -> torch.Tensor:
    """The embeddings as float32.

    Raises:
        ValueError: they are not one finite embedding of the MSAE's width for each word.
    """
    embeds = torch.as_tensor(vocabulary_embeds).float()
    if embeds.ndim != 2 or len(embeds) != len(vocabulary):
        raise ValueError(
            f"vocabulary_embeds has shape {tuple(embeds.shape)}; expected one row for each of {vocabulary}"
        )
    width = msae.config.d_in
    if embeds.shape[1] != width:
        raise ValueError(
            f"vocabulary_embeds has {embeds.shape[1]} columns, but this MSAE was trained on {width} "
            f"({msae.config.base_model_name_or_path}, {msae.config.hook_point}); embed the words with that backbone"
        )
    if not torch.isfinite(embeds).all():
        row = int((~torch.isfinite(embeds).all(1)).nonzero()[0])
        raise ValueError(f"the embedding of {vocabulary.words[row]!r} is not finite")
    return embeds


def _directions(msae: torch.nn.Module, rows: torch.Tensor, direction: str) -> torch.Tensor:
    """Unit vectors (n, d) of rows in normalised space."""
    if direction == "decoder+mean":
        rows = rows / msae.input_scale.float() + msae.input_mean.float()
    elif direction == "decoder+bias":
        rows = rows + msae.pre_bias.detach().float()
    return F.normalize(rows, dim=-1)


def _random_directions(
    null: str, number: int, dictionary: torch.Tensor, embeds: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Random rows (number, d), as long as a row of the dictionary is on average."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dictionary.device)

    if null == "shuffled":
        chosen = torch.randint(len(dictionary), (number,), generator=generator).to(dictionary.device)
        orders = torch.rand(number, dictionary.shape[1], generator=generator).argsort(dim=1).to(dictionary.device)
        return dictionary[chosen].gather(1, orders)
    if null == "isotropic":
        rows = normal(number, dictionary.shape[1])
    else:
        # Mixtures with normal weights are normal with the second moments of what is mixed: a d x d root will do.
        vectors = embeds if null == "vocabulary" else dictionary
        values, axes = torch.linalg.eigh(vectors.T @ vectors)
        rows = normal(number, len(values)) * values.clamp(min=0).sqrt() @ axes.T
    return F.normalize(rows, dim=-1) * dictionary.norm(dim=1).mean()


def _nearest(directions: torch.Tensor, words: torch.Tensor, bar: tqdm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each direction the two nearest words and their cosines, (n, 2), -1 and NaN where there is one word alone; and
    of each word the two highest cosines of all directions, (W, 2). Never holds the whole matrix.
    """
    indices = np.full((len(directions), 2), -1)
    values = np.full((len(directions), 2), np.nan, dtype=np.float32)
    of_words = torch.full((len(words), 2), -torch.inf, device=words.device)
    for first, rows in _chunks(directions, len(words)):
        cosines = rows @ words.T
        of_words = torch.cat([of_words, cosines.topk(min(2, len(rows)), dim=0).values.T], dim=1).topk(2, dim=1).values
        part = slice(first, first + len(rows))
        for place in range(min(2, len(words))):
            highest, where = cosines.max(dim=1)  # twice is several times as fast as topk
            indices[part, place], values[part, place] = where.cpu(), highest.cpu()
            cosines.scatter_(1, where[:, None], -torch.inf)
        bar.update(len(rows))
    return indices, values, of_words.cpu().numpy()


def _chunks(directions: torch.Tensor, num_words: int) -> Iterator[tuple[int, torch.Tensor]]:
    size = max(1, _CHUNK_ENTRIES // num_words)
    for first in range(0, len(directions), size):
        yield first, directions[first : first + size]
