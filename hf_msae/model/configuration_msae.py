"""MSAEConfig: the settings that define an MSAE, as stored in config.json."""

import difflib
import logging
import os
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .activations import FAMILIES
from .checks import check_dtype, check_levels, check_schema_version, check_settings
from .config_fields import SCHEMA_VERSION, MSAEConfigFields
from .config_file import MissingConfigError, as_json_would, read_config

logger = logging.getLogger(__name__)

# What transformers passes to a config or writes into config.json, apart from the fields of PreTrainedConfig.
_TRANSFORMERS_KEYS = {
    *(field.name for field in fields(PreTrainedConfig)),
    *("model_type", "name_or_path", "num_labels", "torch_dtype", "auto_map", "quantization_config"),
    *("attn_implementation", "experts_implementation", "output_attentions", "per_layer_config", "fusion_config"),
    *("transformers_weights", "tie_word_embeddings", "distributed_config"),
}
# Arguments of from_dict that are for transformers and not for the config.
_LOADING_KEYS = {"return_unused_kwargs", "gguf_file", "trust_remote_code", "code_revision", "adapter_kwargs"}
# Written by save_pretrained about a file, not about the autoencoder.
_BOOKKEEPING_KEYS = {"architectures", "dtype", "transformers_version", "_name_or_path"}


@as_json_would
@strict
class MSAEConfig(MSAEConfigFields, PreTrainedConfig):  # noqa: D101 (see the next line)
    __doc__ = MSAEConfigFields.__doc__

    model_type = "msae"
    attribute_map = {"hidden_size": "d_in"}  # noqa: RUF012 (a ClassVar of the base class)

    def __post_init__(self, **kwargs):
        for alias, name in self.attribute_map.items():
            if alias in kwargs:
                setattr(self, name, kwargs.pop(alias))
        if unknown := [key for key in kwargs if not self._is_known(key)]:
            raise self.unknown_keys_error(unknown)
        check_settings(self, SCHEMA_VERSION)
        if self.nesting_ks is None:
            largest = FAMILIES[self.activation].largest_level(self)
            self.nesting_ks = _doubling_ks(largest) if self.nesting == "topk" else [self.num_latents]
        if self.nesting_widths is None and self.nesting == "prefix":
            self.nesting_widths = [width for part in (16, 8, 4, 2, 1) if (width := self.num_latents // part)]
        if self.sparsity_penalty is None:
            self.sparsity_penalty = FAMILIES[self.activation].penalties[0]
        check_levels(self)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check all values again, since fields may have been assigned; called when a config is saved or used."""
        super().validate_architecture()
        check_settings(self, SCHEMA_VERSION)
        check_levels(self)

    @property
    def num_levels(self) -> int:
        """Number of levels L."""
        return len(self.nesting_widths if self.nesting == "prefix" else self.nesting_ks)

    @property
    def level_weights(self) -> list[float]:
        """Weight of each level in the loss: L positive numbers, not yet divided by their sum."""
        if self.nesting_weights == "uniform":
            return [1.0] * self.num_levels
        if self.nesting_weights == "reverse":
            return [float(weight) for weight in range(self.num_levels, 0, -1)]
        return list(self.nesting_weights)

    @classmethod
    def own_fields(cls) -> list[str]:
        """Return the names of the fields that describe an MSAE, without those of every transformers config."""
        inherited = {field.name for field in fields(PreTrainedConfig)}
        return [field.name for field in fields(cls) if field.name not in inherited]

    @classmethod
    def _is_known(cls, key: str) -> bool:
        # Names with a leading underscore are transformers' private ones, unless they hide one of ours.
        if key.startswith("_"):
            return key.lstrip("_") not in cls.own_fields()
        return key in _TRANSFORMERS_KEYS or key in cls.attribute_map or key in cls.own_fields()

    @classmethod
    def unknown_keys_error(cls, keys: Iterable[str]) -> ValueError:
        """Return the error for names that are fields neither of an MSAE nor of transformers, most likely typos."""
        messages = []
        for key in keys:
            nearest = difflib.get_close_matches(key, cls.own_fields(), n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"its fields are {', '.join(cls.own_fields())}"
            messages.append(f"MSAEConfig has no field {key!r}; {hint}")
        return ValueError("\n".join(messages))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "MSAEConfig":
        """Load config.json from a folder or the Hub; see [`~transformers.PreTrainedConfig.from_pretrained`].

        Keyword arguments that are fields of MSAEConfig override the file before anything is checked, so
        `nesting_ks=None` together with `num_latents=...` resolves the levels again.

        Raises:
            ValueError: A keyword argument is unknown, a field of the file has a wrong type or value, or the file is
                from a newer hf_msae or for another model.
        """
        kwargs.setdefault("name_or_path", str(pretrained_model_name_or_path))  # lets messages name the file
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> tuple[dict, dict]:
        """Return the content of config.json, and the arguments that were not needed to find it.

        Raises:
            MissingConfigError: There is no config.json, or it holds no settings. (transformers would use the defaults
                of MSAEConfig.)
        """
        place = "/".join(filter(None, (str(pretrained_model_name_or_path), kwargs.get("subfolder"))))
        try:
            config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except (AttributeError, TypeError):  # it does not map names to values
            config_dict = None
        if not (isinstance(config_dict, dict) and config_dict):
            raise MissingConfigError(
                f"{place} has no config.json with settings, without which the weights cannot be loaded"
            )
        return config_dict, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> "MSAEConfig":
        """Create a config from the content of config.json.

        An unknown key of the file may come from a later version with the same schema: it is kept for saving, and a
        warning names it. An unknown key in `kwargs` is an error, since a user expects it to have an effect.
        """
        source = f"{kwargs.get('name_or_path') or config_dict.get('_name_or_path') or '.'}/config.json"
        if config_dict.get("model_type", cls.model_type) != cls.model_type:
            raise ValueError(f"{source}: model_type is {config_dict['model_type']!r}, not 'msae', so this is no MSAE")
        check_schema_version(config_dict.get("schema_version", SCHEMA_VERSION), SCHEMA_VERSION, source)
        check_dtype(config_dict.get("dtype", config_dict.get("torch_dtype")), source)
        config_dict = dict(config_dict)

        returns_unused = kwargs.get("return_unused_kwargs", False)
        unknown = [key for key in kwargs if not cls._is_known(key) and key not in _LOADING_KEYS]
        if unknown and not returns_unused:  # else they may be for the model, which refuses what it cannot use
            raise cls.unknown_keys_error(unknown)
        overrides = kwargs.keys() & {*cls.attribute_map, *cls.own_fields()}
        config_dict |= {key: kwargs.pop(key) for key in overrides}
        from_later_version = {key: config_dict.pop(key) for key in list(config_dict) if not cls._is_known(key)}
        if from_later_version:
            names = ", ".join(from_later_version)
            logger.warning("%s has keys that this hf_msae does not know and ignores: %s", source, names)
        make = super().from_dict
        result = read_config(lambda: make(config_dict, **kwargs), source)
        config = result[0] if returns_unused else result
        for key, value in from_later_version.items():
            setattr(config, key, value)
        return result

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> "MSAEConfig":
        """Create a config from a JSON file."""
        return cls.from_dict(cls._dict_from_json_file(json_file))

    def __eq__(self, other: object) -> bool:
        """Compare the autoencoders that two configs describe, not what saving notes about files (dtype, versions)."""
        if not isinstance(other, MSAEConfig):
            return NotImplemented
        mine, theirs = self.to_dict(), other.to_dict()
        return all(mine.get(key) == theirs.get(key) for key in (mine | theirs).keys() - _BOOKKEEPING_KEYS)


def _doubling_ks(largest: int) -> list[int]:
    """64, 128, ... below the largest k, then this itself: the levels of the paper."""
    doubling = (64 * 2**level for level in range(largest.bit_length()))
    return [*(k for k in doubling if k < largest), largest]
