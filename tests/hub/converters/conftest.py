"""Checkpoints that other libraries wrote (foreign/), and changed copies of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

FOREIGN = Path(__file__).parent / "foreign"


def _with(content, changes):
    """`content` with changes; None takes a key away."""
    merged = {**content, **changes}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.fixture
def changed(tmp_path):
    """(checkpoint, settings, tensors) -> a copy with these settings and tensors; None takes one away."""

    def changed(name, settings=None, tensors=None):
        folder = Path(shutil.copytree(FOREIGN / name, tmp_path / "copies" / Path(name).name))
        (folder / "expected.safetensors").unlink()
        for file in folder.iterdir():
            if settings and file.suffix == ".json":
                content = json.loads(file.read_text())
                content = {"trainer": _with(content["trainer"], settings)} if "trainer" in content else content
                file.write_text(json.dumps(content if "trainer" in content else _with(content, settings)))
            elif tensors and file.suffix == ".safetensors":
                save_file(_with(load_file(file), tensors), file)
            elif tensors and file.suffix == ".pt":
                torch.save(_with(torch.load(file, weights_only=True), tensors), file)
        return folder

    return changed


@pytest.fixture(scope="session")
def check_outputs(relative_error):
    """(model, checkpoint) -> asserts that codes and reconstructions are those that the other library computed."""

    def check_outputs(model, name):
        expected = load_file(FOREIGN / name / "expected.safetensors")
        output = model(expected["inputs"])
        assert relative_error(output.latents, expected["code"]) < 1e-5
        assert torch.equal(output.latents > 0, expected["code"] > 0)
        assert relative_error(output.reconstruction, expected["reconstruction"]) < 1e-5

    return check_outputs
