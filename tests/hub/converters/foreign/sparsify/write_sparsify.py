"""Writes the checkpoints in this folder, with inputs and what sparsify computes from them, by sparsify itself.

Run with eai-sparsify 1.3.3 (torch 2.13.0): `python write_sparsify.py`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig

HERE = Path(__file__).parent
D, N, ROWS = 8, 24, 16


def write(run, hookpoint, **settings):
    noise = torch.Generator().manual_seed(sum(f"{run}{hookpoint}".encode()))
    coder = SparseCoder(D, SparseCoderConfig(**settings))
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=noise))
    folder = HERE / run / hookpoint
    coder.save_to_disk(folder)
    x = 2 * torch.randn(ROWS, D, generator=noise) + 1
    with torch.no_grad():
        values, indices, _ = coder.encode(x)
        code = torch.zeros(ROWS, coder.num_latents).scatter(-1, indices, values)
        reconstruction = coder.decode(values, indices)
    save_file({"inputs": x, "code": code, "reconstruction": reconstruction}, folder / "expected.safetensors")


if __name__ == "__main__":
    write("many", "layers.9", num_latents=N, k=4)
    write("many", "layers.3.mlp", expansion_factor=3, k=6, multi_topk=True)
    write("vision", "vision_model.encoder.layers.2", expansion_factor=3, k=24)
    write("refused", "groupmax", num_latents=N, k=4, activation="groupmax")
    write("refused", "transcode", num_latents=N, k=4, transcode=True)
    write("refused", "skip_connection", num_latents=N, k=4, skip_connection=True)
