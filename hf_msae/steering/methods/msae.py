"""Steering by latents of a sparse autoencoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.stats import rankdata

from ..._utils.fingerprint import model_fingerprint
from ...concepts import ConceptTable
from ...concepts.editing import LatentEdit, edit_embeddings, latent_of
from ...model.modeling_msae import MSAEModel
from ..data import NotDefinedError, as_array, provenance_of
from ..edit import Edit, register
from ..joint import discriminant, regressors

if TYPE_CHECKING:
    from typing import Self

    from ...backbones import Backbone
    from ...embeddings import EmbeddingDataset

MODES = ("shift", "zero", "set", "scale")
_BATCH = 4096
_CHUNK_ENTRIES = 2**24


@register("msae")
@dataclass
class MSAELatents(Edit):
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

    A saved edit holds the location of the MSAE and its fingerprint, and is refused if another one is there. Where the
    MSAE lies elsewhere, name it: `load_edit(folder, msae=...)`.

    Attributes:
        msae: The MSAE: a model, its folder or id on the Hub, or the name of a released one.
        mode: What removal leaves of latents: "shift", "zero", "set" or "scale". Defaults to "shift" for `fit`, and to
            "zero" for `fit_by_name` and if `num_latents` is given.
        num_latents: Number of latents to choose. Defaults to 1, and with the mode "shift" to all.
        factor: Factor of the mode "scale".
        keep_residual: Whether to keep what the MSAE does not reconstruct.
        k: Number of activations of the code. Defaults to the MSAE's own.
        concepts: Names of the latents: a table or its file, which `fit_by_name` needs.
    """

    needs: ClassVar[str] = "an MSAE"

    msae: MSAEModel | str | os.PathLike = ""
    mode: str | None = None
    num_latents: int | None = None
    factor: float = 0.0
    keep_residual: bool = True
    k: int | None = None
    concepts: ConceptTable | str | os.PathLike | None = None

    def __post_init__(self):
        if self.mode not in (None, *MODES):
            raise ValueError(f"mode is {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.num_latents is not None and self.num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {self.num_latents}")
        if self.mode == "shift" and self.num_latents is not None:
            raise ValueError(f"num_latents is {self.num_latents}, but the mode shift moves all latents: leave it out")
        self._model: MSAEModel | None = None

    @property
    def model(self) -> MSAEModel:
        """The MSAE, loaded at first use.

        Raises:
            ValueError: None was given.
            OSError: It does not exist.
        """
        if self._model is None:
            if isinstance(self.msae, MSAEModel):
                self._model = self.msae
            elif not os.fspath(self.msae):
                raise ValueError('the method msae needs an MSAE: METHODS["msae"](msae=...)')
            else:
                name = os.fspath(self.msae)
                is_place = Path(name).expanduser().is_dir() or "/" in name
                load = MSAEModel.from_pretrained if is_place else MSAEModel.from_released
                self._model = load(str(Path(name).expanduser()) if is_place else name)
            self._model.eval()
        return self._model

    @property
    def latents(self) -> tuple[int, ...]:
        """The latents that the edit changes."""
        if self._shifts:
            return tuple(self.parameters["effects"].nonzero()[:, 0].tolist())
        return tuple(int(latent) for latent in self.parameters["latents"])

    @property
    def _shifts(self) -> bool:
        return "effects" in self.parameters

    def settings(self) -> dict[str, Any]:
        """Return the options, with the location in place of the MSAE; "" if it is not saved anywhere."""
        place = self.msae.name_or_path if isinstance(self.msae, MSAEModel) else os.fspath(self.msae)
        place = str(Path(place).expanduser().resolve()) if place and Path(place).expanduser().is_dir() else place
        options = ("mode", "num_latents", "factor", "keep_residual", "k")
        return {"msae": place, **{name: getattr(self, name) for name in options}}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the edit.

        Raises:
            ValueError: The MSAE is not in a folder or on the Hub.
        """
        if not self.settings()["msae"]:
            raise ValueError("the MSAE of this edit is not saved anywhere: save it, and pass its folder as msae")
        super().save_pretrained(folder)

    def depends_on(self) -> str:
        """Return a hash of what results depend on besides the options: the code, and the MSAE."""
        return super().depends_on() + model_fingerprint(self.model)

    def check_loaded(self) -> None:
        """Check that the MSAE is the one that the edit was fitted with."""
        if model_fingerprint(self.model) != self.provenance.get("msae_fingerprint"):
            raise ValueError(f"this edit was fitted with another MSAE than the one that is now at {self.msae}")

    def fit_by_name(
        self, name: str, backbone: Backbone | None, X: np.ndarray | torch.Tensor | EmbeddingDataset, seed: int = 0
    ) -> Self:
        """Take the latent of a name, or of a number such as latent:3.

        Rows where the latent is active count as rows with the concept. The backbone is not used.

        Raises:
            NotDefinedError: The latent is active in all embeddings or in none.
            ValueError: The mode is "shift", no latent has the name, or the embeddings do not fit the MSAE.
        """
        if self.mode == "shift":
            raise ValueError("the mode shift needs labels: call fit(X, concept), or choose another mode")
        table = self.concepts
        if table is not None and not isinstance(table, ConceptTable):
            table = ConceptTable.load(table)
        values = as_array(X)
        latents = np.array([latent_of(name, self.model.config.num_latents, table)])
        codes = self._codes(values, latents)
        present = codes[:, 0] > 0
        if present.all() or not present.any():
            raise NotDefinedError(f"latent {latents[0]} ({name}) is active in {present.sum()} of {len(values)} rows")
        self._keep(self._learned(latents, codes, present), values.shape[1], {**provenance_of(X), "concept": name})
        return self

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        if self.mode == "shift" or (self.mode is None and self.num_latents is None):
            found = discriminant(X, concept, others)
            weights = regressors(concept, others)[0]
            starts = range(0, len(X), _BATCH)
            effects = sum(weights[i : i + _BATCH] @ self._codes(X[i : i + _BATCH]) for i in starts)
            return {"effects": effects, "detector": found["detector"], "threshold": found["threshold"]}
        number, most = self.num_latents or 1, self.model.config.num_latents
        if most < number:
            raise ValueError(f"the MSAE has {most} latents, fewer than num_latents={number}")
        codes = self._codes(X)
        areas, effects = detection(codes, concept)
        latents = np.lexsort((-effects, -areas))[:number]
        if not areas[latents[0]] > 0.5:
            raise NotDefinedError("no latent of the MSAE is more active with the concept than without it")
        return self._learned(latents, codes[:, latents], concept)

    def _learned(self, latents: np.ndarray, codes: np.ndarray, concept: np.ndarray) -> dict[str, np.ndarray]:
        levels = np.stack([codes[~concept].mean(axis=0), codes[concept].mean(axis=0)])
        return {"latents": latents, "levels": levels}

    def _keep(self, learned: dict[str, np.ndarray], width: int, provenance: dict[str, Any]) -> None:
        super()._keep(learned, width, {**provenance, "msae_fingerprint": model_fingerprint(self.model)})

    @torch.no_grad()
    def _codes(self, X: np.ndarray, latents: np.ndarray | None = None) -> np.ndarray:
        model, parts = self.model, []
        for rows in torch.from_numpy(X.astype(np.float32)).split(_BATCH):
            codes = model.encode(rows.to(model.device), self.k)
            parts.append((codes if latents is None else codes[:, torch.from_numpy(latents)]).float().cpu().numpy())
        return np.concatenate(parts)

    def _model_for(self, x: torch.Tensor) -> MSAEModel:
        return self.model.to(x.device)

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        if self._shifts:
            return x @ self._get("detector", x) - self._get("threshold", x)
        return self._model_for(x).encode(x, self.k)[..., list(self.latents)].sum(dim=-1)

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
        if not where.any():
            return x
        model, rows = self._model_for(x), x[where]
        codes = model.encode(rows, self.k)
        moved = model.decode((codes + amount * self._get("effects", codes)).clamp(min=0))
        result = x.clone()
        result[where] = (rows + moved - model.decode(codes) if self.keep_residual else moved).to(x.dtype)
        return result

    def _edit(self, values: Sequence[float], mode: str) -> LatentEdit:
        return LatentEdit(self.latents, tuple(values), mode, self.keep_residual)

    def _edited(self, x: torch.Tensor, edits: list[LatentEdit]) -> torch.Tensor:
        edited = edit_embeddings(self._model_for(x), x, edits, self.k)
        return x if edited is None else edited


def detection(codes: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how well each latent detects a concept.

    Args:
        codes: Activations (n, latents).
        concept: Which rows have the concept, bool (n,).

    Returns:
        The AUROC of every latent, and |difference of class means| / standard deviation.
    """
    positives, negatives = concept.sum(), (~concept).sum()
    areas = np.full(codes.shape[1], 0.5)
    alive = np.flatnonzero(np.ptp(codes, axis=0) > 0)
    for part in np.array_split(alive, max(1, -(-codes.size // _CHUNK_ENTRIES))):
        ranks = rankdata(codes[:, part], axis=0)[concept].sum(axis=0)
        areas[part] = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    difference = np.abs(codes[concept].mean(axis=0) - codes[~concept].mean(axis=0))
    deviation = codes.std(axis=0)
    return areas, np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)
