"""Steering by latents of a sparse autoencoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..._utils.fingerprint import model_fingerprint
from ...concepts import ConceptTable
from ...concepts.editing import LatentEdit, edit_embeddings, latent_of, number_of
from ...statistics import auroc
from ..data import NotDefinedError, as_array, digest_of
from ..direction import LinearScore
from ..edit import register
from ..joint import discriminant, regressors
from ..msae_edit import BATCH, MSAEEdit
from ..provenance import origin_of

if TYPE_CHECKING:
    from typing import Self

    from ...backbones import Backbone
    from ...embeddings import EmbeddingDataset
    from ...vision_text import VisionTextMSAE

MODES = ("shift", "zero", "set", "scale")
_CHUNK_ENTRIES = 2**24


@register("msae")
@dataclass
class MSAELatents(MSAEEdit, LinearScore):
    """Latents of an MSAE, or of any sparse autoencoder of this package.

    With z the code of x, and d_j the decoder's row of latent j in the space of embeddings:

        remove(x) = x - sum over j of (z_j - r_j) d_j
        add(x, amount) = x + amount sum over j of (a_j - z_j) d_j

    What the MSAE does not reconstruct is kept; without `keep_residual`, the result is the decoded code. Embeddings in
    which nothing changes stay the same to the last bit. There are two ways:

    - "shift", the default of `fit`: all latents are moved by the effect e of the concept on the code while all other
      concepts and labels stay the same (`joint_pattern`, of codes), r_j = max(0, z_j - e_j) and a_j = max(0, z_j +
      e_j), but r only in embeddings with the concept and a only in those without. The linear discriminant of
      `reactive_pattern` decides, and its log-odds are the score.
    - "zero", "set" and "scale", of `num_latents` latents: those with the largest AUROC on the training rows, ties by
      |difference of means| / standard deviation. Removal leaves nothing of them, or their means over training rows
      without the concept, or `factor` times their values; a_j is the mean over rows with the concept. The score is
      the sum of the z_j. `fit_by_name` takes the latent of a name, and sets it to zero unless told otherwise.

    Attributes:
        mode: What removal leaves of latents: "shift", "zero", "set" or "scale". Defaults to "shift" for `fit`, and to
            "zero" for `fit_by_name` and if `num_latents` is given.
        num_latents: Number of latents to choose. Defaults to 1, and with the mode "shift" to all.
        factor: Factor of the mode "scale".
        concepts: Names of the latents: a table or its file, which `fit_by_name` needs.
    """

    mode: str | None = None
    num_latents: int | None = None
    factor: float = 0.0
    concepts: ConceptTable | str | os.PathLike | None = None

    def __post_init__(self):
        super().__post_init__()
        self._known_effects: dict[str, dict[bytes, np.ndarray]] = {}
        if self.mode not in (None, *MODES):
            raise ValueError(f"mode is {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.num_latents is not None and self.num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {self.num_latents}")
        if self.mode == "shift" and self.num_latents is not None:
            raise ValueError(f"num_latents is {self.num_latents}, but the mode shift moves all latents: leave it out")

    @property
    def latents(self) -> tuple[int, ...]:
        """The latents that the edit changes."""
        if self._shifts:
            return tuple(self.parameters["effects"].nonzero()[:, 0].tolist())
        return tuple(int(latent) for latent in self.parameters["latents"])

    @property
    def _shifts(self) -> bool:
        return "effects" in self.parameters

    def fit_by_name(
        self,
        name: str,
        backbone: Backbone | VisionTextMSAE | None,
        X: np.ndarray | torch.Tensor | EmbeddingDataset,
        seed: int = 0,
    ) -> Self:
        """Take the latent of a name, or of a number such as latent:3.

        Rows where the latent is active count as rows with the concept. Names are those of the option `concepts` or,
        without it, of a `VisionTextMSAE` with the same MSAE, passed as the backbone. The backbone may be None: it is
        recorded, so that the edit can be attached to it.
        """
        if self.mode == "shift":
            raise ValueError("the mode shift needs labels: call fit(X, concept), or choose another mode")
        if self.num_latents not in (None, 1):
            raise ValueError(
                f"num_latents is {self.num_latents}, but a name such as {name!r} means one latent: leave it out, or "
                "choose several by labels with fit(X, concept)"
            )
        values = as_array(X)
        hook_point = None if backbone is None else self.model.config.hook_point
        known = origin_of(X, values.shape[1], backbone, hook_point)
        self.check_embeddings(known, values.shape[1])
        latents = np.array([self._latent_of(name, backbone)])
        codes = self._codes(values, latents)
        present = codes[:, 0] > 0
        if present.all() or not present.any():
            raise NotDefinedError(f"latent {latents[0]} ({name}) is active in {present.sum()} of {len(values)} rows")
        self._keep(
            {"latents": latents, "levels": _levels(codes, present)}, values.shape[1], {**known, "concept": name}
        )
        return self

    def _latent_of(self, name: str, model: Backbone | VisionTextMSAE | None) -> int:
        table, theirs = self.concepts, getattr(model, "msae", None)
        if table is None and theirs is not None and model_fingerprint(theirs) == model_fingerprint(self.model):
            table = model.concepts
        if table is None and number_of(str(name)) is None:
            raise ValueError(
                f"no names of latents are known, so {name!r} cannot be looked up: pass the names, "
                f'METHODS["{self.method}"](msae=..., concepts=...), as a ConceptTable or its file (`hf-msae name` '
                "writes one), or the number of a latent, such as latent:3"
            )
        if table is not None and not isinstance(table, ConceptTable):
            table = ConceptTable.load(table)
        return latent_of(name, self.model.config.num_latents, table)

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        if self.mode == "shift" or (self.mode is None and self.num_latents is None):
            found = discriminant(X, concept, others)
            effects = self._effects_on_codes(X, concept, others)
            return {"effects": effects, "detector": found["detector"], "threshold": found["threshold"]}
        number, most = self.num_latents or 1, self.model.config.num_latents
        if most < number:
            raise ValueError(f"the MSAE has {most} latents, fewer than num_latents={number}")
        found = [detection(codes, concept) for _, codes in self._code_blocks(X)]
        areas, effects, levels = (np.concatenate(each, axis=-1) for each in zip(*found, strict=True))
        latents = np.lexsort((-effects, -areas))[:number]
        if not areas[latents[0]] > 0.5:
            raise NotDefinedError("no latent of the MSAE is more active with the concept than without it")
        return {"latents": latents, "levels": levels[:, latents]}

    def _effects_on_codes(self, X: np.ndarray, concept: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the effect of a concept on the code, (latents,).

        The effects of all concepts follow from one encoding of the rows. They are kept for this edit and its copies,
        so that fits to one concept after the other of the same rows encode them once.
        """
        columns = [column.tobytes() for column in (concept, *others.T)]
        key = digest_of([self.k, *sorted(columns)], X)
        if key not in self._known_effects:
            weights, starts = regressors(concept, others), range(0, len(X), BATCH)
            effects = sum(weights[:, i : i + BATCH] @ self._codes(X[i : i + BATCH]) for i in starts)
            self._known_effects.clear()
            self._known_effects[key] = dict(zip(columns, effects, strict=True))
        return self._known_effects[key][columns[0]]

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        if self._shifts:
            return super()._score(x)
        return self._model_for(x).encode(x, self.k)[..., list(self.latents)].sum(dim=-1)

    def _reader(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._get("detector", like), self._get("threshold", like)

    @property
    def _is_linear(self) -> bool:
        return self._shifts and type(self)._score is MSAELatents._score

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        if self._shifts:
            return self._shifted(x, -1.0, self._score(x) > 0)
        if self.mode == "set":
            values = self.parameters["levels"][0].tolist()
        else:
            values = [self.factor if self.mode == "scale" else 0.0] * len(self.latents)
        return self._edited(x, [self._edit(values, "set" if self.mode == "set" else "scale")])

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        if self._shifts:
            return self._shifted(x, amount, self._score(x) <= 0)
        goal = self.parameters["levels"][1]
        edits = [self._edit([1 - amount] * len(goal), "scale"), self._edit((amount * goal).tolist(), "add")]
        return self._edited(x, edits)

    def _shifted(self, x: torch.Tensor, amount: float, where: torch.Tensor) -> torch.Tensor:
        result = x.clone()
        if where.any():
            result[where] = self._with_code(x[where], lambda codes: codes + amount * self._get("effects", codes))
        return result

    def _edit(self, values: Sequence[float], mode: str) -> LatentEdit:
        return LatentEdit(self.latents, tuple(values), mode, self.keep_residual)

    def _edited(self, x: torch.Tensor, edits: list[LatentEdit]) -> torch.Tensor:
        edited = edit_embeddings(self._model_for(x), x, edits, self.k)
        return x.clone() if edited is None else edited


def detection(codes: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the AUROC of every latent for a concept, |difference of class means| / standard deviation, and the means.

    The means are (2, latents), those without the concept first.
    """
    areas = np.full(codes.shape[1], 0.5)
    alive = np.flatnonzero(np.ptp(codes, axis=0) > 0)
    for part in np.array_split(alive, max(1, -(-codes.size // _CHUNK_ENTRIES))):
        areas[part] = auroc(concept, codes[:, part])
    levels = _levels(codes, concept)
    difference, deviation = np.abs(levels[1] - levels[0]), codes.std(axis=0)
    return areas, np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0), levels


def _levels(codes: np.ndarray, concept: np.ndarray) -> np.ndarray:
    return np.stack([codes[~concept].mean(axis=0), codes[concept].mean(axis=0)])
