"""Name latents by the words whose text embeddings point the same way."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .table import ConceptTable
from .vocabulary import Vocabulary

_CHUNK = 4096  # latents compared with the whole vocabulary at a time


@torch.no_grad()
def name_latents(
    msae: torch.nn.Module, vocabulary: Vocabulary, vocabulary_embeds: torch.Tensor, centre: bool = True
) -> ConceptTable:
    """Give every latent the word whose text embedding has the highest cosine with the latent's dictionary row.

    Rows of the dictionary are differences from the mean embedding; text embeddings of CLIP-like models share a large
    common part, the modality gap. `centre` takes the vocabulary's mean off the text embeddings, so that differences
    are compared with differences. (Argmax over words: Rao et al. 2024, "Discover-then-Name"; centring: Bhalla et al.
    2024, "SpLiCE".)

    Args:
        msae: an MSAEModel.
        vocabulary: the candidates.
        vocabulary_embeds: (len(vocabulary), d_in), from `Vocabulary.embed`.
        centre: subtract the vocabulary's mean embedding.

    Raises:
        ValueError: embeddings of another number of words or another width, not finite, or too few words to centre.
    """
    embeds = torch.as_tensor(vocabulary_embeds).float()
    dictionary = msae.dictionary.detach().float()
    if embeds.ndim != 2 or len(embeds) != len(vocabulary):
        raise ValueError(
            f"vocabulary_embeds has shape {tuple(embeds.shape)}; expected one row for each of {vocabulary}"
        )
    if embeds.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"vocabulary_embeds has {embeds.shape[1]} columns, but this MSAE was trained on {dictionary.shape[1]} "
            f"({msae.config.base_model_name_or_path}, {msae.config.hook_point}); embed the words with that backbone"
        )
    if not torch.isfinite(embeds).all():
        row = int((~torch.isfinite(embeds).all(1)).nonzero()[0])
        raise ValueError(f"the embedding of {vocabulary.words[row]!r} is not finite")
    if centre and len(vocabulary) < 3:
        raise ValueError(f"centring needs at least 3 words, the vocabulary has {len(vocabulary)}; pass centre=False")
    if centre:
        embeds = embeds - embeds.mean(0)
    words = F.normalize(embeds, dim=-1).to(dictionary.device)
    kept = min(2, len(vocabulary))
    values, indices = zip(
        *((F.normalize(rows, dim=-1) @ words.T).topk(kept) for rows in dictionary.split(_CHUNK)), strict=True
    )
    similarity, best = torch.cat(values).cpu().numpy(), torch.cat(indices).cpu().numpy()
    names = [vocabulary.words[i] for i in best[:, 0]]
    if kept == 1:
        return ConceptTable.from_columns(names, similarity[:, 0], [None] * len(names), similarity[:, 0] * float("nan"))
    runner_up = [vocabulary.words[i] for i in best[:, 1]]
    return ConceptTable.from_columns(names, similarity[:, 0], runner_up, similarity[:, 1])
