"""Writes the checkpoints in this folder, with inputs and outputs, on the documented layout of ViT-Prisma.

Run with torch 2.13.0: `python write_prisma.py`. The packaged vit-prisma (0.1.4) has no SAEs; config.json has the keys
of VisionModelSAERunnerConfig.save_config in the later sources, and the expected outputs follow from the equations in
`encode` and `decode` of StandardSparseAutoencoder and GatedSparseAutoencoder there.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, N, ROWS, K = 8, 24, 16, 4
CONFIG = {
    "model_class_name": "HookedViT", "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "hook_point_layer": 9, "layer_subtype": "hook_resid_post", "hook_point_head_index": None, "context_size": 50,
    "use_patches_only": False, "d_in": D, "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "cls_token_only": False, "initialization_method": "encoder_transpose_decoder", "normalize_activations": "none",
    "dtype": {"__type__": "torch.dtype", "value": "torch.float32"}, "architecture": "standard",
    "expansion_factor": N // D, "d_sae": N, "lr": 0.001,
}  # fmt: skip
SHAPES = {"W_enc": (D, N), "b_enc": (N,), "W_dec": (N, D), "b_dec": (D,)}
GATE = {"b_gate": (N,), "r_mag": (N,), "b_mag": (N,)}


def top_k(pre_activations):
    top = pre_activations.topk(K, dim=-1)
    return torch.zeros_like(pre_activations).scatter(-1, top.indices, top.values.relu())


def standard(activation):
    def encode(x, sae):
        return activation((x - sae["b_dec"]) @ sae["W_enc"] + sae["b_enc"])

    return encode


def gated(x, sae):
    x = x - sae["b_dec"]
    active = (x @ sae["W_enc"] + sae["b_gate"] > 0).float()
    return active * torch.relu(x @ (sae["W_enc"] * sae["r_mag"].exp()) + sae["b_mag"])


def write(name, encode, shapes=SHAPES, file="weights.pt", wrapped=False, **settings):
    noise = torch.Generator().manual_seed(sum(name.encode()))
    sae = {key: torch.randn(shape, generator=noise) * (0.3 if key == "r_mag" else 1) for key, shape in shapes.items()}
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": sae, "cfg": {}} if wrapped else sae, folder / file)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **settings}, indent=4))
    x = 2 * torch.randn(ROWS, D, generator=noise) + 1
    code = encode(x, sae)
    active = (code > 0).float().mean()
    assert 0.02 < active < 0.8, (name, active)
    expected = {"inputs": x, "code": code, "reconstruction": code @ sae["W_dec"] + sae["b_dec"]}
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{name}: {active:.2f} of the code is above 0")


if __name__ == "__main__":
    write("relu", standard(torch.relu))
    write("relu_of_mlp", standard(torch.relu), file="n_images_2600058.pt", layer_subtype="hook_mlp_out", wrapped=True)
    settings = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "cls_token_only": True}
    write("top_k", standard(top_k), **settings)
    write("gated", gated, SHAPES | GATE, architecture="gated", layer_subtype="hook_resid_pre")
