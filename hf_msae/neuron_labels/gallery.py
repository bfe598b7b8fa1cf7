"""Pictures of concepts and what neurons make of them, each made once."""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._utils.atomic import atomic_path, make_folder
from .._utils.images import to_rgb
from .budget import Meter
from .imagers.base import CannotDrawError, Imager, image_sha256
from .json_lines import JsonLines
from .neuron import Neuron

_MOST_FEATURE_BYTES = 2**28
_MOST_PICTURES = 4096  # held in memory


class Gallery:
    """Draws pictures and reads activations, for all neurons of a run; nothing is drawn twice.

    Pictures are files named by the SHA-256 of their pixels, and `drawn.jsonl` says which picture belongs to a concept
    and seed, so an interrupted run draws only what is missing.

    Args:
        imager: Makes the pictures.
        meter: Counts pictures that are made; those of earlier runs cost nothing.
        folder: Where pictures are kept; None keeps them in memory.
    """

    def __init__(self, imager: Imager, meter: Meter, folder: str | Path | None = None) -> None:
        self.imager, self.meter = imager, meter
        self.folder = None if folder is None else make_folder(folder)
        self._of_imager = hashlib.sha256(json.dumps(imager.settings, sort_keys=True).encode()).hexdigest()[:16]
        self._drawn: dict[tuple[str, int], str] = {}
        self._undrawable: dict[str, str] = {}
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()
        self._features: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._lines: JsonLines | None = None
        if self.folder is not None:
            self._lines = JsonLines(self.folder / "drawn.jsonl")
            for record in self._lines.records:
                if record["imager"] != self._of_imager:
                    continue
                if "problem" in record:
                    self._undrawable[record["concept"]] = record["problem"]
                elif self._path(record["sha256"]).is_file():
                    self._drawn[record["concept"], record["seed"]] = record["sha256"]

    def draw(self, concept: str, seeds: Sequence[int]) -> list[str]:
        """Make the pictures of a concept that are not there yet, and return the SHA-256 of all.

        Raises:
            CannotDrawError: The imager has no pictures of this concept.
            BudgetSpentError: More pictures would cost more than the budget allows.
        """
        if concept in self._undrawable:
            raise CannotDrawError(self._undrawable[concept])
        missing = [seed for seed in seeds if (concept, seed) not in self._drawn]
        if missing:
            self.meter.reserve(images=len(missing))
            try:
                pictures = self.imager.draw(concept, missing)
            except CannotDrawError as error:
                self._undrawable[concept] = str(error)
                self._note(concept, {"problem": str(error)})
                raise
            if len(pictures) != len(missing):
                raise ValueError(f"{self.imager!r} made {len(pictures)} pictures of {len(missing)} seeds")
            self.meter.spend(images=len(missing))
            self._drawn |= {(concept, seed): self.keep(each) for seed, each in zip(missing, pictures, strict=True)}
            self._note(concept, *({"seed": seed, "sha256": self._drawn[concept, seed]} for seed in missing))
        return [self._drawn[concept, seed] for seed in seeds]

    def keep(self, picture: Image.Image) -> str:
        """Store a picture and return its SHA-256."""
        picture = to_rgb(picture)
        name = image_sha256(picture)
        self._remember(name, picture)
        if self.folder is not None and not (path := self._path(name)).is_file():
            stored = io.BytesIO()
            picture.save(stored, "PNG")
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(stored.getvalue())
        return name

    def picture(self, name: str) -> Image.Image:
        """Return a stored picture."""
        if name not in self._pictures:
            self._remember(name, to_rgb(self._path(name)))
        return self._pictures[name]

    def activations(self, neuron: Neuron, names: Sequence[str]) -> np.ndarray:
        """Return the activations (n,) of stored pictures, float64.

        Raises:
            ValueError: The neuron does not give one finite number for each picture.
        """
        missing = [name for name in dict.fromkeys(names) if (neuron.source, name) not in self._features]
        rows: dict[str, np.ndarray] = {}
        if missing:
            found = np.asarray(neuron.features([self.picture(name) for name in missing]))
            if found.ndim == 0 or len(found) != len(missing):
                raise ValueError(f"{neuron!r} gave an array of shape {found.shape} for {len(missing)} pictures")
            rows = dict(zip(missing, found, strict=True))
        rows |= {name: self._features[neuron.source, name] for name in names if name not in rows}
        for name, row in rows.items():
            self._features[neuron.source, name] = row
            self._features.move_to_end((neuron.source, name))
        self._forget()
        return checked_activations(neuron, np.stack([rows[name] for name in names]))

    def _remember(self, name: str, picture: Image.Image) -> None:
        self._pictures[name] = picture
        if self.folder is not None and len(self._pictures) > _MOST_PICTURES:
            self._pictures.popitem(last=False)

    def _forget(self) -> None:
        if self._features:
            most = max(1, _MOST_FEATURE_BYTES // max(1, next(reversed(self._features.values())).nbytes))
            while len(self._features) > most:
                self._features.popitem(last=False)

    def _path(self, name: str) -> Path:
        return self.folder / "images" / name[:2] / f"{name}.png"

    def _note(self, concept: str, *found: dict[str, Any]) -> None:
        if self._lines is not None:
            self._lines.append(*({"imager": self._of_imager, "concept": concept, **each} for each in found))


def checked_activations(neuron: Neuron, features: np.ndarray) -> np.ndarray:
    """Read activations from features, and check that they are one finite number for each."""
    found = np.asarray(neuron.read(features), dtype=np.float64)
    if found.shape != (len(features),):
        raise ValueError(f"{neuron!r} gave activations of shape {found.shape} for {len(features)} pictures")
    if not np.isfinite(found).all():
        raise ValueError(f"{neuron!r} gave {found[~np.isfinite(found)][0]} for a picture; activations must be finite")
    return found
