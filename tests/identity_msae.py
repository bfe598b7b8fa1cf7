"""An MSAE that does nothing: latent j is dimension j."""

import torch

from hf_msae import MSAEConfig, MSAEModel


def identity_msae(width, nesting_ks):
    model = MSAEModel(MSAEConfig(d_in=width, num_latents=width, nesting_ks=list(nesting_ks))).eval()
    with torch.no_grad():
        model.encoder.copy_(torch.eye(width))
        model.decoder.copy_(torch.eye(width))
        model.latent_bias.zero_()
        model.pre_bias.zero_()
    model.set_input_statistics(torch.zeros(width), 1.0)
    return model
