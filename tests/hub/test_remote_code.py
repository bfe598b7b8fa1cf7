"""A model with its code beside it loads where hf_msae is not installed."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.hub.publishing.remote_code import add_remote_code

KINDS = {
    "msae": {"nesting_ks": [4, 32], "sparsity_coefficient": 0.1},
    "tied": {"tied": True, "nesting": "none"},
    "jump_relu": {"activation": "jump_relu", "nesting": "none", "sparsity_coefficient": 0.1},
    "batch_topk": {"activation": "batch_topk", "k": 4, "nesting": "prefix"},
}
DAMAGES = {
    "missing": ("decoder", lambda tensors: tensors.pop("decoder")),
    "unexpected": ("extra", lambda tensors: tensors.update(extra=torch.zeros(1))),
    "mismatched": ("decoder", lambda tensors: tensors.update(decoder=torch.zeros(32, 8))),
    "not finite": ("encoder", lambda tensors: tensors["encoder"].fill_(torch.nan)),
    "not above 0": ("input_scale", lambda tensors: tensors["input_scale"].fill_(-1)),
}
X = torch.arange(32.0).reshape(2, 16) / 10
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
            model = AutoModel.from_pretrained(name, trust_remote_code=True)
        except ValueError as error:
            found[name] = str(error)
            continue
        output = model(torch.arange(32.0).reshape(2, 16) / 10, return_loss=True)
        found[name] = [output.loss.item(), output.reconstruction.tolist(), output.latents.tolist()]
    assert AutoConfig.from_pretrained("msae", trust_remote_code=True).d_in == 16
    try:
        AutoModel.from_pretrained("msae", trust_remote_code=False)
    except ValueError as error:
        found["without trust"] = str(error)
    lenient = AutoModel.from_pretrained("missing", trust_remote_code=True, output_loading_info=True)
    found["lenient"] = sorted(lenient[1]["missing_keys"])
    print(json.dumps(found))
"""


def saved(folder, **settings):
    torch.manual_seed(1)
    model = MSAEModel(MSAEConfig(d_in=16, num_latents=32, **settings)).eval()
    model.set_input_statistics(torch.randn(16), 0.7)
    model.save_pretrained(folder)
    return model


@pytest.mark.slow
def test_it_computes_the_same_or_is_refused_where_the_package_is_not_installed(tmp_path):
    models = {}
    for name, settings in KINDS.items():
        models[name] = saved(tmp_path / name, **settings)
        add_remote_code(tmp_path / name)
    for name, (_, change) in DAMAGES.items():
        saved(tmp_path / name)
        add_remote_code(tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_THE_PACKAGE), *KINDS, *DAMAGES],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, model in models.items():
        output = model(X, return_loss=True)
        for actual, expected in zip(found[name], (output.loss, output.reconstruction, output.latents), strict=True):
            torch.testing.assert_close(torch.tensor(actual), expected)
    for name, (tensor, _) in DAMAGES.items():
        assert re.search(f"{name}: .*{tensor}", found[name])
    assert found["lenient"] == ["decoder"] and "trust_remote_code" in found["without trust"]


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
