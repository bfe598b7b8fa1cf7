"""Pictures of concepts and what neurons make of them, each made once."""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._utils.atomic import atomic_path, make_folder
from .._utils.images import to_rgb
from .budget import Meter
from .imagers.base import CannotDrawError, Imager, image_sha256
from .json_lines import JsonLines
from .neuron import Neuron, NeuronError, activations_of, features_of
from .services import ServiceError

_MOST_FEATURE_BYTES = 2**28
_MOST_PICTURE_BYTES = 2**29  # held in memory


class Gallery:
    """Draws pictures and reads activations, for all neurons of a run; nothing is drawn twice.

    Pictures are files named by the SHA-256 of their pixels, and `drawn.jsonl` says which picture belongs to a concept
    and seed, so an interrupted run draws only what is missing.
    """

    def __init__(self, imager: Imager, meter: Meter, folder: str | Path | None = None) -> None:
        self.imager, self.meter = imager, meter
        self.folder = None if folder is None else make_folder(folder)
        self._of_imager = hashlib.sha256(json.dumps(imager.settings, sort_keys=True).encode()).hexdigest()[:16]
        self._drawn: dict[tuple[str, int], str] = {}
        self._used: defaultdict[str, set[str]] = defaultdict(set)  # the pictures of a concept in this run
        self._undrawable: dict[str, str] = {}
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()
        self._bytes = 0  # of these pictures
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

        Raises CannotDrawError also if the imager has the same picture for several seeds, which would count several
        times, and as fresh ones that the search has not seen.
        """
        missing = [seed for seed in seeds if (concept, seed) not in self._drawn]
        # Those of an earlier run with another seed do not count: a collection has the same pictures for its seeds.
        self._used[concept].update(self._drawn[concept, seed] for seed in seeds if (concept, seed) in self._drawn)
        if missing and concept in self._undrawable:
            raise CannotDrawError(self._undrawable[concept])
        if missing:
            self.meter.reserve(images=len(missing), cost=len(missing) * self.imager.price)
            try:
                self._make(concept, missing)
            except CannotDrawError as error:
                self._undrawable[concept] = str(error)
                self._note(concept, {"problem": str(error)})
                raise
        return [self._drawn[concept, seed] for seed in seeds]

    def draw_pairs(self, concept: str, seeds: Sequence[int]) -> tuple[list[str], list[str]]:
        """Make pictures with a concept, and the same without it, every time, and return their SHA-256."""
        price = {"images": 2 * len(seeds), "cost": 2 * len(seeds) * self.imager.price}
        self.meter.reserve(**price)
        pairs = self._ask(self.imager.draw_pairs, concept, seeds)
        self.meter.spend(**price)
        return tuple([self.keep(picture) for picture in part] for part in pairs)

    def most_pictures(self, concept: str) -> int | None:
        """Return how many different pictures of a concept there are; None without a limit."""
        return self._ask(self.imager.most_pictures, concept)

    def _ask(self, call: Callable[..., Any], concept: str, *seeds: Sequence[int]) -> Any:
        try:
            return call(concept, *seeds)
        except (CannotDrawError, ServiceError):
            raise
        except Exception as error:  # an imager of the user may raise anything
            raise NeuronError(
                f"{self.imager!r} failed to draw {concept!r} ({type(error).__name__}: {error})"
            ) from error

    def _make(self, concept: str, seeds: Sequence[int]) -> None:
        try:
            pictures = self._ask(self.imager.draw, concept, seeds)
        except CannotDrawError as error:
            self.meter.spend(images=error.made, cost=error.made * self.imager.price)
            raise
        if len(pictures) != len(seeds):
            raise ValueError(f"{self.imager!r} made {len(pictures)} pictures of {len(seeds)} seeds")
        self.meter.spend(images=len(seeds), cost=len(seeds) * self.imager.price)
        names = [image_sha256(to_rgb(picture)) for picture in pictures]
        if len({*names, *self._used[concept]}) < len(names) + len(self._used[concept]):
            raise CannotDrawError(f"{self.imager!r} makes the same picture of {concept!r} for different seeds")
        for seed, picture in zip(seeds, pictures, strict=True):
            self._drawn[concept, seed] = self.keep(picture)
        self._used[concept].update(names)
        self._note(concept, *({"seed": seed, "sha256": name} for seed, name in zip(seeds, names, strict=True)))

    @property
    def drawn(self) -> set[str]:
        """The SHA-256 of all pictures of concepts."""
        return set(self._drawn.values())

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
        """Return the activations (n,) of stored pictures, float64."""
        return activations_of(neuron, self.features(neuron, names))

    def features(self, neuron: Neuron, names: Sequence[str]) -> np.ndarray:
        """Return the features (n, ...) of stored pictures, which neurons of one source share."""
        missing = [name for name in dict.fromkeys(names) if (neuron.source, name) not in self._features]
        rows: dict[str, np.ndarray] = {}
        if missing:
            found = features_of(neuron, [self.picture(name) for name in missing])
            rows = dict(zip(missing, found, strict=True))
        rows |= {name: self._features[neuron.source, name] for name in names if name not in rows}
        for name, row in rows.items():
            self._features[neuron.source, name] = row
            self._features.move_to_end((neuron.source, name))
        self._forget()
        return np.stack([rows[name] for name in names])

    def _remember(self, name: str, picture: Image.Image) -> None:
        if name not in self._pictures:
            self._bytes += _size(picture)
            self._pictures[name] = picture
        while self.folder is not None and self._bytes > _MOST_PICTURE_BYTES and len(self._pictures) > 1:
            self._bytes -= _size(self._pictures.popitem(last=False)[1])

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


def _size(picture: Image.Image) -> int:
    return 3 * picture.width * picture.height
