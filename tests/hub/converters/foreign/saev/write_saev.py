"""Writes the checkpoints in this folder, with inputs and what saev computes from them.

Run with saev 0.1.0 (torch 2.13.0): `python write_saev.py`. That version, the only one that is packaged, writes `relu`
itself, without a schema. The others are written on the layout of the later sources, whose classes are not packaged:
the first line as each schema has it, then the state dict; the expected outputs follow from the equations in
`forward` and the activations' classes there.
"""

import json
from pathlib import Path

import torch
from saev import config, nn
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, FACTOR, ROWS, K = 8, 3, 16, 4
N = D * FACTOR


def draw(name):
    """Weights with which some latents are on, others off, and no bias can be left out unnoticed."""
    noise = torch.Generator().manual_seed(sum(name.encode()))
    shapes = {"W_enc": (D, N), "b_enc": (N,), "W_dec": (N, D), "b_dec": (D,)}
    return {key: torch.randn(shape, generator=noise) for key, shape in shapes.items()}, noise


def inputs(noise):
    return 2 * torch.randn(ROWS, D, generator=noise) + 1


def save_expected(name, x, code, reconstruction):
    expected = {"inputs": x, "code": code, "reconstruction": reconstruction}
    save_file(
        {key: tensor.detach().contiguous() for key, tensor in expected.items()}, HERE / name / "expected.safetensors"
    )


def write_by_saev(name):
    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=D, exp_factor=FACTOR))
    weights, noise = draw(name)
    sae.load_state_dict(weights)
    nn.dump(str(HERE / name / "sae.pt"), sae)
    x = inputs(noise)
    reconstruction, code, _ = nn.load(str(HERE / name / "sae.pt"))(x)
    save_expected(name, x, code, reconstruction)


def top_k(pre_activations, k):
    mask = torch.zeros_like(pre_activations).scatter(-1, pre_activations.topk(k, dim=-1).indices, 1.0)
    return mask * pre_activations


def write_on_layout(name, header, activation, **extra):
    weights, noise = draw(name)
    (HERE / name).mkdir(exist_ok=True)
    with open(HERE / name / "sae.pt", "wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save({**weights, **extra}, file)
    x = inputs(noise)
    code = activation(x @ weights["W_enc"] + weights["b_enc"])
    save_expected(name, x, code, code @ weights["W_dec"] + weights["b_dec"])


def headed(schema, settings, **more):
    return {"schema": schema, "cfg": settings, **more, "commit": "unknown", "lib": "0.1.0"}


def activation(cls, **params):
    return {"cls": cls, "params": params}


if __name__ == "__main__":
    write_by_saev("relu")
    by_factor = {"d_vit": D, "exp_factor": FACTOR, "seed": 0}
    by_width = {"d_model": D, "d_sae": N}
    write_on_layout("schema_1_of_activation", headed(1, {**by_factor, "top_k": K}, cls="TopK"), lambda p: top_k(p, K))
    of_config = {**by_factor, "activation": activation("TopK", top_k=K)}
    write_on_layout("schema_1_of_config", headed(1, of_config, cls="SparseAutoencoderConfig"), lambda p: top_k(p, K))
    write_on_layout("schema_1_batch", headed(1, {**by_factor, "top_k": K}, cls="BatchTopK"), lambda p: top_k(p, K))
    write_on_layout("schema_2", headed(2, {**by_factor, "activation": activation("Relu")}), torch.relu)
    of_each = {**by_factor, "activation": activation("BatchTopK", top_k=K)}
    write_on_layout("schema_2_batch", headed(2, of_each), lambda p: top_k(p, K))
    sparsity = {"cls": "L1Sparsity", "params": {"key": "l1-sparsity", "coeff": 4e-4}}
    relu = {**by_width, "seed": 0, "activation": activation("Relu", key="relu", sparsity={"coeff": 4e-4})}
    write_on_layout("schema_4", headed(4, relu), torch.relu)
    relu = {**by_width, "activation": activation("Relu", key="relu", sparsity=sparsity)}
    write_on_layout("schema_5", headed(5, relu), torch.relu)
    of_batch = {**by_width, "activation": activation("BatchTopK", key="batch-top-k", top_k=K, momentum=0.1)}
    above = {"activation.threshold": torch.tensor(1.5)}
    write_on_layout("schema_5_batch", headed(5, of_batch), lambda p: torch.where(p > 1.5, p, 0.0), **above)
    unset = {"activation.threshold": torch.tensor(0.0)}
    write_on_layout("schema_5_batch_without_threshold", headed(5, of_batch), torch.relu, **unset)
