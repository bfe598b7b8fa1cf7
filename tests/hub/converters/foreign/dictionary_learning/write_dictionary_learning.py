"""Writes the checkpoints in this folder, with inputs and what dictionary_learning computes from them, by itself.

Run with dictionary-learning 0.1.0 (torch 2.13.0, einops): `python write_dictionary_learning.py`. The package is
imported without its own __init__, which wants nnsight for language models. Each config.json is that of a trainer, as
`trainSAE` writes it; the state dict is saved as it does.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, N, ROWS, K = 8, 24, 16, 4

ROOT = importlib.util.find_spec("dictionary_learning").submodule_search_locations[0]
for name, place in (("dictionary_learning", ROOT), ("dictionary_learning.trainers", f"{ROOT}/trainers")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [place]

from dictionary_learning.dictionary import (  # noqa: E402
    AutoEncoder,
    AutoEncoderNew,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # noqa: E402
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer  # noqa: E402
from dictionary_learning.trainers.top_k import TopKTrainer  # noqa: E402

CLIP = {"lm_name": "openai/clip-vit-base-patch32", "layer": 9, "submodule_name": "resid_post_layer_9"}
PYTHIA = {"lm_name": "EleutherAI/pythia-70m", "layer": 3, "submodule_name": "mlp_out_layer_3"}


def draw(name, ae):
    """Weights with which some latents are on, others off, and no bias can be left out unnoticed."""
    noise = torch.Generator().manual_seed(sum(name.encode()))
    with torch.no_grad():
        for key, tensor in ae.state_dict().items():
            if key in ("k", "group_sizes"):
                continue
            value = torch.randn(tensor.shape, generator=noise)
            if key == "threshold":
                value = value.abs() * 0.5 + 0.2
            elif key == "r_mag":
                value = value * 0.3
            tensor.copy_(value)
    return noise


def write(name, ae, config, threshold=None):
    noise = draw(name, ae)
    if threshold is not None:
        ae.threshold.fill_(threshold)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    torch.save({key: tensor.cpu() for key, tensor in ae.state_dict().items()}, folder / "ae.pt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"trainer": config, "buffer": {"d_submodule": D}}, indent=4))
    x = 2 * torch.randn(ROWS, D, generator=noise) + 1
    with torch.no_grad():
        code = ae.encode(x)
        expected = {"inputs": x, "code": code, "reconstruction": ae.decode(code)}
    active = (code > 0).float().mean()
    assert 0.02 < active < 0.8, (name, active)
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{name}: {active:.2f} of the code is above 0")


def trained(trainer, where, **settings):
    """A trainer's autoencoder and what it writes to config.json."""
    made = trainer(10, D, N, K, warmup_steps=1, device="cpu", **where, **settings)
    return made.ae, json.loads(json.dumps(made.config))


if __name__ == "__main__":
    said = {**CLIP, "dict_class": "AutoEncoder", "activation_dim": D, "dict_size": N}
    write("relu", AutoEncoder(D, N), said)
    write("relu_new", AutoEncoderNew(D, N), {**said, "dict_class": "AutoEncoderNew"})
    write("gated", GatedAutoEncoder(D, N), {**said, "dict_class": "GatedAutoEncoder"})
    write("jump_relu", JumpReluAutoEncoder(D, N), {**said, "dict_class": "JumpReluAutoEncoder"})
    write("top_k", *trained(TopKTrainer, CLIP))
    write("batch_top_k", *trained(BatchTopKTrainer, CLIP))
    write("batch_top_k_without_threshold", *trained(BatchTopKTrainer, PYTHIA), threshold=-1)
    fractions = {"group_fractions": [0.25, 0.25, 0.5], "group_weights": [0.5, 0.3, 0.2]}
    write("matryoshka", *trained(MatryoshkaBatchTopKTrainer, CLIP, **fractions))
