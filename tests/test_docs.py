"""Every Python example of these pages runs as it stands, and every command has flags that its script knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "docs/bias.md",
    "docs/backbones.md",
    "docs/concepts.md",
    "docs/metrics.md",
    "docs/model.md",
    "docs/scenes.md",
    "docs/search.md",
]
COMMANDS = [
    "README.md",
    "docs/extraction.md",
    "docs/metrics.md",
    "docs/training.md",
    *sorted(f"training/configs/{p.name}" for p in (ROOT / "training" / "configs").glob("*.yaml")),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no example"
    namespace = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


@pytest.fixture(scope="module")
def known_flags():
    """The flags that the --help of each script of training/ lists."""
    flags = {}
    for name in ("extract_activations", "train_msae", "evaluate_msae", "train_scenes_backbone"):
        run = [sys.executable, str(ROOT / "training" / f"{name}.py"), "--help"]
        text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        flags[name] = set(re.findall(r"--\w+", text))
    return flags


@pytest.mark.slow
def test_commands_name_flags_that_exist(known_flags):
    found = 0
    for page in COMMANDS:
        text = re.sub(r"\\\n#? *", " ", (ROOT / page).read_text())
        for name, rest in re.findall(r"training/(\w+)\.py ([^\n`|]*)", text):
            named = set(re.findall(r"--\w+", rest))
            assert named <= known_flags[name], f"{page}: {name}.py does not know {named - known_flags[name]}"
            found += len(named) > 0
    assert found > 10
