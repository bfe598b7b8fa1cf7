"""MSAEs of tiny backbones, and names for them."""

import numpy as np
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import ConceptTable
from tests.tiny_backbones import pictures

N = 64
TEXTS = ["a red circle", "blue"]


def an_msae(backbone, hook_point="image_embeds", **settings):
    torch.manual_seed(0)
    width = backbone.width(hook_point)
    settings = {"nesting_ks": [8, N], **settings}
    model = MSAEModel(MSAEConfig(d_in=width, num_latents=N, hook_point=hook_point, **settings))
    embeds = backbone.read(hook_point, TEXTS if hook_point.startswith("text") else pictures()).flatten(0, -2)
    model.set_input_statistics(embeds.mean(0), float(width**0.5 / (embeds - embeds.mean(0)).norm(dim=1).mean()))
    return model


def table(*names):
    count = len(names)
    return ConceptTable.from_columns(list(names), np.linspace(0.9, 0.1, count), [None] * count, np.zeros(count))
