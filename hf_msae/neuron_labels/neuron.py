"""Neurons: anything that turns images into activations and can be given a label."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from .._utils.fingerprint import weights_sha256

if TYPE_CHECKING:
    from ..vision_text import VisionTextMSAE

_KNOWN: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()

Images = Sequence[Image.Image]
Pooling = Literal["mean", "max", "first"]


class Neuron(ABC):
    """A function from images to one activation each, in two steps, so that neurons of a model share the first.

    Attributes:
        name: The neuron in a few words, for figures and tables.
        source: Identifies what `features` computes; neurons with the same source share its results.
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
        self.source = self.key = f"function {self.name}"

    def features(self, images: Images) -> np.ndarray:
        """Call the function."""
        found = self.function(images)
        return np.asarray(found.detach().cpu() if isinstance(found, torch.Tensor) else found, dtype=np.float64)

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return what the function returned."""
        return features


class MSAENeuron(Neuron):
    """A latent of an MSAE of images.

    At a block, whose embeddings are those of tokens, the activation of an image is the largest of its tokens.

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

    def features(self, images: Images) -> np.ndarray:
        """Embed images at the MSAE's hook point."""
        point = self.model.hook_point.name
        return self.model.backbone.read(point, list(images), progress=False).cpu().numpy()

    @torch.no_grad()
    def read(self, features: np.ndarray) -> np.ndarray:
        """Encode embeddings and return the latent's activations."""
        embeddings = torch.from_numpy(np.ascontiguousarray(features)).to(self.model.msae.device)
        codes = self.model.msae.encode(embeddings, self.k)[..., self.latent].float().cpu().numpy()
        return codes if codes.ndim == 1 else codes.max(axis=1)


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
        preparation = getattr(prepare, "to_json_string", lambda: getattr(prepare, "__qualname__", repr(prepare)))()
        self.source = _digest(_identity(model), str(module), str(pooling), preparation)
        self.key = _digest(self.source, str(self.unit))

    @torch.no_grad()
    def features(self, images: Images) -> np.ndarray:
        """Run the model and pool what the module gives, for all of its units."""
        found: list[Any] = []
        module = self.model if self.module is None else self.model.get_submodule(self.module)
        handle = module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        try:
            self._forward(self.prepare(list(images)))
        finally:
            handle.remove()
        return _pooled(_tensor_of(found[-1]), self.pooling).float().cpu().numpy()

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return the unit's column."""
        if not 0 <= self.unit < features.shape[1]:
            raise ValueError(f"there is no unit {self.unit}: {self.module or 'the model'} has {features.shape[1]}")
        return features[:, self.unit]

    def _forward(self, inputs: Any) -> None:
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        if isinstance(inputs, Mapping):
            self.model(**{name: torch.as_tensor(value).to(device) for name, value in inputs.items()})
        else:
            self.model(torch.as_tensor(inputs).to(device))


def as_neuron(neuron: Neuron | Callable[[Images], Any]) -> Neuron:
    """Return a neuron as it is, and a function as a `FunctionNeuron`."""
    return neuron if isinstance(neuron, Neuron) else FunctionNeuron(neuron)


def _tensor_of(output: Any) -> torch.Tensor:
    """Return the tensor of an output: its logits, pooled output or last hidden state, or the first of several."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        for name in ("logits", "pooler_output", "last_hidden_state"):
            if isinstance(output.get(name), torch.Tensor):
                return output[name]
        output = tuple(output.values())
    return output[0]


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
    """Return the hash of a model's weights, which is computed once, since many neurons belong to one model."""
    if model not in _KNOWN:
        _KNOWN[model] = weights_sha256(model)
    return _KNOWN[model]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
