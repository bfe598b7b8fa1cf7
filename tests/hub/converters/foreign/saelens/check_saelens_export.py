"""Exports small MSAEs of every kind and compares what sae-lens computes from them with what the MSAE does.

Run in a Python with hf_msae and sae-lens: `python check_saelens_export.py`. Prints relative errors, fails above 1e-5.
"""

import sys
import tempfile
from pathlib import Path

import torch

D, N, ROWS = 12, 40, 64
KINDS = {
    "relu": {"activation": "relu", "nesting": "none"},
    "relu, levels": {"activation": "relu", "nesting_ks": [4, 16, N]},
    "relu, k": {"activation": "relu", "nesting_ks": [4, 16, N], "k": 6},
    "topk": {"activation": "topk", "nesting": "none", "k": 7},
    "tied": {"activation": "relu", "nesting": "none", "tied": True},
    "jump_relu": {"activation": "jump_relu", "nesting": "none"},
    "batch_topk": {"activation": "batch_topk", "nesting": "none", "k": 5},
    "prefix": {"activation": "relu", "nesting": "prefix", "nesting_widths": [8, 16, N]},
}


def make(settings, seed=0):
    """A model whose input mean is a hundred times the spread, as CLIP's may be, and whose every weight matters."""
    from hf_msae import MSAEConfig, MSAEModel

    torch.manual_seed(seed)
    config = MSAEConfig(d_in=D, num_latents=N, base_model_name_or_path="openai/clip-vit-base-patch32", **settings)
    model = MSAEModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        if settings["activation"] == "batch_topk":
            model.activation_threshold.fill_(0.4)
    model.set_input_statistics(10 * torch.randn(D), 12.5)
    return model


def inputs(model, seed=1):
    """Raw embeddings around the model's mean."""
    noise = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(seed))
    return model.input_mean + noise / model.input_scale


def check(folder):
    """Kind -> architecture in sae-lens, and the relative errors of its codes and reconstructions (minus the mean)."""
    from sae_lens import SAE

    from hf_msae.hub.converters.saelens_export import export_saelens

    found = {}
    for kind, settings in KINDS.items():
        model = make(settings)
        x = inputs(model)
        sae = SAE.load_from_disk(export_saelens(model, folder / kind))
        with torch.no_grad():
            code, expected = sae.encode(x), model.encode(x)
            decoded = sae.decode(code) - model.input_mean, model.decode(expected) - model.input_mean
        found[kind] = sae.cfg.architecture(), relative(code, expected), relative(*decoded)
    return found


def relative(actual, expected):
    """||actual - expected|| / ||expected||."""
    return float(torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        results = check(Path(folder))
    for kind, (architecture, *errors) in results.items():
        print(f"{kind:<14}{architecture:<10}code {errors[0]:.1e}  reconstruction {errors[1]:.1e}")
    if max(max(errors) for _, *errors in results.values()) > 1e-5:
        sys.exit("sae-lens computes something else")
