"""The parser of the command line: flags from dataclasses, YAML files of flags, and errors of one line."""

from __future__ import annotations

import difflib
import os
import sys
import time
import warnings
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from huggingface_hub.errors import HTTPError
from transformers import HfArgumentParser

from .deprecation import warn_renamed
from .quiet import hide_library_lines, hide_progress_bars
from .threads import fit_threads_to_cores


def flag(help: str, default: Any = MISSING, aliases: Sequence[str] = ()) -> Any:
    """A dataclass field that [`MSAEArgumentParser`] turns into a flag, which is required without a `default`.

    A list as default is copied for each instance; `aliases` are names of the flag in the last release, "--old_name".
    """
    metadata = {"help": help, "aliases": tuple(aliases)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Shows the default of a flag after its help, or that it is required."""

    def _get_help_string(self, action: Action) -> str:
        if action.default in (None, []) or action.nargs == 0:
            return f"{action.help} (required)" if action.required else action.help
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{action.help} [{str(default).replace('%', '%%')}]"


_SECONDS_FOR_THE_LAUNCHER = 10


def _wait_for_the_launcher() -> None:
    """Let the launcher end this process, which it does where another one has failed."""
    time.sleep(_SECONDS_FOR_THE_LAUNCHER)


def _let_the_main_process_speak() -> None:
    """Wait before an error in another process than the main one, whose error ends it if both have the same."""
    ranks = {"-1", "0", ""}  # of the main process, or of one that no launcher has started
    if os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("LOCAL_RANK", "0") not in ranks:
        _wait_for_the_launcher()


def _show_renamed(old: str, new: str) -> None:
    """Warn that a flag is renamed, although Python hides a DeprecationWarning from users of commands."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DeprecationWarning)
        warn_renamed(old, new)


class MSAEArgumentParser(HfArgumentParser):
    """An `HfArgumentParser` with `--config file.yaml`, without abbreviations, and with errors of one line.

    The command line overrides the file, and the file the defaults. Values in the file are converted like those of the
    command line, so that 1e-4, which YAML reads as a string, becomes a float. A key that is not a flag is an error.

    The fields of the dataclasses become flags; their `metadata["aliases"]` still work, with a DeprecationWarning. The
    fields in `first_words` may also be given as the first arguments, without their flags. `example` is a command that
    works, shown last in --help.
    """

    def __init__(
        self,
        dataclass_types: Sequence[type],
        description: str,
        example: str,
        prog: str | None = None,
        first_words: Sequence[str] = (),
    ):
        words = "".join(f"{name.upper()} " for name in first_words)
        super().__init__(
            dataclass_types,
            prog=prog,
            usage=f"%(prog)s {words}[--config FILE.yaml] [--flag value ...]",
            description=description,
            epilog=f"example:\n{example}",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.add_argument("--config", metavar="FILE.yaml", help="YAML file of flags; the command line overrides it.")
        self._new_names = {
            old.removeprefix("--"): field.name
            for kind in self.dataclass_types
            for field in fields(kind)
            for old in field.metadata.get("aliases", ())
        }
        for action in self._actions:
            if action.dest != "help":
                action.option_strings = action.option_strings[:1]  # the spelling for help and errors; all are parsed
            for name, place in zip(first_words, ("first", "second"), strict=False):
                if action.dest == name:
                    action.help += f" Can also be given as the {place} argument, without the flag."
            # For a flag that is on by default, HfArgumentParser also makes --no_flag, with the same help.
            if action.option_strings[0] == f"--no_{action.dest}":
                action.help = f"Turn off --{action.dest}."
                self._new_names |= {
                    f"no_{old}": f"no_{new}" for old, new in self._new_names.items() if new == action.dest
                }
        self.context = ""  # the beginning of error messages
        self.kept_in: str | None = None  # the folder from which a command that was interrupted goes on
        self._cleared: list[str] = []  # flags that are None, whatever the command line says
        self.first_words = first_words

    def parse(self, argv: Sequence[str] | None = None, overriding: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """Return one instance of each dataclass. Invalid input ends the process with exit code 2 and one line.

        `overriding` holds values by flag, like a file, but they outrank the command line; errors about them begin with
        `context`.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        for place, name in enumerate(self.first_words[: len(argv)]):
            if argv[place].startswith("-"):
                break
            argv[place] = f"--{name}={argv[place]}"
        argv = [self._renamed(word) for word in argv]
        self._refuse_unknown_flags(argv)
        file_parser = ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False)
        file_parser.add_argument("--config", type=Path)
        file = file_parser.parse_known_args(argv)[0].config
        if file is not None:
            argv = [*self._arguments_in(file), *argv]
        given, overriding = self.context.rstrip(": "), dict(overriding or {})
        self._cleared = [key for key, value in overriding.items() if value is None]
        for key in self._cleared:
            self._check_optional(given, key)
            del overriding[key]
        argv += self.as_command_line(overriding, given)
        try:
            *parsed, _, unknown = self.parse_args_into_dataclasses(
                argv, return_remaining_strings=True, look_for_args_file=False
            )
        except ValueError as error:  # from a dataclass that checks its fields
            self.error(str(error))
        if unknown:
            # The second of the files that the shell put in place of a pattern; a Path would refuse long texts.
            if os.path.exists(unknown[0]):
                quote = "put a pattern such as 'shards/*.tar' in quotes, or the shell replaces it by names of files"
                self.error(f"unknown argument {unknown[0]}, which is a file or folder: {quote}")
            self._refuse(unknown[0])
        is_terminal = sys.stderr.isatty()
        for arguments in parsed:
            if hasattr(arguments, "disable_tqdm"):
                arguments.disable_tqdm = arguments.disable_tqdm or not is_terminal
        if not is_terminal or any(getattr(arguments, "disable_tqdm", False) for arguments in parsed):
            hide_progress_bars()
        if not is_terminal:
            hide_library_lines()
        fit_threads_to_cores()  # torch is imported after the flags are read
        return tuple(parsed)

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Parse as argparse does; flags that `overriding` sets to None are None before the dataclasses see them."""
        namespace, unknown = super().parse_known_args(args, namespace)
        vars(namespace).update(dict.fromkeys(self._cleared))
        return namespace, unknown

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process as argparse does, but show one error, not one for each process that a launcher started."""
        if status:
            _let_the_main_process_speak()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        """Show the message without the usage, and end the process."""
        context = "" if self.context and message.startswith(self.context.rstrip(": ")) else self.context
        self.exit(2, f"{self.prog}: error: {context}{message}\n(--help explains every flag)\n")

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """End the process with exit code 1 and only the message of an error that input causes inside the block.

        Ctrl-C ends it with exit code 130 and one line, which says where the work is kept if `kept_in` is set.

        Warnings inside the block are lines of their own, without the place in the code.
        """
        formatted = warnings.formatwarning
        warnings.formatwarning = lambda message, *_, **__: f"{self.prog}: warning: {message}\n"
        try:
            yield
        except KeyboardInterrupt:
            if os.environ.get("LOCAL_RANK", "0") != "0":  # the launcher has passed Ctrl-C on to all processes
                super().exit(130)
            kept = f"; what is finished is kept in {self.kept_in}, and the same command goes on from there"
            super().exit(130, f"\n{self.prog}: interrupted{kept if self.kept_in else ''}\n")
        except BrokenPipeError:  # nobody reads the output any more: no error of the input
            raise
        except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
            self.exit(1, f"{self.prog}: error: {self.context}{error}\n")
        except HTTPError as error:  # one that huggingface_hub passes on, such as a proxy's refusal
            way_out = "check the network and HTTPS_PROXY, or set HF_HUB_OFFLINE=1 to use what is in the cache"
            problem = f"the Hub cannot be reached ({type(error).__name__}: {error}): {way_out}"
            self.exit(1, f"{self.prog}: error: {self.context}{problem}\n")
        except Exception as error:
            if "gloo/transport" in str(error):  # so processes are told that one they wait for has failed
                _wait_for_the_launcher()
                super().exit(
                    1, f"{self.prog}: error: another process has ended: it was killed, or its error is above\n"
                )
            _let_the_main_process_speak()
            raise
        finally:
            warnings.formatwarning = formatted

    def _arguments_in(self, file: Path) -> list[str]:
        """Return the content of a YAML file as command line arguments."""
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            self.error(f"cannot read --config {file}: {error.strerror}")
        except yaml.YAMLError as error:
            self.error(f"{file} is not valid YAML: {' '.join(str(error).split())}")
        if not isinstance(values, dict):
            self.error(f"{file} must hold 'flag: value' lines, but holds a {type(values).__name__}")
        return self.as_command_line(values, file)

    def as_command_line(self, values: Mapping[str, Any], file: Any) -> list[str]:
        """Return flags and their values as command line arguments; errors name `file`."""
        flags = {action.dest: action for action in self._actions if action.dest not in ("help", "config")}
        arguments = []
        for key, value in values.items():
            if key in self._new_names:
                _show_renamed(f"{file}: {key}", self._new_names[key])
                key = self._new_names[key]
            if key not in flags:
                self.error(f"{file}: unknown key {key!r}{self._nearest(str(key))}")
            if value is None:
                self._check_optional(file, key)
                flags[key].default = None
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

    def _renamed(self, word: str) -> str:
        """Replace the old name of a flag, with a warning."""
        flag, equals, value = word.partition("=")
        old = flag.removeprefix("--")
        if not flag.startswith("--") or old not in self._new_names:
            return word
        _show_renamed(flag, f"--{self._new_names[old]}")
        return f"--{self._new_names[old]}{equals}{value}"

    def _refuse_unknown_flags(self, argv: Sequence[str]) -> None:
        """Refuse a mistyped flag before argparse and the dataclasses can miss the flag that was meant."""
        if {"-h", "--help"} & set(argv):
            return
        for word in argv:
            flag = word.partition("=")[0]
            looks_like_flag = flag.startswith("-") and flag.lstrip("-")[:1].isalpha() and " " not in flag
            if looks_like_flag and flag not in self._option_string_actions:
                self._refuse(flag)

    def _refuse(self, argument: str) -> NoReturn:
        flag = argument.split("=")[0]
        self.error(f"unknown argument {flag}{self._nearest(flag.lstrip('-').replace('-', '_'), '--')}")

    def _check_optional(self, file: Any, key: str) -> None:
        for kind in self.dataclass_types:
            annotation = get_type_hints(kind).get(key)
            if annotation is not None and type(None) not in get_args(annotation):
                self.error(f"{file}: {key} is null, but needs a value: leave the line out for the default")

    def _word(self, file: Path, key: str) -> Callable[[Any], str]:
        def word(value: Any) -> str:
            if isinstance(value, (str, bool, int, float)):
                return str(value)
            self.error(f"{file}: {key} holds {value!r}, but values must be words or numbers")

        return word

    def _nearest(self, name: str, prefix: str = "") -> str:
        known = [action.dest for action in self._actions]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
