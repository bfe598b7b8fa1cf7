"""Neurons: anything that turns images into activations and can be given a label; what they give, checked."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from .._utils.fingerprint import model_fingerprint
from .._utils.images import to_rgb
from ..backbones import prepare_images

if TYPE_CHECKING:
    from ..vision_text import VisionTextMSAE

_KNOWN: WeakKeyDictionary[torch.nn.Module, tuple[list, str]] = WeakKeyDictionary()
_NUMBERS: WeakKeyDictionary[Callable, int] = WeakKeyDictionary()
_NEXT = itertools.count()
_MOST_CODES = 2**26  # entries of codes that are held at a time

Images = Sequence[Image.Image]
Pooling = Literal["mean", "max", "first"]


class Neuron(ABC):
    """A function from images to one activation each, in two steps, so that neurons of a model share the first.

    Attributes:
        name: The neuron in a few words, for figures and tables.
        source: Identifies what `features` computes, in this process; neurons with the same source share its results.
        key: Identifies the neuron between runs.
    """

    name: str
    source: str
    key: str

    @abstractmethod
    def features(self, images: Images) -> np.ndarray:
        """Compute what activations are read from: an array with one row for each image."""

    @abstractmethod
    def read(self, features: np.ndarray) -> np.ndarray:
        """Read the activations (n,) from features."""

    def __call__(self, images: Images) -> np.ndarray:
        """Return the activation of each image (n,)."""
        return self.read(self.features(images))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class FunctionNeuron(Neuron):
    """A function of yours.

    Args:
        function: Takes a list of RGB images and returns an activation for each.
        name: The neuron's name. A run that is interrupted continues only under the same name.

    Raises:
        TypeError: `function` is not callable.
    """

    def __init__(self, function: Callable[[Images], Any], name: str | None = None) -> None:
        if not callable(function):
            raise TypeError(f"a neuron is a function from images to activations, got {function!r:.100}")
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.key = f"function {self.name}"
        # Not the name: functions that are written anew, as in notebooks, keep theirs.
        self.source = f"{self.key} {next(_NEXT)}"

    def features(self, images: Images) -> np.ndarray:
        """Call the function."""
        found = self.function(images)
        if isinstance(found, list | tuple) and any(isinstance(each, torch.Tensor) for each in found):
            found = torch.stack([torch.as_tensor(each).detach().cpu() for each in found])
        if isinstance(found, torch.Tensor):
            found = found.detach().double().cpu()
        return np.asarray(found, dtype=np.float64)

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return what the function returned."""
        return features


class MSAENeuron(Neuron):
    """A latent of an MSAE of images.

    At a block, whose embeddings are those of tokens, the activation of an image is the largest of its tokens, without
    padding. Features are then these activations, of all latents: tokens would take many times the memory.

    Args:
        model: The MSAE with its backbone.
        latent: Number of the latent.
        k: Number of latents that are kept for each embedding, as in `MSAEModel.encode`.

    Raises:
        ValueError: The MSAE has no such latent, or was trained on texts.
    """

    def __init__(self, model: VisionTextMSAE, latent: int, k: int | None = None) -> None:
        if model.hook_point.tower != "vision":
            raise ValueError(f"the MSAE was trained on {model.hook_point.name}; images do not activate its latents")
        if not 0 <= latent < model.msae.config.num_latents:
            raise ValueError(f"there is no latent {latent}: this MSAE has {model.msae.config.num_latents}")
        self.model, self.latent, self.k = model, int(latent), k
        self.name = f"latent {self.latent}"
        self.source = _digest(_identity(model.backbone.model), model.hook_point.name)
        self.key = _digest(self.source, _identity(model.msae), str(self.latent), str(k))
        self._of_tokens = model.hook_point.layer is not None
        if self._of_tokens:
            self.source = _digest(self.source, _identity(model.msae), str(k))

    def features(self, images: Images) -> np.ndarray:
        """Embed images at the MSAE's hook point (n, d), or encode their tokens at a block (n, num_latents)."""
        backbone, images = self.model.backbone, list(images)
        if not self._of_tokens:
            return backbone.read(self.model.hook_point.name, images, progress=False).float().cpu().numpy()
        size = backbone.image_batch_size
        parts = [self._largest(images[start : start + size]) for start in range(0, len(images), size)]
        return torch.cat(parts).float().numpy()

    @torch.no_grad()
    def _largest(self, images: Images) -> torch.Tensor:
        backbone, msae = self.model.backbone, self.model.msae
        tokens = backbone.read(self.model.hook_point.name, images, progress=False)
        is_padding = torch.ones(tokens.shape[:2], dtype=torch.bool)
        grids = backbone.patch_grids(prepare_images(backbone.image_processor, list(map(to_rgb, images))))
        for row, grid in zip(is_padding, grids, strict=True):
            row[backbone.image_tokens(grid, len(row))] = False
        size, found = max(1, _MOST_CODES // (msae.config.num_latents * tokens.shape[1])), []
        for part, padding in zip(tokens.split(size), is_padding.split(size), strict=True):
            codes = msae.encode(part.to(msae.device), self.k)  # which are not negative
            found.append(codes.masked_fill_(padding[..., None].to(codes.device), 0).amax(dim=1).cpu())
        return torch.cat(found)

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return the latent's activations."""
        return np.concatenate([part[:, self.latent] for part in self.codes(features)])

    @torch.no_grad()
    def codes(self, features: np.ndarray) -> Iterator[np.ndarray]:
        """Return the activations of all latents (n, num_latents), some images at a time."""
        if self._of_tokens:
            yield features
            return
        msae = self.model.msae
        for part in torch.from_numpy(np.ascontiguousarray(features)).split(
            max(1, _MOST_CODES // msae.config.num_latents)
        ):
            yield msae.encode(part.to(msae.device), self.k).float().cpu().numpy()


class UnitNeuron(Neuron):
    """A unit or channel of any module of a torch model.

    Args:
        model: The network. It is put into evaluation mode.
        unit: Number of the channel, token feature or output.
        prepare: Turns RGB images into the model's input, a tensor or a mapping of keyword arguments, such as an image
            processor of transformers does.
        module: Name of the module whose output is read, as in `model.named_modules()`; by default the whole model's.
        pooling: How channels (n, c, height, width) and tokens (n, tokens, c) become one activation: "mean", "max", or
            "first", the first token. By default "mean" for channels and "first" for tokens.

    Raises:
        ValueError: The model has no such module; or, once images are given, the module no such unit.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        unit: int,
        prepare: Callable[[Images], Any],
        module: str | None = None,
        pooling: Pooling | None = None,
    ) -> None:
        if module is not None and module not in dict(model.named_modules()):
            raise ValueError(f"the model has no module {module!r}; see dict(model.named_modules())")
        if pooling not in (None, "mean", "max", "first"):
            raise ValueError(f'pooling must be "mean", "max" or "first", got {pooling!r}')
        self.model, self.unit, self.prepare = model.eval(), int(unit), prepare
        self.module, self.pooling = module, pooling
        self.name = f"unit {self.unit} of {module or type(model).__name__}"
        reads = (_identity(model), str(module), str(pooling))
        if hasattr(prepare, "to_json_string"):
            preparation = number = prepare.to_json_string()
        else:
            preparation, number = getattr(prepare, "__qualname__", type(prepare).__qualname__), str(_number(prepare))
        self.source = _digest(*reads, number)
        self.key = _digest(*reads, preparation, str(self.unit))

    @torch.no_grad()
    def features(self, images: Images) -> np.ndarray:
        """Run the model and pool what the module gives, for all of its units."""
        found: list[Any] = []
        module = self.model if self.module is None else self.model.get_submodule(self.module)
        self.model.eval()  # it may have been trained since
        handle = module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        try:
            self._forward(self.prepare(list(images)))
        finally:
            handle.remove()
        if not found:
            raise ValueError(f"the model does not call its module {self.module!r} for these inputs: choose another")
        return _pooled(_tensor_of(found[-1]), self.pooling).float().cpu().numpy()

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return the unit's column."""
        if not 0 <= self.unit < features.shape[1]:
            raise ValueError(f"there is no unit {self.unit}: {self.module or 'the model'} has {features.shape[1]}")
        return features[:, self.unit]

    def _forward(self, inputs: Any) -> None:
        own = next(self.model.parameters(), torch.empty(0))

        def placed(value: Any) -> torch.Tensor:
            # Some image processors give a list of a tensor for each image.
            value = torch.stack(list(map(torch.as_tensor, value))) if isinstance(value, list) else value
            value = torch.as_tensor(value)
            is_float = value.is_floating_point() and own.is_floating_point()
            return value.to(own.device, own.dtype if is_float else value.dtype)

        if isinstance(inputs, Mapping):
            self.model(**{name: placed(value) for name, value in inputs.items()})
        else:
            self.model(placed(inputs))


def _tensor_of(output: Any) -> torch.Tensor:
    """Return the tensor of an output: its logits, pooled output or last hidden state, or the first of several."""
    if isinstance(output, Mapping):
        named = [output.get(name) for name in ("logits", "pooler_output", "last_hidden_state")]
        output = [each for each in (*named, *output.values()) if isinstance(each, torch.Tensor)]
    return output if isinstance(output, torch.Tensor) else output[0]


def _pooled(values: torch.Tensor, pooling: Pooling | None) -> torch.Tensor:
    if values.ndim == 2:
        return values
    if values.ndim not in (3, 4):
        raise ValueError(f"the module's output has shape {tuple(values.shape)}; expected 2, 3 or 4 dimensions")
    pooling = pooling or ("mean" if values.ndim == 4 else "first")
    tokens = values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
    if pooling == "first":
        return tokens[:, 0]
    return tokens.mean(dim=1) if pooling == "mean" else tokens.amax(dim=1)


def _identity(model: torch.nn.Module) -> str:
    """Return the fingerprint of a model, which is computed again only if its weights may have changed."""
    tensors = model.state_dict().values()  # these change when a tensor is replaced or written to:
    state = [(each.data_ptr(), each.dtype, 0 if each.is_inference() else each._version) for each in tensors]
    if model not in _KNOWN or _KNOWN[model][0] != state:
        _KNOWN[model] = state, model_fingerprint(model)
    return _KNOWN[model][1]


def _number(function: Callable) -> int:
    """Return a number of a function, as long as it lives; functions of one name have others."""
    try:
        return _NUMBERS.setdefault(function, next(_NEXT))
    except TypeError:  # it cannot be hashed or weakly referenced
        return next(_NEXT)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class NeuronError(ValueError):
    """A neuron fails, so that it cannot be labeled; others can."""


def features_of(neuron: Neuron, images: Images) -> np.ndarray:
    """Compute features, one row for each image; raise NeuronError if the neuron does not."""
    try:
        found = np.asarray(neuron.features(images))
    except Exception as error:  # a function of the user may raise anything
        raise NeuronError(f"{neuron!r} failed ({type(error).__name__}: {error})") from error
    if found.ndim == 0 or len(found) != len(images):
        raise NeuronError(f"{neuron!r} gave an array of shape {found.shape} for {len(images)} pictures")
    return found


def activations_of(neuron: Neuron, features: np.ndarray) -> np.ndarray:
    """Read activations from features; raise NeuronError unless they are one finite number for each."""
    try:
        found = np.asarray(neuron.read(features), dtype=np.float64)
    except Exception as error:  # likewise
        raise NeuronError(f"{neuron!r} failed ({type(error).__name__}: {error})") from error
    if found.shape != (len(features),):
        raise NeuronError(f"{neuron!r} gave activations of shape {found.shape} for {len(features)} pictures")
    if not np.isfinite(found).all():
        raise NeuronError(f"{neuron!r} gave {found[~np.isfinite(found)][0]} for a picture; activations must be finite")
    return found
