"""Flags of the training commands: where data comes from, sweeps, and the fields of MSAEConfig."""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from typing import Any, ClassVar, get_args, get_origin

from .._utils.argument_parser import flag
from ..model.configuration_msae import MSAEConfig


@dataclass
class DataArguments:
    """Embeddings to train and evaluate on; see [`~hf_msae.embeddings.load_embeddings`]."""

    _argument_group_name: ClassVar[str] = "data"

    train_data: str = flag(
        "Embeddings to train on: a folder written by `hf-msae extract`, a data set folder or Hub id with an embedding "
        "column, a parquet file, or a 2-D .npy file."
    )
    eval_data: str | None = flag("Held-out embeddings to evaluate on. Unset: train_data.", None)
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    eval_split: str | None = flag("Split of eval_data, if it has several.", None)
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Unset: the one named like hook_point, or the only column of vectors.", None
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
    own, helps = {item.name: item for item in fields(MSAEConfig)}, MSAEConfig.field_help()
    specifications = []
    for name in MSAEConfig.own_fields():
        if name == "d_in":
            continue
        kind, default = own[name].type, own[name].default
        if any(get_origin(member) is list for member in get_args(kind)) and type(None) not in get_args(kind):
            kind, default = list[str], [default]  # HfArgumentParser would make None of `str | list[float]`, silently
        specifications.append((name, kind, flag(helps[name].replace("%", "%%"), default)))
    made = make_dataclass("ModelArguments", specifications, namespace={"_argument_group_name": "model (MSAEConfig)"})
    made.__doc__ = "MSAEConfig's own fields as flags."
    made.__module__ = __name__
    return made


ModelArguments = _model_arguments()


def build_config(arguments: Any, d_in: int) -> MSAEConfig:
    """Create the config from parsed `ModelArguments` and the width of the data.

    Raises:
        ValueError: MSAEConfig refuses a value.
    """
    values = {item.name: getattr(arguments, item.name) for item in fields(arguments)}
    weights = values["nesting_weights"]
    try:
        values["nesting_weights"] = [float(weight) for weight in weights]
    except ValueError:
        if len(weights) != 1:
            raise ValueError(
                f"nesting_weights is {' '.join(weights)}: give uniform, reverse, or one number per level"
            ) from None
        values["nesting_weights"] = weights[0]
    return MSAEConfig(d_in=d_in, **values)
