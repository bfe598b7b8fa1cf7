"""MSAEConfig: what an MSAE is, as config.json stores it."""

import difflib
import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import pairwise
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .activations import FAMILIES, ActivationName

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""The meaning of config.json and of the weights that this version writes. A change of meaning adds one."""

_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""schema_version -> a function that turns a config.json of that schema into one of the next."""

_SMALLEST_K = 64
_HOOK_POINT = re.compile(r"(image_embeds|text_embeds|(vision|text)\.layers\.\d+)")

# What transformers passes to a config or writes into config.json besides the fields of PreTrainedConfig.
_TRANSFORMERS_KEYS = {
    *(field.name for field in fields(PreTrainedConfig)),
    *("model_type", "name_or_path", "num_labels", "torch_dtype", "auto_map", "quantization_config"),
    *("attn_implementation", "experts_implementation", "output_attentions", "per_layer_config", "fusion_config"),
    *("transformers_weights", "tie_word_embeddings", "distributed_config"),
}
# What transformers hands to from_dict for itself; not part of any config.
_LOADING_KEYS = {"return_unused_kwargs", "gguf_file", "trust_remote_code", "code_revision", "adapter_kwargs"}
# What save_pretrained notes about a file; says nothing about the autoencoder in it.
_BOOKKEEPING_KEYS = ("architectures", "dtype", "transformers_version", "_name_or_path")


_FLOATS = ("sparsity_coefficient", "soft_cap", "jump_relu_threshold", "jump_relu_bandwidth")


def _as_json(name: str, value: Any) -> Any:
    """`value` as it will read back from JSON (lists for tuples), with ints taken where floats are meant."""

    def as_float(number: Any) -> Any:
        return float(number) if isinstance(number, int) and not isinstance(number, bool) else number

    if name in ("nesting_ks", "nesting_widths", "nesting_weights") and isinstance(value, tuple):
        value = list(value)
    if name == "nesting_weights" and isinstance(value, list):
        return [as_float(weight) for weight in value]
    return as_float(value) if name in _FLOATS else value


class MissingConfigError(OSError):
    """A folder or repository that can be read has no config.json."""


def _convert_on_assignment(cls: type) -> type:
    """Lets a strict config take tuples and ints where JSON will hold lists and floats, in `__init__` and later."""
    checked_setattr = cls.__setattr__

    def __setattr__(self, name: str, value: Any) -> None:
        checked_setattr(self, name, _as_json(name, value))

    cls.__setattr__ = __setattr__
    return cls


@_convert_on_assignment
@strict
class MSAEConfig(PreTrainedConfig):
    r"""What a Matryoshka sparse autoencoder is: sizes, levels, loss, and the embeddings it was trained on.

    The levels are those of "Interpreting CLIP with Hierarchical Sparse Autoencoders" (arXiv 2502.20578): the code of
    level l keeps the `nesting_ks[l]` largest activations of the whole dictionary. The other sense of Matryoshka,
    prefixes of the dictionary (arXiv 2503.17547), is `nesting="prefix"`. With `nesting="none"` the activations give
    the other autoencoders of the field: "relu" with an L1 term, "topk" (arXiv 2406.04093), "batch_topk" (arXiv
    2412.06410) and "jump_relu" (arXiv 2407.14435).

    Args:
        d_in (`int`, *optional*, defaults to 768):
            Width of the embeddings.
        num_latents (`int`, *optional*, defaults to 6144):
            Number of latents, the rows of the dictionary.
        activation (`str`, *optional*, defaults to `"relu"`):
            What turns pre-activations into a code: "relu"; "topk" (of those the k largest); "batch_topk" (of those
            the k times B largest of a batch of B in training, and afterwards what exceeds the threshold that this
            came to on average); "jump_relu" (what exceeds a threshold that each latent learns).
        nesting (`str`, *optional*, defaults to `"topk"`):
            How the levels nest: "topk" (the k largest activations), "prefix" (the first latents of the dictionary) or
            "none" (one level, the full code).
        nesting_ks (`list[int]`, *optional*):
            The k of each level, ascending. Default: 64, 128, ... doubling, then num_latents (k with "topk").
        nesting_widths (`list[int]`, *optional*):
            With nesting="prefix": how many latents each level has, ascending to num_latents. Default: num_latents
            divided by 16, 8, 4, 2 and 1.
        random_prefixes (`int`, *optional*, defaults to 0):
            With nesting="prefix": how many widths to draw anew for each training step, in place of nesting_widths.
        nesting_weights (`str` or `list[float]`, *optional*, defaults to `"uniform"`):
            Weight of each level in the loss: "uniform" (1 each), "reverse" (L, ..., 2, 1: small k weighs most), or
            one positive number per level.
        k (`int`, *optional*):
            With activation "topk" and "batch_topk": its k, which they need. With others: how many activations
            `encode` keeps by default, which never changes the loss. Default: as many as the largest level.
        sparsity_coefficient (`float`, *optional*, defaults to 0.0):
            Weight in the loss of the sparsity penalty.
        sparsity_penalty (`str`, *optional*):
            "l1": mean_i ||a_i||_1 / ||u_i||_2 of code a and normalized embedding u. "tanh": mean_i sum_j
            tanh(4 a_ij). "l0", for "jump_relu" alone: how many activations exceed their thresholds. Default: "l0" with
            "jump_relu", otherwise "l1".
        jump_relu_threshold (`float`, *optional*, defaults to 0.1):
            Initial value of the thresholds of "jump_relu".
        jump_relu_bandwidth (`float`, *optional*, defaults to 0.1):
            Width around a threshold of "jump_relu" in which activations contribute to its gradient.
        reconstruction_loss (`str`, *optional*, defaults to `"mse"`):
            "mse" (mean squared error over all entries), "nmse" (mean of ||r_i||^2 / ||u_i||^2 over embeddings) or
            "cosine" (mean of 1 - the cosine of u_i and its reconstruction).
        tied (`bool`, *optional*, defaults to `False`):
            The decoder is the transposed encoder and no parameter of its own.
        soft_cap (`float`, *optional*):
            Activations pass through cap * tanh(z / cap) after selection. Default: no cap.
        base_model_name_or_path (`str`, *optional*):
            The backbone whose embeddings the MSAE was trained on, as from_pretrained takes it.
        base_model_revision (`str`, *optional*):
            The backbone's git revision.
        hook_point (`str`, *optional*, defaults to `"image_embeds"`):
            Where in the backbone the embeddings were read: "image_embeds", "text_embeds", "vision.layers.{i}" or
            "text.layers.{i}".
        schema_version (`int`, *optional*, defaults to 1):
            Version of the checkpoint format; set by the library.

    Raises:
        ValueError: a value that cannot be, or that this version does not support, or an unknown name.
        huggingface_hub.errors.StrictDataclassError: a value of the wrong type.
    """

    model_type = "msae"
    attribute_map = {"hidden_size": "d_in"}  # noqa: RUF012 (a ClassVar of the base class)

    d_in: int = 768
    num_latents: int = 6144
    activation: ActivationName = "relu"
    nesting: Literal["topk", "prefix", "none"] = "topk"
    nesting_ks: list[int] | None = None
    nesting_widths: list[int] | None = None
    random_prefixes: int = 0
    nesting_weights: str | list[float] = "uniform"
    k: int | None = None
    sparsity_coefficient: float = 0.0
    sparsity_penalty: Literal["l1", "l0", "tanh"] | None = None
    jump_relu_threshold: float = 0.1
    jump_relu_bandwidth: float = 0.1
    reconstruction_loss: Literal["mse", "nmse", "cosine"] = "mse"
    tied: bool = False
    soft_cap: float | None = None
    base_model_name_or_path: str | None = None
    base_model_revision: str | None = None
    hook_point: str = "image_embeds"
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self, **kwargs):
        for alias, name in self.attribute_map.items():
            if alias in kwargs:
                setattr(self, name, kwargs.pop(alias))
        unknown = [key for key in kwargs if not self._is_known(key)]
        if unknown:
            raise self.unknown_keys_error(unknown)
        self._check_values()
        if self.nesting_ks is None:
            largest = FAMILIES[self.activation].largest_level(self)
            self.nesting_ks = _doubling_ks(largest) if self.nesting == "topk" else [self.num_latents]
        if self.nesting_widths is None and self.nesting == "prefix":
            widths = (self.num_latents // 2**power for power in (4, 3, 2, 1, 0))
            self.nesting_widths = [width for width in widths if width]
        if self.sparsity_penalty is None:
            self.sparsity_penalty = FAMILIES[self.activation].penalties[0]
        self._check_levels()
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Runs when a config is made or saved, and when a model is made from it: fields may have been assigned."""
        super().validate_architecture()
        self._check_values()
        self._check_levels()

    def _check_values(self) -> None:
        _check_schema_version(self.schema_version)
        for name in ("d_in", "num_latents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.k is not None and not 1 <= self.k <= self.num_latents:
            raise ValueError(f"k must be between 1 and num_latents={self.num_latents}, got {self.k}")
        if self.k is None and FAMILIES[self.activation].needs_k:
            raise ValueError(f'activation="{self.activation}" needs k, the number of activations to keep')
        penalties = FAMILIES[self.activation].penalties
        if self.sparsity_penalty is not None and self.sparsity_penalty not in penalties:
            raise ValueError(
                f'sparsity_penalty="{self.sparsity_penalty}" has no gradient with activation="{self.activation}": use '
                + " or ".join(f'"{penalty}"' for penalty in penalties)
            )
        if self.random_prefixes < 0:
            raise ValueError(f"random_prefixes must be at least 0, got {self.random_prefixes}")
        if self.nesting != "prefix" and (self.random_prefixes or self.nesting_widths is not None):
            raise ValueError('nesting_widths and random_prefixes are for nesting="prefix"')
        if self.random_prefixes and self.nesting_weights != "uniform":
            raise ValueError('random_prefixes have no weights of their own: set nesting_weights="uniform"')
        if not (math.isfinite(self.sparsity_coefficient) and self.sparsity_coefficient >= 0):
            raise ValueError(f"sparsity_coefficient must be a number of at least 0, got {self.sparsity_coefficient}")
        if self.soft_cap is not None and not (math.isfinite(self.soft_cap) and self.soft_cap > 0):
            raise ValueError(f"soft_cap must be above 0, or None for no cap; got {self.soft_cap}")
        if not _HOOK_POINT.fullmatch(self.hook_point):
            raise ValueError(
                f"hook_point={self.hook_point!r} is none of image_embeds, text_embeds, vision.layers.{{i}} and "
                "text.layers.{i}"
            )

    def _check_levels(self) -> None:
        ks = self.nesting_ks
        if self.nesting != "topk" and ks != [self.num_latents]:
            levels = "one level, the full code" if self.nesting == "none" else "levels of nesting_widths"
            raise ValueError(
                f'nesting="{self.nesting}" has {levels}, but nesting_ks={ks}; leave nesting_ks out or set '
                'nesting="topk"'
            )
        if not ks:
            raise ValueError(f"nesting_ks={ks} has no level; give at least one k, or None for 64, 128, ...")
        if any(k < 1 or k > self.num_latents for k in ks):
            raise ValueError(f"nesting_ks must lie between 1 and num_latents={self.num_latents}, got {ks}")
        if any(later <= earlier for earlier, later in pairwise(ks)):
            raise ValueError(f"nesting_ks must ascend strictly, got {ks}")

        FAMILIES[self.activation].check(self)
        widths = self.nesting_widths
        if self.nesting == "prefix":
            if not widths or widths[0] < 1 or widths[-1] != self.num_latents:
                raise ValueError(
                    f"nesting_widths must lie above 0 and end at num_latents={self.num_latents}: {widths}"
                )
            if any(later <= earlier for earlier, later in pairwise(widths)):
                raise ValueError(f"nesting_widths must ascend strictly, got {widths}")
            ks = widths

        weights = self.nesting_weights
        if isinstance(weights, str):
            if weights not in ("uniform", "reverse"):
                raise ValueError(
                    f'nesting_weights={weights!r} is neither "uniform" nor "reverse" nor a list with one weight per '
                    "level"
                )
        elif len(weights) != len(ks):
            raise ValueError(f"nesting_weights has {len(weights)} weights for {len(ks)} levels ({ks})")
        elif not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"nesting_weights must be positive numbers, got {weights}")

    @property
    def num_levels(self) -> int:
        """Number of levels L."""
        return len(self.nesting_widths if self.nesting == "prefix" else self.nesting_ks)

    @property
    def level_weights(self) -> list[float]:
        """The weight of each level in the loss, resolved: L positive numbers, not yet divided by their sum."""
        if self.nesting_weights == "uniform":
            return [1.0] * self.num_levels
        if self.nesting_weights == "reverse":
            return [float(weight) for weight in range(self.num_levels, 0, -1)]
        return list(self.nesting_weights)

    @classmethod
    def own_fields(cls) -> list[str]:
        """Names of the fields that describe an MSAE, without those that transformers adds to every config."""
        inherited = {field.name for field in fields(PreTrainedConfig)}
        return [field.name for field in fields(cls) if field.name not in inherited]

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """One line of help per own field, read from the docstring of this class."""
        doc = inspect.cleandoc(MSAEConfig.__doc__)
        entries = re.findall(r"^    (\w+) \(.*\):\n((?:        .*\n)+)", doc, flags=re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in entries}

    @classmethod
    def _is_known(cls, key: str) -> bool:
        # Names with an underscore are transformers' private ones, unless one of ours stands behind it.
        if key.startswith("_"):
            return key.lstrip("_") not in cls.own_fields()
        return key in _TRANSFORMERS_KEYS or key in cls.attribute_map or key in cls.own_fields()

    @classmethod
    def unknown_keys_error(cls, keys: Iterable[str]) -> ValueError:
        """The error for names given by a user that are neither an MSAE's nor transformers': a typo, most likely."""
        messages = []
        for key in keys:
            nearest = difflib.get_close_matches(key, cls.own_fields(), n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"its fields are {', '.join(cls.own_fields())}"
            messages.append(f"MSAEConfig has no field {key!r}; {hint}")
        return ValueError("\n".join(messages))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "MSAEConfig":
        """Loads config.json from a folder or the Hub; see [`~transformers.PreTrainedConfig.from_pretrained`].

        Keyword arguments that are fields of MSAEConfig override the file before anything is checked, so
        `nesting_ks=None` together with `num_latents=...` resolves the levels again.

        Raises:
            ValueError: a keyword argument that is neither a field nor one of transformers' own (a typo); a file
                written by a newer hf_msae; a file that holds another kind of model.
        """
        kwargs.setdefault("name_or_path", str(pretrained_model_name_or_path))  # lets messages name the file
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The contents of config.json, and the arguments that were not needed to find it.

        Raises:
            MissingConfigError: there is none. (transformers would go on with the defaults of MSAEConfig.)
        """
        config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if not config_dict:
            place = "/".join(filter(None, (str(pretrained_model_name_or_path), kwargs.get("subfolder"))))
            raise MissingConfigError(f"{place} holds no config.json, without which weights mean nothing")
        return config_dict, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> "MSAEConfig":
        """A config from the contents of config.json. Older schemas are upgraded, newer ones refused.

        A key of the file that this version does not know may come from a later version with the same schema: it is
        kept, so that saving does not lose it, and a warning names it. The same key in `kwargs` is an error: there it
        was typed by someone who expects it to do something.
        """
        source = kwargs.get("name_or_path") or config_dict.get("_name_or_path") or "the config"
        if config_dict.get("model_type", cls.model_type) != cls.model_type:
            raise ValueError(f"{source} holds a model of type {config_dict['model_type']!r}, not an MSAE")
        config_dict = _upgrade(dict(config_dict), source)

        returns_unused = kwargs.get("return_unused_kwargs", False)
        unknown = [key for key in kwargs if not cls._is_known(key) and key not in _LOADING_KEYS]
        if unknown and not returns_unused:  # else they may be meant for the model, which refuses what it cannot use
            raise cls.unknown_keys_error(unknown)
        for key in [*cls.attribute_map, *cls.own_fields()]:
            if key in kwargs:
                config_dict[key] = kwargs.pop(key)

        from_later_version = {key: config_dict.pop(key) for key in list(config_dict) if not cls._is_known(key)}
        if from_later_version:
            logger.warning(
                "config.json of %s has keys that hf_msae does not know and will not use: %s",
                source,
                ", ".join(from_later_version),
            )
        result = super().from_dict(config_dict, **kwargs)
        config = result[0] if returns_unused else result
        for key, value in from_later_version.items():
            setattr(config, key, value)
        return result

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> "MSAEConfig":
        """A config from the path of a JSON file."""
        return cls.from_dict(cls._dict_from_json_file(json_file))

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same autoencoder; what saving notes about a file (dtype, versions) is ignored."""
        if not isinstance(other, MSAEConfig):
            return NotImplemented
        mine, theirs = self.to_dict(), other.to_dict()
        for key in _BOOKKEEPING_KEYS:
            mine.pop(key, None)
            theirs.pop(key, None)
        return mine == theirs


def _doubling_ks(num_latents: int) -> list[int]:
    """64, 128, ... below num_latents, then num_latents itself: the levels of the paper."""
    ks = []
    k = _SMALLEST_K
    while k < num_latents:
        ks.append(k)
        k *= 2
    return [*ks, num_latents]


def _check_schema_version(version: Any, source: str = "this config") -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"schema_version must be an integer of at least 1, got {version!r} in {source}")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{source}, with schema_version={version}, was written by a newer hf_msae (this one knows schemas up to "
            f"{SCHEMA_VERSION}); upgrade with `pip install --upgrade hf_msae`"
        )


def _upgrade(config_dict: dict[str, Any], source: str) -> dict[str, Any]:
    """Brings the contents of an older config.json to the current schema."""
    version = config_dict.get("schema_version", SCHEMA_VERSION)
    _check_schema_version(version, source)
    for older in range(version, SCHEMA_VERSION):
        config_dict = _UPGRADES[older](config_dict)
        config_dict["schema_version"] = older + 1
    return config_dict
