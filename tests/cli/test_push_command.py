"""`hf-msae push`."""

import json

import pytest

from hf_msae import MSAEModel
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.cli.push import PushArguments, main
from tests.hub.conftest import KEY, _made_run, at_hub, hub, run_folder  # noqa: F401


def test_a_run_is_published_and_how_to_load_it_is_said(at_hub, run_folder, capsys):  # noqa: F811
    main([str(run_folder), "tester/msae", "--private", "--license", "mit"])
    printed = capsys.readouterr().out
    repo = at_hub.repos[KEY]
    assert repo.private and "license: mit" in repo.files()["README.md"].decode()
    assert f"{at_hub.url}/tester/msae" in printed and "model.safetensors" in printed
    assert 'AutoModel.from_pretrained("tester/msae")' in printed


@pytest.mark.parametrize(("flags", "expected"), [([], None), (["--private"], True)])
def test_without_private_the_organization_decides(flags, expected, tmp_path, monkeypatch):
    given = {}

    def push(folder, repo, **options):
        given.update(options)
        raise ValueError("stop here")

    monkeypatch.setattr("hf_msae.hub.publishing.release.push_to_hub", push)
    with pytest.raises(SystemExit):
        main([str(tmp_path), "organization/msae", *flags])
    assert given["private"] is expected  # False would make the repository public


def test_flags_may_have_dashes_and_the_folder_of_a_dry_run_loads_as_it_says(at_hub, run_folder, tmp_path, capsys):  # noqa: F811
    (run_folder / "metrics.json").unlink()
    words = ["--dry-run", str(tmp_path / "dry"), "--allow-unmeasured", "--subfolder=vision.layers.11"]
    main([str(run_folder), "tester/msae", *words])
    printed = capsys.readouterr().out
    assert "tester/msae" in printed and not at_hub.requests
    namespace = {}
    exec(printed[printed.index("import hf_msae") :], namespace)
    assert isinstance(namespace["msae"], MSAEModel)
    assert "vision.layers.11" in json.loads((tmp_path / "dry" / "msae_index.json").read_text())["models"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("RUN a/b", {}),
        ("RUN a/b --dry-run", {"dry_run": ""}),
        ("RUN --repo a/b --dry_run DIR --private", {"dry_run": "DIR", "private": True}),
        ("--folder RUN --repo a/b --tags x y", {"tags": ["x", "y"]}),
        ("RUN a/b --private false --create-pr --license=mit", {"create_pr": True, "license": "mit"}),
    ],
)
def test_folder_and_repository_may_come_first_without_their_flags(words, expected):
    parser = MSAEArgumentParser([PushArguments], "", "", first_words=["folder", "repo"])
    (found,) = parser.parse(words.split())
    assert found == PushArguments(folder="RUN", repo="a/b", **expected)


def test_a_dry_run_without_a_name_is_written_beside_the_run(at_hub, run_folder, capsys):  # noqa: F811
    main([str(run_folder), "tester/msae", "--dry-run"])
    assert (run_folder.parent / "my-msae-release" / "README.md").is_file() and not at_hub.requests
    assert str(run_folder.parent / "my-msae-release") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "tester/msae"], "nowhere"),
        (["nowhere"], "repo"),
        (["nowhere", "msae"], "user/name"),
        (["nowhere", "tester/msae", "--replace-card", "mine"], "mine"),
        (["nowhere", "tester/msae", "--privat"], "did you mean --private?"),
    ],
)
def test_errors_are_one_line_that_names_the_thing(at_hub, capsys, words, message):  # noqa: F811
    with pytest.raises(SystemExit):
        main(words)
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed and not at_hub.requests


def test_a_pull_request_is_loaded_by_its_revision(at_hub, run_folder, capsys):  # noqa: F811
    main([str(run_folder), "tester/msae", "--create-pr"])
    printed = capsys.readouterr().out
    assert f"{at_hub.url}/tester/msae/discussions/1" in printed
    assert 'from_pretrained("tester/msae", revision="refs/pr/1")' in printed
