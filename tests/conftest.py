"""What all tests share. Nothing here needs a network."""

import gc
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
# Each process of the tests has its own copies of modules loaded from files: evaluate's are not safe to share.
_MODULES = tempfile.TemporaryDirectory(prefix="hf-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES.name
# All of them, and the processes they start, share a cache that is not the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="hf_msae-cache-")
    os.environ["HF_MSAE_CACHE"] = _CACHE.name

import pytest  # noqa: E402

gc.disable()  # imports leave hardly any garbage, and a collection walks over all they brought

GOLDEN = Path(__file__).parent / "golden"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_finish():
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap():
    """Let garbage collections pass over what is alive: walking the imported libraries takes 0.1 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _no_flushing(request):
    """Skip fsync, which takes most of the time of a small file; tests/_utils tests it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "_utils":
            patch.setattr("hf_msae._utils.atomic._flush", lambda path: None)
            patch.setattr("hf_msae._utils.atomic._flush_folder", lambda folder: None)
        yield


@pytest.fixture(scope="session")
def relative_error():
    """(actual, expected) -> ||actual - expected|| / ||expected|| (Frobenius), in float64 and without a tolerance."""
    import torch

    def relative_error(actual, expected) -> float:
        actual, expected = (torch.as_tensor(tensor).detach().double().cpu() for tensor in (actual, expected))
        assert actual.shape == expected.shape, f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}"
        norm = torch.linalg.vector_norm(expected)
        assert norm > 0, "a relative error to zeros says nothing"
        return (torch.linalg.vector_norm(actual - expected) / norm).item()

    return relative_error


@pytest.fixture(scope="session")
def golden_tensors():
    """The tensors of golden/msae_small.safetensors. Do not change them in place."""
    from safetensors.torch import load_file

    return load_file(GOLDEN / "msae_small.safetensors")


@pytest.fixture(scope="session")
def golden_figures():
    """The figures of golden/msae_small.json."""
    return json.loads((GOLDEN / "msae_small.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Backbone model class -> a saved tiny model of it with its real processor."""
    import torch
    import transformers

    from tests.tiny_backbones import FAMILIES

    transformers.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("backbones")
    for name, save in FAMILIES.items():
        torch.manual_seed(0)
        save(root / name)
    return {name: root / name for name in FAMILIES}


@pytest.fixture(scope="session")
def backbones(folders):
    """The same, loaded."""
    from hf_msae.backbones import Backbone

    return {name: Backbone.from_pretrained(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by playwright; tests of pages are left out where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
