"""Command lines of the training scripts: flags made from dataclasses and from MSAEConfig, and YAML files for both."""

from __future__ import annotations

import difflib
import sys
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from ..model.configuration_msae import MSAEConfig


@dataclass
class DataArguments:
    """Where the embeddings to train on and to evaluate on come from; see [`~hf_msae.embeddings.load_embeddings`]."""

    _argument_group_name: ClassVar[str] = "data"

    train_data: str = field(
        metadata={
            "help": "Embeddings to train on: a folder written by extract_activations.py, a data set folder or Hub id "
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
    """
    The config that parsed `ModelArguments` and the data's width describe.

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


class _HelpFormatter(RawDescriptionHelpFormatter):
    """One spelling per flag, and defaults only where there is one."""

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: Action) -> str:
        if action.default is None or action.nargs == 0:
            return f"{action.help} (required)" if action.required else action.help
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{action.help} [{str(default).replace('%', '%%')}]"


class MSAEArgumentParser(HfArgumentParser):
    """
    An `HfArgumentParser` with `--config file.yaml`, without abbreviations, and with errors of one line.

    The command line beats the file, the file beats the defaults. Values in the file pass through the very conversion
    that the command line's do: 1e-4, which YAML reads as a string, becomes a float. A key that is no flag is an error.

    Args:
        dataclass_types: dataclasses whose fields become flags.
        description: first lines of --help.
        example: a command that works, shown last in --help.
        prog: the command's name; by default the script's.
        first_word: a field that may also be given as the first word, without its flag.
    """

    def __init__(
        self,
        dataclass_types: Sequence[type],
        description: str,
        example: str,
        prog: str | None = None,
        first_word: str | None = None,
    ):
        word = f"{first_word.upper()} " if first_word else ""
        super().__init__(
            dataclass_types,
            prog=prog,
            usage=f"%(prog)s {word}[--config FILE.yaml] [--flag value ...]",
            description=description,
            epilog=f"example:\n{example}",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.add_argument("--config", metavar="FILE.yaml", help="YAML file of flags; the command line beats it.")
        self.context = ""  # what error messages begin with
        self.first_word = first_word

    def parse(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """
        One instance of each dataclass. Bad input ends the process with exit code 2 and one line that names it.

        Args:
            argv: the arguments; by default those of the process.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        if self.first_word and argv and not argv[0].startswith("-"):
            argv[0] = f"--{self.first_word}={argv[0]}"
        file_parser = ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False)
        file_parser.add_argument("--config", type=Path)
        file = file_parser.parse_known_args(argv)[0].config
        if file is not None:
            argv = [*self._arguments_in(file), *argv]
        try:
            *parsed, _, unknown = self.parse_args_into_dataclasses(
                argv, return_remaining_strings=True, look_for_args_file=False
            )
        except ValueError as error:  # from a dataclass that checks its fields
            self.error(str(error))
        if unknown:
            flag = unknown[0].split("=")[0]
            self.error(f"unknown argument {flag}{self._nearest(flag.lstrip('-').replace('-', '_'), '--')}")
        return tuple(parsed)

    def error(self, message: str) -> NoReturn:
        """As argparse's, without a screenful of usage before the message."""
        self.exit(2, f"{self.prog}: error: {self.context}{message}\n(--help explains every flag)\n")

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Within this context errors that input causes end the process with exit code 1 and their message alone."""
        try:
            yield
        except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
            self.exit(1, f"{self.prog}: error: {self.context}{error}\n")

    def _arguments_in(self, file: Path) -> list[str]:
        """A YAML file's contents as command line arguments."""
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            self.error(f"cannot read --config {file}: {error.strerror}")
        except yaml.YAMLError as error:
            self.error(f"{file} is not valid YAML: {' '.join(str(error).split())}")
        if not isinstance(values, dict):
            self.error(f"{file} has to hold 'flag: value' lines, but holds {type(values).__name__}")
        return self.as_command_line(values, file)

    def as_command_line(self, values: Mapping[str, Any], file: Any) -> list[str]:
        """Flags and their values as command line arguments; `file` is what errors name."""
        flags = {action.dest: action for action in self._actions if action.dest not in ("help", "config")}
        arguments = []
        for key, value in values.items():
            if key not in flags:
                self.error(f"{file}: unknown key {key!r}{self._nearest(str(key))}")
            if value is None:
                self._set_to_none(file, key, flags[key])
            elif isinstance(value, (list, tuple)):
                if flags[key].nargs != "+" or not value:
                    self.error(
                        f"{file}: {key} is {value!r}, but takes {'one or more values' if not value else 'one value'}"
                    )
                arguments += [f"--{key}", *map(self._word(file, key), value)]
            elif value is False and "no" in (flags[key].choices or ()):
                arguments.append(f"--{key}=no")  # YAML 1.1 reads a bare `no` as false
            else:
                arguments.append(f"--{key}={self._word(file, key)(value)}")
        return arguments

    def _set_to_none(self, file: Path, key: str, action: Action) -> None:
        for kind in self.dataclass_types:
            annotation = get_type_hints(kind).get(key)
            if annotation is not None and type(None) not in get_args(annotation):
                self.error(f"{file}: {key} is null, but needs a value; leave the line out for the default")
        action.default = None

    def _word(self, file: Path, key: str) -> Callable[[Any], str]:
        def word(value: Any) -> str:
            if isinstance(value, (str, bool, int, float)):
                return str(value)
            self.error(f"{file}: {key} holds {value!r}, but values have to be words or numbers")

        return word

    def _nearest(self, name: str, prefix: str = "") -> str:
        known = [action.dest for action in self._actions]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
