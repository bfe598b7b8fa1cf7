"""What every way of steering can do: be fitted to a concept, score embeddings, remove the concept and add it."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch

from .artifact import read_edit, site_in, write_edit
from .code import code_sha256
from .data import NotDefinedError, as_tensor, check_data, check_others, is_opened
from .named import Named
from .provenance import backbone_of, origin_of, provenance_of, refuse_other

if TYPE_CHECKING:
    import os
    from typing import Self

    from ..backbones import Backbone
    from ..embeddings import EmbeddingDataset
    from ..vision_text import VisionTextMSAE

    Array = TypeVar("Array", np.ndarray, torch.Tensor)

METHODS: Named[type[Edit]] = Named("method")
"""The methods by name. `METHODS["leace"]().fit(X, concept)` gives an edit."""

_E = TypeVar("_E", bound="type[Edit]")


def register(name: str) -> Callable[[_E], _E]:
    """Make a class a method: `METHODS[name]`.

    Raises:
        ValueError: Another class has that name.
    """

    def add(cls: _E) -> _E:
        if METHODS.setdefault(name, cls) is not cls:
            raise ValueError(f"there is a method named {name!r} already: {METHODS[name].__qualname__}")
        cls.method = name
        return cls

    return add


class Edit(ABC):
    """A way to steer: it reads a concept in embeddings, takes it out and puts it in.

    Subclasses are dataclasses whose fields are the options of the method. They implement `_fit`, which returns what
    is learned as arrays by name, and `_score`, `_remove` and `_add`, which get finite embeddings (n, d) and find these
    arrays with `self._get`, as tensors on the same device and in the same dtype. Users may pass numpy arrays or
    tensors of any floating-point dtype and device, with any number of leading dimensions; results are of the same
    kind, computed in at least float32.

    Attributes:
        parameters: What was learned, by name, float32 on the CPU.
        provenance: Where the embeddings came from: backbone, hook_point and so on, as far as that is known.
    """

    method: ClassVar[str]
    """The name in `METHODS`."""

    needs: ClassVar[str] = "labels"
    """What a fit needs: "labels", or more, such as "a name" or "an MSAE"."""

    shares_fits: ClassVar[str] = ""
    """Methods with the same name here make the same expensive fits, and are measured by one process."""

    parameters: dict[str, torch.Tensor]
    provenance: dict[str, Any]

    def fit(
        self,
        X: np.ndarray | torch.Tensor | EmbeddingDataset,
        concept: np.ndarray | torch.Tensor,
        seed: int = 0,
        others: np.ndarray | torch.Tensor | None = None,
        backbone: Backbone | VisionTextMSAE | None = None,
        hook_point: str | None = None,
    ) -> Self:
        """Learn from embeddings with the concept and without it.

        Args:
            X: Embeddings (n, d): an array, a tensor or opened embeddings, whose backbone and hook point are recorded.
            concept: Which of them have the concept (n,), bool or 0 and 1.
            seed: Random seed of whatever is drawn.
            others: Which of them have each of the other concepts (n, K - 1), or one other (n,), for the methods that
                fit all concepts together; the others ignore it.
            backbone: The backbone that embeddings in an array or a tensor are of, so that the edit can be attached to
                it. Opened embeddings name theirs.
            hook_point: Where in the backbone they were read: "image_embeds", unless said otherwise by opened
                embeddings or the MSAE of a `VisionTextMSAE`.

        Raises:
            NotDefinedError: All rows have the concept or none has it, or all rows are alike.
            ValueError: The shapes do not fit, a value is not finite, or the embeddings are of another backbone or hook
                point.
        """
        values, chosen = check_data(X, concept)
        known = origin_of(X, values.shape[1], backbone, hook_point)
        self.check_embeddings(known, values.shape[1])
        learned = self._fit(values, chosen, seed, check_others(others, len(values)))
        self._keep(learned, values.shape[1], known)
        return self

    def check_embeddings(self, provenance: dict[str, Any], width: int) -> None:  # noqa: B027 - most take all
        """Check that the method can be fitted to such embeddings, before anything is computed."""

    def fit_by_name(
        self,
        name: str,
        backbone: Backbone | VisionTextMSAE | None,
        X: np.ndarray | torch.Tensor | EmbeddingDataset,
        seed: int = 0,
    ) -> Self:
        """Learn from the name of a concept and embeddings without labels, with the methods that can.

        Args:
            name: Name of the concept.
            backbone: The backbone of the embeddings, whose text tower reads the name.
            X: Embeddings (n, d), as for `fit`.
            seed: Random seed of whatever is drawn.

        Raises:
            NotDefinedError: This method needs labels.
        """
        raise NotDefinedError(f"{self.method} needs labels: call fit(X, concept) in place of fit_by_name({name!r})")

    def score(self, X: Array) -> Array:
        """Return how much of the concept embeddings (..., d) have: (...), larger for more, at least float32.

        Opened embeddings give a tensor; those of another backbone or hook point are refused, here and by `remove` and
        `add`.

        Raises:
            ValueError: The embeddings are not floating-point numbers of the right width, or not finite.
        """
        return self._apply(self._score, X, keep_dtype=False)

    def remove(self, X: Array) -> Array:
        """Return the embeddings (..., d) without the concept."""
        return self._apply(self._remove, X)

    def add(self, X: Array, amount: float = 1.0) -> Array:
        """Return the embeddings (..., d) with more of the concept.

        An amount of 1 moves them by the difference between the means of training rows with the concept and without
        it, as far as the method sees that difference.
        """
        if not np.isfinite(amount):
            raise ValueError(f"amount has to be a finite number, but is {amount}")
        return self._apply(lambda x: self._add(x, amount), X)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the edit: edit.safetensors and edit.json, which `load_edit` reads.

        Raises:
            ValueError: The edit has not been fitted, or JSON cannot hold one of its options.
        """
        self.width  # noqa: B018 - raises if the edit has not been fitted
        self.check_options()
        known = {"method": self.method, "settings": self.saved_settings(folder), "provenance": self.provenance}
        write_edit(folder, known, self.parameters)

    @contextmanager
    def attached(
        self, backbone: Backbone | VisionTextMSAE, change: str = "remove", amount: float = 1.0
    ) -> Iterator[None]:
        """Apply the edit at its hook point in every forward pass of a backbone, as long as the context lasts.

        Args:
            backbone: The backbone that the edit was fitted on, or a `VisionTextMSAE` with it.
            change: "remove" or "add".
            amount: How much to add.

        Raises:
            ValueError: The edit was fitted on another backbone, or it is not known on which.
        """
        if change not in ("remove", "add"):
            raise ValueError(f"change is {change!r}; choose 'remove' or 'add'")
        self.width  # noqa: B018 - raises if the edit has not been fitted
        site = site_in(backbone_of(backbone), self.method, self.provenance)
        apply = self.remove if change == "remove" else lambda x: self.add(x, amount)
        with site.hooked(apply):
            yield

    @contextmanager
    def reading(self, X: np.ndarray) -> Iterator[None]:
        """Say which embeddings this edit and its copies will be asked about within the context, perhaps often."""
        yield

    def settings(self) -> dict[str, Any]:
        """Return the options of the method."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def check_options(self) -> None:
        """Check that JSON can hold the options of the method, as results and saved edits do."""
        for name, value in self.settings().items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"option {name} of {self.method} cannot be saved: {value!r:.100} ({error})") from None

    def saved_settings(self, folder: str | os.PathLike) -> dict[str, Any]:
        """Return the options of the method as they are saved in a folder."""
        return self.settings()

    @classmethod
    def loaded_settings(cls, saved: dict[str, Any], folder: str | os.PathLike) -> dict[str, Any]:
        """Return the options that `saved_settings` gave when they were saved in a folder."""
        return saved

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        try:
            return self.provenance["width"]
        except (AttributeError, KeyError):
            raise ValueError(f"this edit ({self.method}) has not been fitted: call fit(X, concept) first") from None

    def depends_on(self) -> str:
        """Return a hash of what results depend on besides the options: the code of the method."""
        return code_sha256(type(self))

    def check_loaded(self) -> None:  # noqa: B027 - most need nothing else
        """Check what the edit needs besides its own parameters; called after it was loaded."""

    @abstractmethod
    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is learned from embeddings (n, d), float64 and finite.

        `concept` is bool (n,) with both values, and `others` bool (n, K - 1), where K may be 1.
        """

    @abstractmethod
    def _score(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _remove(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor: ...

    def _keep(self, learned: dict[str, np.ndarray], width: int, provenance: dict[str, Any]) -> None:
        self.parameters = {
            name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in learned.items()
        }
        self.provenance = {**provenance, "width": width}

    def _get(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return self.parameters[name].to(like.device, like.dtype)

    @torch.no_grad()
    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], X: Array, keep_dtype: bool = True) -> Array:
        self.width  # noqa: B018 - raises if the edit has not been fitted
        refuse_other(self.provenance, provenance_of(X), f"this edit ({self.method})", "the embeddings are")
        given = as_tensor(X, self.width, f"this edit ({self.method})")
        rows = given.reshape(-1, self.width)
        result = function(rows.float() if rows.dtype.itemsize < 4 else rows)
        result = result.to(given.dtype) if keep_dtype else result
        result = result.reshape(given.shape[:-1] + result.shape[1:])
        return result if isinstance(X, torch.Tensor) or is_opened(X) else result.numpy()


def load_edit(folder: str | os.PathLike, **options: Any) -> Edit:
    """Load an edit that `Edit.save_pretrained` wrote.

    Args:
        folder: The folder.
        **options: Options of the method in place of those that were saved, such as msae="elsewhere/msae".

    Raises:
        FileNotFoundError: The folder holds no edit.
        ValueError: A file is damaged or was changed, the method is unknown to this version, or the edit needs an MSAE
            that is not there.
    """
    description, parameters = read_edit(folder)
    if (method := description["method"]) not in METHODS:
        raise ValueError(f"{folder} is an edit by {method!r}, which is none of the methods {', '.join(METHODS)}")
    try:
        saved = METHODS[method].loaded_settings(description["settings"], folder)
        edit = METHODS[method](**{**saved, **options})
    except TypeError as error:
        raise ValueError(f"{method} does not take these options: {error}") from error
    edit.parameters, edit.provenance = parameters, description["provenance"]
    edit.check_loaded()
    return edit
