"""Names by what activates a latent: the word that the embeddings of its strongest samples agree on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .naming import check_embeds
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

# The weight with which the strongest sample counts, and the last one.
_FIRST_WEIGHT, _LAST_WEIGHT = 0.998, 0.97
_CHUNK_ENTRIES = 2**24


@torch.no_grad()
def name_by_activations(
    msae: MSAEModel,
    acts: EmbeddingDataset,
    vocabulary: Vocabulary,
    vocabulary_embeds: torch.Tensor,
    num_samples: int = 100,
    temperature: float = 10.0,
    centre: bool = False,
    batch_size: int = 2048,
    progress: bool = True,
) -> pd.DataFrame:
    """Soft-WPMI of CLIP-Dissect (Oikarinen and Weng, arXiv 2204.10965): names from what activates a latent.

    With P(w | x) the softmax over words of `temperature` times the cosine of sample x and word w, and weights p that
    fall from 0.998 to 0.97 over the samples that activate latent j most, the score of a word is
    sum log(1 + p (P(w | x) - 1)), minus the log of the mean over latents of what that sum is the log of: a word that
    fits all latents names none.

    Args:
        msae: the MSAE.
        acts: its embeddings, of images for one.
        vocabulary: candidates.
        vocabulary_embeds: (len(vocabulary), d), from `Vocabulary.embed`, of the same backbone.
        num_samples: that activate a latent most.
        temperature: of the softmax over words; 10 in CLIP-Dissect.
        centre: take their means off samples and words first, against the modality gap. (CLIP-Dissect does not, and on
            the scenes it is better not to.)
        batch_size: samples encoded at a time.
        progress: show a progress bar.

    Returns:
        One row a latent: latent, activation_name, activation_score, num_active (samples of all that activate it); no
        name where none does.

    Raises:
        ValueError: as `name_latents`; fewer samples than `num_samples`, or an option that makes no sense.
    """
    embeds = check_embeds(msae, vocabulary, vocabulary_embeds)
    if not 2 <= num_samples <= len(acts):
        raise ValueError(
            f"num_samples must be between 2 and the {len(acts)} samples of {acts.source}, got {num_samples}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    mean = acts.statistics(progress=progress).mean.float()
    words = F.normalize(embeds - embeds.mean(0) if centre else embeds, dim=-1)
    values, samples, num_active = _strongest(msae, acts, num_samples, batch_size, progress)

    alive = np.flatnonzero(num_active > 0)
    weights = torch.linspace(_FIRST_WEIGHT, _LAST_WEIGHT, num_samples)
    scores = torch.empty(len(alive), len(vocabulary))
    # A word's probability for every sample that counts at all, once.
    used, place = np.unique(samples[alive], return_inverse=True)
    place = torch.from_numpy(place.reshape(len(alive), num_samples))
    likely = torch.empty(len(used), len(vocabulary))
    for first in range(0, len(used), batch_size):
        x = acts[used[first : first + batch_size]]
        x = F.normalize(x - mean if centre else x, dim=-1)
        likely[first : first + batch_size] = (temperature * x @ words.T).softmax(dim=-1)
    chunk = max(1, _CHUNK_ENTRIES // (num_samples * len(vocabulary)))
    active = torch.from_numpy(values[alive] > 0)
    for first in tqdm(range(0, len(alive), chunk), desc="words of samples", disable=not progress):
        part = slice(first, first + chunk)
        logs = torch.log1p(weights[:, None] * (likely[place[part]] - 1))
        scores[part] = (logs * active[part][..., None]).sum(dim=1)  # what does not activate the latent says nothing
    scores -= torch.logsumexp(scores, dim=0) - math.log(len(alive))
    best, which = scores.max(dim=1)
    names = np.full(len(num_active), None, dtype=object)
    names[alive] = [vocabulary.words[index] for index in which.tolist()]
    found = np.full(len(num_active), np.nan)
    found[alive] = best.numpy()
    return pd.DataFrame(
        {
            "latent": np.arange(len(num_active)),
            "activation_name": names,
            "activation_score": found,
            "num_active": num_active,
        }
    )


def _strongest(
    msae: MSAEModel, acts: EmbeddingDataset, number: int, batch_size: int, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest activations of each latent (n, number), whose they are, and how many samples activate it (n,)."""
    n = msae.config.num_latents
    values = torch.full((n, number), -1.0)
    samples = torch.zeros(n, number, dtype=torch.int64)
    num_active, first = torch.zeros(n, dtype=torch.int64), 0
    with tqdm(total=len(acts), desc="strongest samples", unit="row", disable=not progress) as bar:
        for x in acts.batches(batch_size):
            codes = msae.encode(x.to(msae.device)).float().cpu().T
            num_active += codes.count_nonzero(dim=1)
            top, rows = codes.topk(min(number, len(x)), dim=1)
            both = torch.cat([values, top], dim=1)
            whose = torch.cat([samples, rows + first], dim=1)
            values, kept = both.topk(number, dim=1)
            samples = whose.gather(1, kept)
            first += len(x)
            bar.update(len(x))
    return values.numpy(), samples.numpy(), num_active.numpy()
