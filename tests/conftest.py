"""What all tests share. Nothing here needs a network."""

import gc
import json
import logging
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
# Each process of the tests has its own copies of modules loaded from files: evaluate's are not safe to share.
_MODULES = tempfile.TemporaryDirectory(prefix="hf-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES.name
# No server is asked for its certificate, and every client reads those of the machine, which takes 0.02 s.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = _MODULES.name
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # threads to load a model take longer than to load a small one
# All of them, and the processes they start, share caches that are not the user's: no test may find what others lack.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="hf_msae-cache-")
    os.environ["HF_HOME"] = str(Path(_CACHE.name) / "huggingface")
    os.environ["HF_MSAE_CACHE"] = str(Path(_CACHE.name) / "hf_msae")
    _KINDS = ("HF_HUB", "HUGGINGFACE_HUB", "HF_ASSETS", "HUGGINGFACE_ASSETS", "HF_XET", "HF_DATASETS", "HF_EVALUATE")
    for _variable in (*(f"{_kind}_CACHE" for _kind in _KINDS), "HF_TOKEN_PATH"):  # else they win
        os.environ.pop(_variable, None)

import pytest  # noqa: E402
from _pytest.logging import catching_logs  # noqa: E402

gc.disable()  # imports leave hardly any garbage, and a collection walks over all they brought

ROOMS = ("tests/cli/", "tests/explorer/", "tests/report/")
GOLDEN = Path(__file__).parent / "golden"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_finish():
    gc.enable()


def _catch_at_the_root(caught):
    """Listen as pytest 9.0 does: to look for more at each of thousands of loggers, six times a test, takes 2 ms."""
    if caught.level is not None:
        return _enter(caught)
    logging.root.addHandler(caught.handler)
    caught.attached_loggers.append(logging.root)  # where its end removes the handler
    return caught.handler


_enter = catching_logs.__enter__
if "attached_loggers" in catching_logs.__slots__:
    catching_logs.__enter__ = _catch_at_the_root


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run a room in one process if what its files share takes seconds to make."""
    from xdist.scheduler import LoadFileScheduling

    class LoadRoomScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return next((room for room in ROOMS if nodeid.startswith(room)), super()._split_scope(nodeid))

    return LoadRoomScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap():
    """Let garbage collections pass over what is alive: walking the imported libraries takes 0.1 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _loaded_backbones():
    """What was loaded for the names of this package's backbones; no test may have changed their weights."""
    loaded = {}
    yield loaded
    assert not [name for name, each in loaded.items() if each.origin.sha256_of(each.model) is None]


@pytest.fixture(scope="module", autouse=True)
def _nothing_in_vain(request, _loaded_backbones):
    """Spare what takes long and is tested in a room of its own, or what libraries do for nobody."""
    with pytest.MonkeyPatch.context() as patch:

        def replace(module, name, value, *tested_in):
            if module in sys.modules and request.path.parent.name not in tested_in:
                patch.setattr(f"{module}.{name}", value)

        # Of a small file, fsync takes most of the time.
        replace("hf_msae._utils.atomic", "_flush", lambda path: None, "_utils")
        replace("hf_msae._utils.atomic", "_flush_folder", lambda folder: None, "_utils")
        # To load a backbone of this package takes 0.1 s.
        load = getattr(sys.modules.get("hf_msae.backbones.backbone"), "load", None)
        once = partial(_load_once, load, _loaded_backbones)
        replace("hf_msae.backbones.backbone", "load", once, "backbones", "clipart", "scenes")
        # Transformers writes each config that it loads as JSON, for a message that is not shown: a fifth of loading.
        replace("transformers.configuration_utils", "PreTrainedConfig.__repr__", object.__repr__)
        # In every step, accelerate looks on the disk for an optimizer that is not installed: a tenth of a small step.
        replace("accelerate.accelerator", "is_lomo_available", lambda: False)
        replace("accelerate.optimizer", "is_lomo_available", lambda: False)
        yield


def _load_once(load, loaded, source, *given):
    from hf_msae._utils.built_in import find_built_in

    name = find_built_in(source) if isinstance(source, str) and not Path(source).exists() else None
    revision, processor, dtype = given
    if name is None or revision or processor or dtype not in (None, "float32"):
        return load(source, *given)
    if name not in loaded:
        loaded[name] = load(source, *given)
    return loaded[name]


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
