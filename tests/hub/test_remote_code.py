"""A model with its code beside it loads where hf_msae is not installed."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.publishing.remote_code import add_remote_code

WITHOUT_THE_PACKAGE = """
    import json, sys

    class Nowhere:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "hf_msae":
                raise ImportError("hf_msae is not installed here")

    sys.meta_path.insert(0, Nowhere())
    import torch
    from transformers import AutoConfig, AutoModel

    found = {}
    for name in sys.argv[1:]:
        try:
            AutoModel.from_pretrained(name, trust_remote_code=False)
            raise SystemExit("loaded without trust")
        except ValueError as error:
            assert "trust_remote_code" in str(error), error
        assert AutoConfig.from_pretrained(name, trust_remote_code=True).d_in == 16
        model = AutoModel.from_pretrained(name, trust_remote_code=True)
        output = model(torch.arange(32.0).reshape(2, 16) / 10, return_loss=True)
        found[name] = [output.loss.item(), output.reconstruction.tolist(), output.latents.tolist()]
    print(json.dumps(found))
"""


def saved(folder, **settings):
    torch.manual_seed(1)
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=32, **settings)).eval()
    model.set_input_statistics(torch.randn(16), 0.7)
    model.save_pretrained(folder)
    return model


@pytest.mark.slow
def test_it_computes_the_same_where_the_package_is_not_installed(tmp_path):
    kinds = {
        "msae": {"nesting_ks": [4, 32], "sparsity_coefficient": 0.1},
        "tied": {"tied": True, "nesting": "none"},
        "jump_relu": {"activation": "jump_relu", "nesting": "none", "sparsity_coefficient": 0.1},
        "batch_topk": {"activation": "batch_topk", "k": 4, "nesting": "prefix"},
    }
    models = {}
    for name, settings in kinds.items():
        models[str(tmp_path / name)] = saved(tmp_path / name, **settings)
        add_remote_code(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_THE_PACKAGE), *models],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, model in models.items():
        output = model(torch.arange(32.0).reshape(2, 16) / 10, return_loss=True)
        loss, reconstruction, latents = found[name]
        torch.testing.assert_close(torch.tensor(loss), output.loss)
        torch.testing.assert_close(torch.tensor(reconstruction), output.reconstruction)
        torch.testing.assert_close(torch.tensor(latents), output.latents)


DAMAGED = """
    import json, sys

    class Nowhere:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "hf_msae":
                raise ImportError("hf_msae is not installed here")

    sys.meta_path.insert(0, Nowhere())
    from transformers import AutoModel

    found = {}
    for name in sys.argv[1:]:
        try:
            AutoModel.from_pretrained(name, trust_remote_code=True)
            found[name] = "loaded"
        except ValueError as error:
            found[name] = str(error)
    lenient = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, output_loading_info=True)
    found["lenient"] = sorted(lenient[1]["missing_keys"])
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_it_is_loaded_whole_or_not_at_all_where_the_package_is_not_installed(tmp_path):
    changes = {
        "missing": lambda tensors: tensors.pop("decoder"),
        "unexpected": lambda tensors: tensors.update(extra=torch.zeros(1)),
        "mismatched": lambda tensors: tensors.update(decoder=torch.zeros(32, 8)),
        "not finite": lambda tensors: tensors["encoder"].fill_(torch.nan),
        "not above 0": lambda tensors: tensors["input_scale"].fill_(-1),
    }
    names = {"unexpected": "extra", "not finite": "encoder", "not above 0": "input_scale"}
    for kind, change in changes.items():
        saved(tmp_path / kind)
        add_remote_code(tmp_path / kind)
        tensors = load_file(tmp_path / kind / "model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / kind / "model.safetensors", metadata={"format": "pt"})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DAMAGED), *(str(tmp_path / kind) for kind in changes)],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for kind in changes:
        message = found[str(tmp_path / kind)]
        assert f"do not fit ({kind}: " in message and names.get(kind, "decoder") in message, (kind, message)
    assert found["lenient"] == ["decoder"]


def test_with_the_package_its_own_class_is_used(tmp_path):
    model = saved(tmp_path)
    written = add_remote_code(tmp_path)
    assert set(written) == {path.name for path in tmp_path.iterdir()} - {"model.safetensors"}
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is MSAEModel and torch.equal(loaded.encoder, model.encoder)


def test_every_relative_import_is_beside_it(tmp_path):
    from transformers.dynamic_module_utils import get_relative_imports

    saved(tmp_path)
    add_remote_code(tmp_path)
    for module in tmp_path.glob("*.py"):
        for needed in get_relative_imports(module):
            assert (tmp_path / f"{needed}.py").is_file(), f"{module.name} imports {needed}"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        add_remote_code(tmp_path)
