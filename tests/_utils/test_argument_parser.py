"""Errors of the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from hf_msae._utils.argument_parser import MSAEArgumentParser, flag


@dataclass
class _Arguments:
    output_dir: str = flag("Where to write.")
    words: list[str] = flag("Words.", [])
    least: float = flag("A number.", 0.0)

    def __post_init__(self):
        if not self.words:
            raise ValueError("no words")


@pytest.fixture
def parser():
    return MSAEArgumentParser([_Arguments], "It writes.", "it --output_dir a", prog="it")


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--outputdir", "a", "--words", "b"], "--outputdir; did you mean --output_dir?"),  # a flag is missing too
        (["-output_dir=my folder"], "-output_dir; did you mean --output_dir?"),
        (["--output_dir", "a", "--wrods", "b"], "--wrods; did you mean --words?"),  # the dataclass refuses too
        (["--words", "b", "--zzz"], "--zzz\n"),
    ],
)
def test_a_mistyped_flag_is_named_before_what_is_missing(parser, argv, named, capsys):
    with pytest.raises(SystemExit) as exit:
        parser.parse(argv)
    message = capsys.readouterr().err
    assert exit.value.code == 2 and f"unknown argument {named}" in message and "required" not in message


def test_what_is_not_a_flag_is_not_taken_for_one(parser):
    argv = ["--output-dir=--a", "--least", "-1.5", "--words", "a b", "--a photo of", "-"]
    (args,) = parser.parse(argv)
    assert (args.output_dir, args.least, args.words) == ("--a", -1.5, ["a b", "--a photo of", "-"])


def test_help_is_shown_in_spite_of_a_mistyped_flag(parser, capsys):
    with pytest.raises(SystemExit) as exit:
        parser.parse(["--outputdir", "a", "--help"])
    assert exit.value.code == 0 and "--output_dir" in capsys.readouterr().out


class _Ended(BaseException):
    """What the launcher does to a process while it waits."""


def _refuse(error):
    def run(parser):
        with parser.reporting_errors():
            raise error

    return run


CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:21377")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (lambda parser: parser.parse(["--wrods", "b"]), "unknown argument --wrods"),
        (_refuse(ValueError("no rows")), "it: error: no rows"),
        (_refuse(KeyError("a bug")), ""),
    ],
)
def test_an_error_of_all_processes_is_told_by_the_main_one(parser, run, told, monkeypatch, capsys):
    def end():
        raise _Ended

    monkeypatch.setattr("hf_msae._utils.argument_parser._wait_for_the_launcher", end)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(_Ended):
        run(parser)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises((SystemExit, KeyError)):
        run(parser)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "size"), [("1", "1"), ("1", None), ("-1", "2"), ("", "2")])
def test_a_process_without_a_launcher_does_not_wait_for_one(parser, rank, size, monkeypatch, capsys):
    monkeypatch.setattr("hf_msae._utils.argument_parser._wait_for_the_launcher", lambda: pytest.fail("it waits"))
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(SystemExit):
        parser.parse(["--wrods", "b"])
    assert "unknown argument --wrods" in capsys.readouterr().err


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_another_one_has_left_says_so_in_one_line(parser, rank, monkeypatch, capsys):
    waits = []
    monkeypatch.setattr("hf_msae._utils.argument_parser._wait_for_the_launcher", lambda: waits.append(rank))
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as exit:
        _refuse(CLOSED)(parser)
    message = capsys.readouterr().err
    assert exit.value.code == 1 and waits and message.count("\n") == 1 and "another process has ended" in message


def test_files_that_a_pattern_without_quotes_became_are_refused_with_advice(parser, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.tar", "b.tar")]
    for file in files:
        file.touch()
    with pytest.raises(SystemExit):
        parser.parse(["--words", "a", "--output_dir", *map(str, files)])
    assert re.search(rf"{files[1]}.*in quotes", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["a" * 300, ""])
def test_what_cannot_be_a_file_is_an_unknown_argument_like_any_other(parser, text, capsys):
    with pytest.raises(SystemExit):
        parser.parse(["--words", "a", "--output_dir", "o", text])
    message = capsys.readouterr().err
    assert f"error: unknown argument {text}" in message and "file or folder" not in message


@pytest.mark.parametrize(
    ("rank", "kept_in", "told"),
    [
        ("0", None, "\nprogram: interrupted\n"),
        (
            "0",
            "out",
            "\nprogram: interrupted; what is finished is kept in out, and the same command goes on from there\n",
        ),
        ("1", "out", ""),
    ],
)
def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(parser, rank, kept_in, told, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", rank)
    parser.prog, parser.kept_in = "program", kept_in
    with pytest.raises(SystemExit) as ended, parser.reporting_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capsys.readouterr().err == told
