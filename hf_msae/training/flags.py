"""Flags of the training commands: where data comes from, sweeps, and the fields of MSAEConfig."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, ClassVar, get_args, get_origin

from ..model.configuration_msae import MSAEConfig


@dataclass
class DataArguments:
    """Where the embeddings to train on and to evaluate on come from; see [`~hf_msae.embeddings.load_embeddings`]."""

    _argument_group_name: ClassVar[str] = "data"

    train_data: str = field(
        metadata={
            "help": "Embeddings to train on: a folder written by `hf-msae extract`, a data set folder or Hub id "
            "with an embedding column, a parquet file, or a 2-D .npy file."
        }
    )
    eval_data: str | None = field(
        default=None,
        metadata={"help": "Embeddings to evaluate on, held out from training. Without, metrics are of train_data."},
    )
    train_split: str | None = field(default=None, metadata={"help": "Split of train_data, where it has several."})
    eval_split: str | None = field(default=None, metadata={"help": "Split of eval_data, where it has several."})
    embedding_column: str | None = field(
        default=None,
        metadata={"help": "Column with the embeddings. Unset: the one named like hook_point, or the only vector one."},
    )


@dataclass
class SweepArguments:
    """Several models at once; see [`~hf_msae.training.sweep.read_sweep`]."""

    _argument_group_name: ClassVar[str] = "sweep"

    sweep: str | None = field(
        default=None,
        metadata={
            "help": "YAML file of models to train in one pass over the data: names and what each changes of the flags "
            "(wide: {num_latents: 4096}), or a grid (num_latents: [1024, 4096])."
        },
    )


def _model_arguments() -> type:
    """A dataclass with MSAEConfig's own fields but d_in, which comes from the data."""
    own, helps = {item.name: item for item in fields(MSAEConfig)}, MSAEConfig.field_help()
    specifications = []
    for name in MSAEConfig.own_fields():
        if name == "d_in":
            continue
        kind, default = own[name].type, own[name].default
        specification = field(default=default, metadata={"help": helps[name].replace("%", "%%")})
        if any(get_origin(member) is list for member in get_args(kind)) and type(None) not in get_args(kind):
            # HfArgumentParser would make None of `str | list[float]`, silently.
            kind = list[str]
            specification = field(default_factory=lambda value=default: [value], metadata=specification.metadata)
        specifications.append((name, kind, specification))
    made = make_dataclass("ModelArguments", specifications, namespace={"_argument_group_name": "model (MSAEConfig)"})
    made.__doc__ = "MSAEConfig's own fields as flags."
    made.__module__ = __name__
    return made


ModelArguments = _model_arguments()


def build_config(arguments: Any, d_in: int) -> MSAEConfig:
    """The config that parsed `ModelArguments` and the data's width describe.

    Raises:
        ValueError: what MSAEConfig refuses.
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
