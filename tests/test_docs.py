"""Every Python example of these pages runs as it stands, and every command has flags that its script knows."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from datasets import DatasetDict

from hf_msae import cli
from hf_msae.clipart import load_clipart
from hf_msae.clipart.loading import default_folder

ROOT = Path(__file__).parents[1]
# The examples of these take over half a second.
LONG = "backbones bias concepts extraction hub hyperspectral leaderboard line metrics probes report scenes".split()
LONG += ["search", "swordbench"]
SHORT = ["clipart", "model", "space"]
PAGES = [f"docs/{page}.md" for page in SHORT]
PAGES += [pytest.param(f"docs/{page}.md", marks=pytest.mark.slow) for page in LONG]
COMMANDS = [ROOT / "README.md", ROOT / "RELEASE.md", *ROOT.glob("docs/*.md"), *ROOT.glob("training/configs/*.yaml")]
COMMANDS_OF_PAGES = ("name", "label", "explain", "search", "bias", "report", "push", "convert", "push-space")
COMMANDS_OF_PAGES += ("red-team",)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no example"
    if page == "docs/clipart.md":  # its drawings take minutes to build: those of the package take their place
        sample = load_clipart("sample")
        chosen = {split: sample.filter(lambda row, split=split: row["split"] == split) for split in ("train", "test")}
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
        DatasetDict(chosen).save_to_disk(default_folder())
    namespace = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


LINKING = [
    file for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "spaces/*/*.md") for file in ROOT.glob(pattern)
]


def prose(page):
    """A page without its examples."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub("`[^`]*`", "", prose(page))):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            file = page.parent / path if path else page
            assert file.exists(), f"there is no {target}"
            assert not anchor or anchor in anchors(file), f"{file.name} has no heading {anchor}"


@pytest.fixture
def known_flags(capsys, monkeypatch):
    """The flags that the --help of each script of training/ and of each command lists."""
    flags = {}
    monkeypatch.syspath_prepend(str(ROOT / "training"))  # as for a script that Python runs
    of_scenes = ("train_scenes_backbone", "train_scenes_msaes")
    of_clipart = ("clipart_icons", "train_clipart_backbone", "train_clipart_msae")
    scripts = ("extract_activations", "train_msae", "evaluate_msae", *of_scenes, *of_clipart)
    for name in (*scripts, *cli._COMMANDS):
        with pytest.raises(SystemExit) as ended:
            if name in scripts:
                monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
                runpy.run_path(str(ROOT / "training" / f"{name}.py"), run_name="__main__")
            else:
                cli.main([name, "--help"])
        assert not ended.value.code, f"the --help of {name} failed"
        text = capsys.readouterr().out
        assert "example" in text or name in scripts, f"the --help of {name} teaches nothing"
        flags[name] = set(re.findall(r"--\w+", text))
    return flags


def test_commands_name_flags_that_exist(known_flags):
    found: dict[str, int] = dict.fromkeys(known_flags, 0)
    for page in COMMANDS:
        text = re.sub(r"\\\n#? *", " ", page.read_text())
        for script, command, rest in re.findall(r"(?:training/(\w+)\.py|\bhf-msae ([a-z][\w-]*)) ([^\n`|]*)", text):
            name = script or command
            assert name in known_flags, f"{page}: there is no command {name}"
            named = set(re.findall(r"--\w+", rest))
            assert named <= known_flags[name], f"{page}: {name} does not know {named - known_flags[name]}"
            found[name] += len(named) > 0
    assert sum(found.values()) > 25 and all(found[name] for name in COMMANDS_OF_PAGES)


def test_tests_that_a_page_names_exist():
    file, named = None, 0
    for match in re.finditer(r"`([\w/]+\.py)?(?:::(\w+))?`", (ROOT / "docs" / "robustness.md").read_text()):
        path, test = match.groups()
        if path and path.startswith("benchmarks/"):
            assert (ROOT / path).exists(), path
            continue
        file = (ROOT / "tests" / path).read_text() if path else file
        if test:
            assert f"def {test}(" in file, f"{path}::{test}"
            named += 1
    assert named > 80
