"""Flags of the training commands: where data comes from, sweeps, and the fields of MSAEConfig."""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_origin

from .._utils.argument_parser import flag
from ..model.config_fields import MSAEConfigFields

if TYPE_CHECKING:
    from ..model.configuration_msae import MSAEConfig


@dataclass
class DataArguments:
    """Embeddings to train and evaluate on; see [`~hf_msae.embeddings.load_embeddings`]."""

    _argument_group_name: ClassVar[str] = "data"

    train_data: str = flag(
        "Embeddings to train on: a folder written by `hf-msae extract`, a dataset folder or Hub id with an embedding "
        "column, a parquet file, or a 2-D .npy file."
    )
    eval_data: str | None = flag("Held-out embeddings to evaluate on. Defaults to train_data.", None)
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    eval_split: str | None = flag("Split of eval_data, if it has several.", None)
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Defaults to the one named like hook_point, or the only column of vectors.",
        None,
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)

    def __post_init__(self):
        if self.eval_split is not None and self.eval_data is None:
            raise ValueError(
                "eval_split is of eval_data, which is missing: name the data too, even if it is train_data"
            )


@dataclass
class SweepArguments:
    """Several models at once; see [`~hf_msae.training.sweep.read_sweep`]."""

    _argument_group_name: ClassVar[str] = "sweep"

    sweep: str | None = flag(
        "YAML file of models to train in one pass over the data: names and the flags that each changes (wide: "
        "{num_latents: 4096}), or a grid (num_latents: [1024, 4096]).",
        None,
    )


def _model_arguments() -> type:
    """Make a dataclass of MSAEConfig's own fields but d_in, which comes from the data."""
    helps = MSAEConfigFields.field_help()
    specifications = []
    for item in fields(MSAEConfigFields):
        name, kind, default = item.name, item.type, item.default
        if name == "d_in":
            continue
        if any(get_origin(member) is list for member in get_args(kind)) and type(None) not in get_args(kind):
            kind, default = list[str], [default]  # HfArgumentParser would make None of `str | list[float]`, silently
        specifications.append((name, kind, flag(helps[name].replace("%", "%%"), default)))
    made = make_dataclass("ModelArguments", specifications, namespace={"_argument_group_name": "model (MSAEConfig)"})
    made.__doc__ = "MSAEConfig's own fields as flags."
    made.__module__ = __name__
    return made


ModelArguments = _model_arguments()


def parse_weights(words: list[str]) -> str | list[float]:
    """Return the words of --nesting_weights as numbers, or the one word that is not a number."""
    try:
        return [float(word) for word in words]
    except ValueError:
        if len(words) == 1:
            return words[0]
        raise ValueError(f"--nesting_weights is {' '.join(words)}, not uniform, reverse or numbers") from None


def build_config(arguments: Any, d_in: int) -> MSAEConfig:
    """Create the config from parsed `ModelArguments` and the width of the data."""
    from ..model.configuration_msae import MSAEConfig

    values = {item.name: getattr(arguments, item.name) for item in fields(arguments)}
    values["nesting_weights"] = parse_weights(values["nesting_weights"])
    return MSAEConfig(d_in=d_in, **values)
