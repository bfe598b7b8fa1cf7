"""Writes the checkpoints in this folder, with inputs and what visaebench computes from them.

Run with visaebench 0.1.0 (torch 2.13.0): `python write_visaebench.py`. visaebench only loads checkpoints: the files
are on the layout that its loader documents, and its own GenericSAE, loaded from them, computes what is expected.
visaebench is imported without its own __init__, which wants timm and torchvision for image encoders.
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

ROOT = importlib.util.find_spec("visaebench").submodule_search_locations[0]
sys.modules["visaebench"] = types.ModuleType("visaebench")
sys.modules["visaebench"].__path__ = [ROOT]

from visaebench.hub import load_sae  # noqa: E402

SIMPLE = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (N, D)}
OVERCOMPLETE = {
    "encoder.final_block.0.weight": (N, D), "encoder.final_block.0.bias": (N,), "dictionary._weights": (N, D),
    "dictionary.multiplier": (),
}  # fmt: skip


def write(name, settings, shapes, weights="sae.pt", config="config.json", **extra):
    noise = torch.Generator().manual_seed(sum(name.encode()))
    tensors = {key: torch.randn(shape, generator=noise) for key, shape in shapes.items()} | extra
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if weights.endswith(".safetensors"):
        save_file(tensors, folder / weights)
    else:
        torch.save(tensors, folder / weights)
    lines = [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    text = json.dumps(settings, indent=2) if config.endswith(".json") else "\n".join(lines) + "\n"
    (folder / config).write_text(text)
    sae = load_sae(str(folder), device="cpu")
    x = 2 * torch.randn(ROWS, D, generator=noise) + 1
    code, reconstruction = sae(x)
    active = (code > 0).float().mean()
    assert 0.02 < active < 0.8, (name, active)
    expected = {"inputs": x, "code": code, "reconstruction": reconstruction}
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{name}: {active:.2f} of the code is above 0")


if __name__ == "__main__":
    sizes = {"input_dim": D, "hidden_dim": N, "k": K}
    bias = {"decoder.bias": (D,)}
    write("batch_top_k", {"activation": "batchtopk", **sizes, "threshold": 1.5}, SIMPLE | bias)
    write("batch_top_k_without_threshold", {"sae_type": "BatchTopK", **sizes}, SIMPLE)
    running = {"_running_threshold": torch.tensor(1.0)}
    write("batch_top_k_of_overcomplete", {"sae_type": "batchtopk", "k": K}, OVERCOMPLETE, **running)
    write("top_k", {"activation": "topk", **sizes}, SIMPLE, "model.safetensors", "config.yaml")
    thresholds = {"jump_thresholds": torch.linspace(0, 3, N)}
    write("jump_relu", {"architecture": "jumprelu", **sizes}, SIMPLE | bias, "model.pt", **thresholds)
    write("jump_relu_without_thresholds", {"architecture": "jumprelu", **sizes}, SIMPLE)
