"""Names from activations: the word that the embeddings of a latent's strongest samples agree on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .._utils.deprecation import renamed_arguments
from .codes import Embeddings, collect_codes, open_embeddings
from .collectors import TopRowsCollector
from .vocabulary import Vocabulary, check_vocabulary_embeds

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

_FIRST_WEIGHT, _LAST_WEIGHT = 0.998, 0.97  # of the strongest sample, and of the last one
_MOST_SAMPLES = 50_000  # whose words are held; those of a million would take hours and gigabytes
_CHUNK_ENTRIES = 2**21
_TOLERANCE = 3e-6  # of a logarithm; a sum of 100 is then as exact as a sum of 100 floats


@torch.no_grad()
@renamed_arguments(acts="embeddings", centre="center")
def name_by_activations(
    msae: MSAEModel,
    embeddings: Embeddings,
    vocabulary: Vocabulary,
    vocabulary_embeds: torch.Tensor,
    num_samples: int = 100,
    temperature: float = 10.0,
    center: bool = False,
    batch_size: int = 2048,
    progress: bool = True,
) -> pd.DataFrame:
    """Name latents by what activates them: soft-WPMI of CLIP-Dissect (Oikarinen and Weng, arXiv 2204.10965).

    With P(w | x) the softmax over words of `temperature` times the cosine of sample x and word w, and weights p that
    fall from 0.998 to 0.97 over the samples that activate latent j most, word w has

        s_j(w) = sum over samples of log(1 + p (P(w | x) - 1)),   score_j(w) = s_j(w) - log mean_j' exp s_j'(w)

    The second term takes away what a word scores on any latent. Of more than 50,000 samples, as many are taken, evenly
    spread.

    Args:
        msae: The MSAE.
        embeddings: Embeddings of the MSAE's backbone, e.g. of images; anything `load_embeddings` accepts.
        vocabulary: The candidates for names.
        vocabulary_embeds: Embeddings (len(vocabulary), d) from `Vocabulary.embed`, by the same backbone.
        num_samples: Number of strongest samples to take for each latent.
        temperature: Temperature of the softmax over words; 10 in CLIP-Dissect.
        center: Whether to subtract the means of samples and of words first, against the modality gap. CLIP-Dissect
            does not, and on the scenes that is better.
        batch_size: Rows encoded at a time.
        progress: Whether to show progress bars.

    Returns:
        One row per latent: latent, activation_name, activation_score, num_active (samples that activate it, of
        those taken). Latents that no sample activates have no name.

    Raises:
        ValueError: The word embeddings do not fit, there are fewer samples than `num_samples`, or an option is out of
            range.
    """
    words = check_vocabulary_embeds(msae, vocabulary, vocabulary_embeds).cpu()  # as the embeddings of the samples
    embeddings = open_embeddings(msae, embeddings)
    if not 2 <= num_samples <= len(embeddings):
        raise ValueError(f"num_samples must be from 2 to {len(embeddings)}, the number of samples; got {num_samples}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    mean = embeddings.statistics(progress=progress).mean.float() if center else 0.0
    words = F.normalize(words - words.mean(0) if center else words, dim=-1)
    number = min(len(embeddings), max(_MOST_SAMPLES, num_samples))
    rows = np.arange(number) * len(embeddings) // number
    collectors = [TopRowsCollector(num_samples)]
    (top,) = collect_codes(
        msae, embeddings, collectors, rows, batch_size=batch_size, progress=progress, description="strongest samples"
    )

    alive = np.flatnonzero(top.num_active > 0)
    used, place = np.unique(top.rows[alive], return_inverse=True)
    place = torch.from_numpy(place.reshape(len(alive), num_samples))
    active = torch.from_numpy(top.values[alive] > 0)  # the other samples have the weight 0
    samples = temperature * F.normalize(embeddings[rows[used]] - mean, dim=-1)
    size = max(1, _CHUNK_ENTRIES // max(len(used), len(alive), 1))
    total, highest = torch.full((2, len(used)), -torch.inf)
    for part in words.split(size):
        logits = samples @ part.T
        total = torch.logaddexp(total, logits.logsumexp(dim=1))
        highest = torch.maximum(highest, logits.amax(dim=1))
    sums = _SumsOfLogs(place, active, (highest - total).exp().amax().item() if len(used) else 0.0)
    best, word = torch.full((len(alive),), -torch.inf), torch.zeros(len(alive), dtype=torch.long)
    for first in tqdm(range(0, len(words), size), desc="words of samples", disable=not progress):
        scores = sums((samples @ words[first : first + size].T - total[:, None]).exp())
        scores -= torch.logsumexp(scores, dim=0) - math.log(max(1, len(alive)))
        highest, where = scores.max(dim=1)
        better = highest > best
        best[better], word[better] = highest[better], first + where[better]
    n = msae.config.num_latents
    names, score = np.full(n, None, dtype=object), np.full(n, np.nan)
    names[alive], score[alive] = [vocabulary.words[index] for index in word.tolist()], best.numpy()
    columns = {"activation_name": names, "activation_score": score, "num_active": top.num_active}
    return pd.DataFrame({"latent": np.arange(n), **columns})


class _SumsOfLogs:
    """Sums over the samples s of a latent of log(1 + p_s (P_s - 1)), for many words at a time.

    With c = (1 - p) / p, a term is log(1 - p) + log(1 + P / c). The second part is so smooth in c that for all weights
    it is a sum of its values at a few c, whatever P (`_mixtures`). So only these few logarithms are taken, once for
    each sample and word, and the sums over a latent's samples are sums of rows.
    """

    def __init__(self, place: torch.Tensor, active: torch.Tensor, highest: float) -> None:
        weights = np.linspace(_FIRST_WEIGHT, _LAST_WEIGHT, place.shape[1])
        self._place = place.int()
        self._nodes, mixtures = _mixtures((1 - weights) / weights, highest)
        self._factors = [active * mixture for mixture in mixtures]
        self._constant = (active * torch.from_numpy(np.log1p(-weights))).sum(dim=1, keepdim=True).float()

    def __call__(self, likely: torch.Tensor) -> torch.Tensor:
        """Return the sums (latents, words) from P of each sample and word."""
        sums = self._constant.expand(-1, likely.shape[1]).clone()
        logarithms = torch.empty_like(likely)
        for node, factors in zip(self._nodes, self._factors, strict=True):
            torch.mul(likely, 1 / node, out=logarithms).log1p_()
            sums += F.embedding_bag(self._place, logarithms, per_sample_weights=factors, mode="sum")
        return sums


def _mixtures(ratios: np.ndarray, highest: float) -> tuple[list[float], torch.Tensor]:
    """Write log(1 + P / c) for each of the ratios c as a sum over a few nodes, for P from 0 to `highest`.

    Returns the nodes, and the factors (nodes, ratios) of log(1 + P / node).
    """
    likely = np.geomspace(1e-9, max(highest, 1e-8), 1000)[:, None]
    wanted = np.log1p(likely / ratios)
    low, high = np.log(ratios[[0, -1]])
    for number in range(2, 16):
        place = np.cos(np.pi * (np.arange(number) + 0.5) / number)  # as Chebyshev's
        nodes = np.exp((low + high + (high - low) * place) / 2)
        terms = np.log1p(likely / nodes)
        factors = np.linalg.lstsq(terms, wanted, rcond=None)[0]
        if np.abs(terms @ factors - wanted).max() < _TOLERANCE:
            break
    return nodes.tolist(), torch.from_numpy(factors).float()
