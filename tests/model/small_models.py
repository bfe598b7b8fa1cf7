"""Small models for tests, and their equations written out."""

import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model.nested_topk import nested_codes_reference

D, N = 12, 40


KS = [2, 5, 20, 40]


def make_model(seed=0, **settings):
    """A model that is not at its initialization: nothing is zero, unit norm or tied by accident."""
    torch.manual_seed(seed)
    settings = {"d_in": D, "num_latents": N, "nesting_ks": KS, **settings}
    model = MSAEModel(MSAEConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_input_statistics(torch.randn(D), 0.7)
    return model


def embeddings(*shape, seed=1):
    return 2 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)) + 1


def by_hand(model, x, k):
    """Code and raw reconstruction, from the equations and in float64."""
    p = {name: tensor.detach().double() for name, tensor in model.state_dict().items()}
    u = (x.double() - p["input_mean"]) * p["input_scale"]
    a = ((u - p["pre_bias"]) @ p["encoder"] + p["latent_bias"]).relu()
    z = nested_codes_reference(a, [k], model.config.soft_cap)[0]
    decoder = p["decoder"] if "decoder" in p else p["encoder"].T
    return z, (z @ decoder + p["pre_bias"]) / p["input_scale"] + p["input_mean"]
