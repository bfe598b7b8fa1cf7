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
_CHUNK_ENTRIES = 2**24
_BLOCK_ENTRIES = 2**18  # fits into the cache of a CPU core
_FACTORS = 10  # the smallest factor, 0.002, to this power is far from the smallest float


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

    The second term takes away what a word scores on any latent.

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
        One row per latent: latent, activation_name, activation_score, num_active (samples that activate it). Latents
        that no sample activates have no name.

    Raises:
        ValueError: The word embeddings do not fit, there are fewer samples than `num_samples`, or an option is out of
            range.
    """
    words = check_vocabulary_embeds(msae, vocabulary, vocabulary_embeds)
    embeddings = open_embeddings(msae, embeddings)
    if not 2 <= num_samples <= len(embeddings):
        raise ValueError(
            f"num_samples must be between 2 and {len(embeddings)}, the samples of {embeddings.source}; "
            f"got {num_samples}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    mean = embeddings.statistics(progress=progress).mean.float() if center else 0.0
    words = F.normalize(words - words.mean(0) if center else words, dim=-1)
    collectors = [TopRowsCollector(num_samples)]
    (top,) = collect_codes(
        msae, embeddings, collectors, batch_size=batch_size, progress=progress, description="strongest samples"
    )

    alive = np.flatnonzero(top.num_active > 0)
    weights = torch.linspace(_FIRST_WEIGHT, _LAST_WEIGHT, num_samples)
    used, place = np.unique(top.rows[alive], return_inverse=True)
    place = torch.from_numpy(place.reshape(len(alive), num_samples))
    # Samples that do not activate the latent get the weight 0, which leaves the sum as it is.
    weights = torch.linspace(_FIRST_WEIGHT, _LAST_WEIGHT, num_samples) * torch.from_numpy(top.values[alive] > 0)
    samples = temperature * F.normalize(embeddings[used] - mean, dim=-1)
    size = max(1, _CHUNK_ENTRIES // max(len(used), len(alive)))
    total = torch.full((len(used),), -torch.inf)
    for part in words.split(size):
        total = torch.logaddexp(total, (samples @ part.T).logsumexp(dim=1))
    best, word = torch.full((len(alive),), -torch.inf), torch.zeros(len(alive), dtype=torch.long)
    for first in tqdm(range(0, len(words), size), desc="words of samples", disable=not progress):
        likely = (samples @ words[first : first + size].T - total[:, None]).exp()  # P(w | x)
        scores = _sums_of_logs(likely, weights, place)
        scores -= torch.logsumexp(scores, dim=0) - math.log(len(alive))
        highest, where = scores.max(dim=1)
        better = highest > best
        best[better], word[better] = highest[better], first + where[better]
    n = msae.config.num_latents
    names, score = np.full(n, None, dtype=object), np.full(n, np.nan)
    names[alive], score[alive] = [vocabulary.words[index] for index in word.tolist()], best.numpy()
    columns = {"activation_name": names, "activation_score": score, "num_active": top.num_active}
    return pd.DataFrame({"latent": np.arange(n), **columns})


def _sums_of_logs(likely: torch.Tensor, weights: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return sum over s of log(1 + weights[j, s] (likely[place[j, s], w] - 1)) for each latent j and word w.

    Taking the logarithm of products of a few factors is several times as fast as adding up as many logarithms.
    """
    sums, less, one = torch.zeros(len(place), likely.shape[1]), likely - 1, torch.ones(())
    for part in torch.arange(len(place)).split(max(1, _BLOCK_ENTRIES // likely.shape[1])):
        for first in range(0, place.shape[1], _FACTORS):
            product = torch.ones(len(part), likely.shape[1])
            for sample in range(first, min(first + _FACTORS, place.shape[1])):
                product *= torch.addcmul(one, less[place[part, sample]], weights[part, sample, None])
            sums[part] += product.log_()
    return sums
