"""Edits of the code of a sparse autoencoder: the base of methods that need one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any, ClassVar

import numpy as np
import torch

from .._utils.fingerprint import model_fingerprint
from ..model.modeling_msae import MSAEModel
from .edit import Edit
from .provenance import refuse_other

BATCH = 4096
MOST_ENTRIES = 2**29
"""Activations that are held at once, 2 GB, of which what is computed of them takes as much again."""
"""Rows that are encoded at once."""

_AT_ONCE = 512  # rows whose codes are changed at once: they stay in the cache of a processor
_MOST_KEPT = 2**27  # activations that are kept, at most

_PACKAGE = Path(__file__).resolve().parents[1]
_HERE = (".", "..")
"""What the way from the edit's folder begins with, and no id on the Hub and no name of a released MSAE does."""


@dataclass
class MSAEEdit(Edit):
    """An edit of codes of an MSAE, or of any sparse autoencoder of this package.

    A saved edit holds the fingerprint of the MSAE and where it is: an id on the Hub, the name of a released one, or
    where its folder is from the edit's, so that both can be moved together. If it is elsewhere, name it:
    `load_edit(folder, msae=...)`. Another MSAE is refused.

    Attributes:
        msae: The MSAE: a model, its folder or id on the Hub, or the name of a released one.
        keep_residual: Whether to keep what the MSAE does not reconstruct.
        k: Number of activations of the code. Defaults to the MSAE's own.
    """

    needs: ClassVar[str] = "an MSAE"

    msae: MSAEModel | str | os.PathLike = ""
    keep_residual: bool = True
    k: int | None = None

    def __post_init__(self):
        self._model: MSAEModel | None = None
        self._known_codes: dict[bytes, torch.Tensor] = {}  # by the bytes of a row; copies share them

    @contextmanager
    def reading(self, X: np.ndarray) -> Iterator[None]:
        """Encode embeddings once for all that this edit and its copies do with them within the context."""
        rows = np.asarray(X[: _MOST_KEPT // self.model.config.num_latents], dtype=np.float32)
        keys = (row.tobytes() for row in rows)
        self._known_codes.update(zip(keys, torch.from_numpy(self._codes(rows)), strict=True))
        try:
            yield
        finally:
            self._known_codes.clear()

    @property
    def model(self) -> MSAEModel:
        """The MSAE, loaded at first use."""
        if self._model is None:
            if isinstance(self.msae, MSAEModel):
                self._model = self.msae
            elif not os.fspath(self.msae):
                raise ValueError(f'the method {self.method} needs an MSAE: METHODS["{self.method}"](msae=...)')
            else:
                name = os.fspath(self.msae)
                is_place = Path(name).expanduser().is_dir() or "/" in name
                load = MSAEModel.from_pretrained if is_place else MSAEModel.from_released
                try:
                    self._model = load(str(Path(name).expanduser()) if is_place else name)
                except KeyError as error:
                    raise OSError(f"the MSAE {name!r} is no folder, and {error.args[0]}") from None
            self._model.eval()
        return self._model

    def settings(self) -> dict[str, Any]:
        """Return the options, with the location in place of the MSAE; "" if it is not saved anywhere."""
        place = self.msae.name_or_path if isinstance(self.msae, MSAEModel) else os.fspath(self.msae)
        place = str(Path(place).expanduser().resolve()) if place and Path(place).expanduser().is_dir() else place
        options = [field.name for field in fields(self) if field.name not in ("msae", "concepts")]
        return {"msae": place, **{name: getattr(self, name) for name in options}}

    def saved_settings(self, folder: str | os.PathLike) -> dict[str, Any]:
        """Return the options, with the way from the edit's folder to that of the MSAE, if it lies in one."""
        settings = self.settings()
        place = Path(settings["msae"])
        if place.is_dir():
            if place.is_relative_to(_PACKAGE):  # it comes with the package: every installation knows its name
                return {**settings, "msae": place.name}
            way = PurePath(os.path.relpath(place, Path(folder).expanduser().resolve())).as_posix()
            settings["msae"] = way if way.split("/")[0] in _HERE else f"./{way}"
        return settings

    @classmethod
    def loaded_settings(cls, saved: dict[str, Any], folder: str | os.PathLike) -> dict[str, Any]:
        """Return the options, with the folder of the MSAE that is meant; earlier versions saved an absolute path."""
        if saved["msae"].split("/")[0] not in _HERE:
            return saved
        return {**saved, "msae": os.path.normpath(Path(folder).expanduser().resolve() / saved["msae"])}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the edit, whose MSAE has to be in a folder or on the Hub."""
        if not self.settings()["msae"]:
            raise ValueError("the MSAE of this edit is not saved anywhere: save it, and pass its folder as msae")
        super().save_pretrained(folder)

    def depends_on(self) -> str:
        """Return a hash of what results depend on besides the options: the code, and the MSAE."""
        return super().depends_on() + model_fingerprint(self.model)

    def check_embeddings(self, provenance: dict[str, Any], width: int) -> None:
        """Check that the MSAE was trained on embeddings of their width and, where it is known, their backbone."""
        config = self.model.config
        name = f"the MSAE {self.settings()['msae']}".rstrip()
        if config.d_in != width:
            raise ValueError(f"{name} is for embeddings with {config.d_in} columns, but these have {width}")
        refuse_other(config.to_dict(), provenance, name, "the embeddings are")

    def check_loaded(self) -> None:
        """Check that the MSAE is the one that the edit was fitted with."""
        try:
            found = model_fingerprint(self.model)
        except (OSError, KeyError) as error:
            raise ValueError(
                f"this edit ({self.method}) needs the MSAE that it was fitted with, which is not at {self.msae}: name "
                "its folder, load_edit(folder, msae=...)"
            ) from error
        if found != self.provenance.get("msae_fingerprint"):
            raise ValueError(f"this edit was fitted with another MSAE than the one that is now at {self.msae}")

    def _keep(self, learned: dict[str, np.ndarray], width: int, provenance: dict[str, Any]) -> None:
        super()._keep(learned, width, {**provenance, "msae_fingerprint": model_fingerprint(self.model)})

    @torch.no_grad()
    def _codes(self, X: np.ndarray, latents: np.ndarray | None = None) -> np.ndarray:
        model, parts = self.model, []
        for rows in torch.from_numpy(X.astype(np.float32)).split(BATCH):
            codes = self._code_of(rows.to(model.device))
            parts.append((codes if latents is None else codes[:, torch.from_numpy(latents)]).float().cpu().numpy())
        return np.concatenate(parts)

    def _code_blocks(self, X: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield some latents after the other and their codes (n, latents), which fit into memory.

        Rows are encoded again for each block, since a code is chosen among all latents.
        """
        number = self.model.config.num_latents
        for latents in np.array_split(np.arange(number), min(number, -(-len(X) * number // MOST_ENTRIES))):
            yield latents, self._codes(X, latents)

    def _model_for(self, x: torch.Tensor) -> MSAEModel:
        return self.model.to(x.device)

    def _with_code(self, x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return embeddings with their code changed, and no activation below 0."""
        model = self._model_for(x)
        nothing = model.decode(torch.zeros(model.config.num_latents, device=x.device))

        def changed(rows: torch.Tensor) -> torch.Tensor:
            codes = self._code_of(rows)
            new = change(codes).clamp_(min=0)
            if not self.keep_residual:
                return model.decode(new)
            # Decoding is affine, so the difference of two codes takes one product instead of two.
            return rows + model.decode(new.sub_(codes)) - nothing

        return torch.cat([changed(rows).to(x.dtype) for rows in x.split(_AT_ONCE)])

    def _code_of(self, x: torch.Tensor) -> torch.Tensor:
        """Return the code of embeddings, which may be known."""
        if self._known_codes and x.device.type == "cpu" and x.dtype == torch.float32:
            known = []
            for row in x.numpy():
                if (code := self._known_codes.get(row.tobytes())) is None:
                    break
                known.append(code)
            else:
                return torch.stack(known)
        return self._model_for(x).encode(x, self.k)
