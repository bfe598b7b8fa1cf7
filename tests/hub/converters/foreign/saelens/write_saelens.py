"""Writes the checkpoints in this folder, with inputs and what sae-lens computes from them, by sae-lens itself.

Run with sae-lens 6.54.12 (torch 2.13.0): `python write_saelens.py`. Configurations of before version 6 are written as
that version's documentation shows them; sae-lens 6 still reads them, and computes what is expected of them.
"""

import json
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from safetensors.torch import save_file

HERE = Path(__file__).parent
D, N, ROWS = 8, 24, 16
METADATA = {"model_name": "openai/clip-vit-base-patch32", "hook_name": "blocks.9.hook_resid_post"}


def generator(name):
    return torch.Generator().manual_seed(sum(name.encode()))


def draw(name, sae):
    """Weights with which some latents are on, others off, and no bias can be left out unnoticed."""
    noise = generator(name)
    with torch.no_grad():
        for key, tensor in sae.state_dict().items():
            value = torch.randn(tensor.shape, generator=noise, dtype=torch.float64)
            if key == "W_dec":
                value = value / value.norm(dim=-1, keepdim=True) * (0.5 + torch.rand(N, 1, generator=noise))
            elif key in ("threshold", "topk_threshold"):
                value = value.abs() * 0.5 + 0.2
            elif key == "W_enc":
                value = value * 0.5
            elif key == "r_mag":
                value = value * 0.3
            tensor.copy_(value)


def expect(folder, sae):
    """Inputs, and what sae-lens makes of them."""
    x = 2 * torch.randn(ROWS, D, generator=generator(folder.name + "x")) + 1
    with torch.no_grad():
        code = sae.encode(x)
        expected = {"inputs": x, "code": code, "reconstruction": sae.decode(code)}
    active = (code > 0).float().mean()
    assert 0.02 < active < 0.8, (folder.name, active)
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors")
    print(f"{folder.name}: {active:.2f} of the code is above 0")


def config(architecture, **settings):
    return {
        "d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "normalize_activations": "none",
        "reshape_activations": "none", "architecture": architecture, "metadata": METADATA, **settings,
    }  # fmt: skip


def write(name, architecture, factor=None, **settings):
    """An inference SAE."""
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class.from_dict(config(architecture, **settings)))
    draw(name, sae)
    sae.save_model(HERE / name)
    if factor is not None:
        sae.fold_activation_norm_scaling_factor(factor)
    expect(HERE / name, sae)


def write_training(name, architecture, inference_too=None, **settings):
    """A checkpoint from within training, and what the training saves at its end."""
    sae_class, config_class = get_sae_training_class(architecture)
    metadata = settings.pop("metadata", METADATA)
    sae = sae_class(config_class(d_in=D, d_sae=N, **settings))
    for key, value in metadata.items():
        sae.cfg.metadata[key] = value
    draw(name, sae)
    sae.save_model(HERE / name)
    final = HERE / (inference_too or f"{name}_final")
    sae.save_inference_model(final)
    trained = SAE.load_from_disk(final)
    expect(HERE / name, trained)
    if inference_too:
        expect(final, trained)
    else:
        for file in final.iterdir():
            file.unlink()
        final.rmdir()


def write_old(name, settings, **more):
    """Weights in a file of before version 6, with a configuration like those of that time."""
    noise = generator(name)
    tensors = {
        "W_enc": torch.randn(D, N, generator=noise) * 0.5,
        "W_dec": torch.randn(N, D, generator=noise),
        "b_enc": torch.randn(N, generator=noise),
        "b_dec": torch.randn(D, generator=noise),
    }
    tensors.update({key: make(noise) for key, make in more.items()})
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    flat = {
        "d_in": D, "d_sae": N, "dtype": "torch.float32", "device": "cpu", "model_name": "openai/clip-vit-base-patch32",
        "hook_point": "blocks.9.hook_resid_pre", "hook_point_layer": 9, "hook_point_head_index": None,
        "activation_fn_str": "relu", "finetuning_scaling_factor": False, "context_size": 50, "prepend_bos": False,
        "normalize_activations": "none", **settings,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(flat))
    expect(folder, SAE.load_from_disk(folder))


if __name__ == "__main__":
    write("standard", "standard", apply_b_dec_to_input=True)
    write("standard_b_dec_not_applied", "standard", apply_b_dec_to_input=False)
    write("topk", "topk", k=5)
    write("topk_rescaled", "topk", k=5, rescale_acts_by_decoder_norm=True)
    write("jumprelu", "jumprelu", apply_b_dec_to_input=False)
    write("gated", "gated")
    write("gated_b_dec_not_applied", "gated", apply_b_dec_to_input=False)
    write("scaled_by_0.25", "standard", factor=0.25, normalize_activations="expected_average_only_in")
    write_training("batchtopk", "batchtopk", k=4, rescale_acts_by_decoder_norm=True)
    write_training(
        "matryoshka_batchtopk", "matryoshka_batchtopk", "matryoshka_final", k=4.0, matryoshka_widths=[6, 12, N]
    )
    write_old("old_standard", {})
    write_old("old_topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}})
    write_old("old_b_dec_not_applied", {"apply_b_dec_to_input": False, "architecture": "standard"})
