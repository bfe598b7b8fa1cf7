"""`import hf_msae` is light, and the auto classes know MSAE checkpoints in whatever order things are imported."""

import ast
import json
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from transformers import AutoModel

import hf_msae
from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model import registration as _registration

ROOT = Path(__file__).parent.parent

LOAD_MODEL = """
model = AutoModel.from_pretrained(folder)
assert type(model).__module__ == "hf_msae.model.modeling_msae", type(model)
"""
LOAD_CONFIG = """
config = AutoConfig.from_pretrained(folder)
assert type(config).__module__ == "hf_msae.model.configuration_msae", type(config)
"""
NOTHING_LEFT = """
assert not [finder for finder in sys.meta_path if type(finder).__name__ == "_PostImportFinder"], sys.meta_path
"""
ORDERS = {
    "hf_msae, then AutoModel": f"""
import hf_msae
from transformers import AutoModel, AutoConfig
{LOAD_CONFIG}{LOAD_MODEL}{NOTHING_LEFT}
""",
    "AutoModel, then hf_msae": f"""
from transformers import AutoModel, AutoConfig
import hf_msae
{LOAD_MODEL}{LOAD_CONFIG}{NOTHING_LEFT}
""",
    "hf_msae, then only AutoConfig": f"""
import hf_msae
from transformers import AutoConfig
assert "hf_msae.model.modeling_msae" not in sys.modules
{LOAD_CONFIG}
assert "hf_msae.model.modeling_msae" not in sys.modules
from transformers import AutoModel
assert type(AutoModel.from_config(config)).__name__ == "MSAEModel"
{NOTHING_LEFT}
""",
    "MSAEConfig first": f"""
from hf_msae import MSAEConfig
assert "transformers.modeling_utils" not in sys.modules
from transformers import AutoModel, AutoConfig
{LOAD_CONFIG}{LOAD_MODEL}{NOTHING_LEFT}
""",
    "PreTrainedModel in between": f"""
import transformers
import hf_msae
from transformers import PreTrainedModel
from transformers import AutoModel, AutoConfig
{LOAD_MODEL}{LOAD_CONFIG}{NOTHING_LEFT}
""",
    "another model's modules, which import the auto classes themselves": f"""
import hf_msae
from transformers import VisionTextDualEncoderModel, AutoConfig, AutoModel
{LOAD_MODEL}{LOAD_CONFIG}{NOTHING_LEFT}
""",
    "reloading hf_msae": f"""
import importlib
import hf_msae
importlib.reload(hf_msae)
from transformers import AutoModel, AutoConfig
importlib.reload(hf_msae)
{LOAD_MODEL}{LOAD_CONFIG}{NOTHING_LEFT}
""",
}


# Runs each program in a process of its own. These are forked from one that has imported the heavy libraries beneath
# transformers, but neither transformers nor hf_msae: that is most of the time a fresh process would need.
FORKS = """
import json, os, sys, traceback
import huggingface_hub, scipy.optimize, torch, torch.distributed.fsdp, torch.distributed.tensor
assert not {"transformers", "hf_msae"} & set(sys.modules)
programs = json.load(sys.stdin)
children = {}
for name, program in programs.items():
    child = os.fork()
    if child == 0:
        try:
            exec(program, {"__name__": "__main__"})
        except BaseException:
            sys.stderr.write(f"{name}:\\n{traceback.format_exc()}\\n")
            os._exit(1)
        os._exit(0)
    children[child] = name
    if len(children) == 2 or len(programs) == 1:
        child, status = os.wait()
        print(children.pop(child), "failed" if status else "passed", sep="\\t")
while children:
    child, status = os.wait()
    print(children.pop(child), "failed" if status else "passed", sep="\\t")
"""


def run_python(program: str, input: str | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=input, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stderr
    return done.stdout


def run_all(orders: dict[str, str], folder: Path) -> None:
    head = f"import sys\nfolder = {str(folder)!r}\n"
    report = run_python(FORKS, json.dumps({name: head + program for name, program in orders.items()}))
    assert sorted(report.splitlines()) == sorted(f"{name}\tpassed" for name in orders)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    MSAEModel(MSAEConfig(d_in=4, num_latents=8)).save_pretrained(path)
    return path


def test_importing_hf_msae_imports_nothing_heavy():
    run_python("""
import sys
import hf_msae
assert {"MSAEConfig", "MSAEModel", "MSAETrainer"} <= set(dir(hf_msae))
heavy = {"torch", "transformers", "datasets", "accelerate", "numpy", "pandas", "sklearn", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")


@pytest.mark.slow
def test_red_teams_of_models_without_torch_do_not_import_it():
    run_python("""
import sys
import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from hf_msae.hyperspectral import EagleEyesFeatures, FixedClassifier, HybridRegressor
from hf_msae.hyperspectral import load_patches, make_patches, red_team
patches = make_patches(20, edges=(11, 11), wavelengths=np.linspace(500, 900, 12))
loaded = load_patches(list(patches), wavelengths=patches.wavelengths, ground_truth=patches.targets, progress=False)
options = {"num_folds": 2, "num_bootstrap": 100, "num_attacked": 2, "num_seeds": 2, "progress": False}
report = red_team(Ridge(), loaded, groups=patches.groups, **options)
options["audits"] = ["shortcuts"]
red_team(LogisticRegression(), patches.mean_spectra / 10000, np.arange(20) % 2, patches.groups, **options)
assert "attacks" in report.tables
heavy = {"torch", "transformers", "datasets"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_auto_classes_know_msae_in_every_import_order(folder):
    run_all(ORDERS, folder)


def test_registration_waits_for_modules_that_are_half_imported(monkeypatch):
    """transformers imports its auto modules from the middle of others; registering then would fail."""
    assert _registration._is_imported(_registration._AUTO_MODEL)
    assert type(AutoModel.from_config(MSAEConfig(d_in=4, num_latents=8))) is MSAEModel
    complete = _registration._BASE_MODEL
    assert _registration._is_imported(complete) and not _registration._is_half_imported(complete)
    monkeypatch.setattr(_registration, "_registered", {"config"})
    for module in (_registration._BASE_MODEL, _registration._OUR_MODEL):
        with monkeypatch.context() as patch:
            patch.delattr(sys.modules[module], _registration._WATCHED[module])
            assert _registration._is_half_imported(module)
            _registration.register_auto_classes()
            assert _registration._registered == {"config"}
    _registration.register_auto_classes()
    assert _registration._registered == {"config", "model"}


def test_an_error_while_registering_is_not_swallowed(monkeypatch):
    monkeypatch.setattr(_registration, "_registered", {"config"})
    monkeypatch.delitem(sys.modules, "hf_msae.model.modeling_msae")
    monkeypatch.setitem(sys.modules, "hf_msae.model.parameters", None)  # makes importing it fail
    with pytest.raises(ImportError):
        _registration.register_auto_classes()
    assert _registration._registered == {"config"}, "the next import tries again"


def test_public_names():
    classes = "ConceptIndex ConceptTable MSAEConfig MSAEModel MSAEOutput MSAETrainer MSAETrainerCallback"
    classes += " MSAETrainingArguments VisionTextMSAE Vocabulary"
    functions = "bias_report convert_checkpoint evaluate_msae list_released load_embeddings name_latents write_report"
    assert set(dir(hf_msae)) == {*classes.split(), *functions.split(), "__version__"}
    for name in hf_msae.__all__:
        assert getattr(hf_msae, name) is getattr(hf_msae, name)
    assert hf_msae.MSAEModel is MSAEModel
    with pytest.raises(AttributeError, match="MSAEModle"):
        hf_msae.MSAEModle  # noqa: B018


@pytest.mark.parametrize("stub", sorted((ROOT / "hf_msae").rglob("*.pyi")), ids=lambda path: path.parent.name)
def test_type_checkers_see_the_names_of_stubs(stub):
    stub = ast.parse(stub.read_text())
    names = [name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names]
    # In a stub, an import without an alias is private (PEP 484).
    assert names and {name.asname for name in names} == {name.name for name in names}


def test_version_is_the_package_version():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert hf_msae.__version__ == declared.group(1)


def test_the_lower_bounds_are_the_oldest_versions_that_are_tested():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = chain(project["dependencies"], *(extras[name] for name in extras.keys() - {"browser", "dev"}))
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    tested = {canonicalize_name(pin.name): pin for pin in (Requirement(line) for line in lines if line[:1] != "#")}
    bounds = {canonicalize_name(each.name): each.specifier for each in map(Requirement, asked)}
    del bounds["hf-msae"]
    assert len(bounds) > 20
    for name, bound in bounds.items():
        (lowest,) = (each.version for each in bound if each.operator == ">=")
        (pin,) = tested[name].specifier
        assert (name, Version(pin.version)) == (name, Version(lowest))
