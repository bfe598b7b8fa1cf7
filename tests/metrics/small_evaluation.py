"""A small model and small data to evaluate."""

import numpy as np
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import LinearClassifier

D, N = 6, 48


def make_model(**settings):
    torch.manual_seed(0)
    model = MSAEModel(MSAEConfig(**{"d_in": D, "num_latents": N, "nesting_ks": [2, 7, 20, N], **settings}))
    with torch.no_grad():
        model.latent_bias.normal_(-0.5, 0.3)
        model.latent_bias[:5] = -100.0  # dead
    model.set_input_statistics(torch.full((D,), 0.4), 0.8)
    return model


def make_data(rows, offset=0.0):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(rows, D)) * np.linspace(1, 3, D) + 0.5 + offset).astype(np.float32)


def asked(rows):
    """More to measure: a probe with labels, a zero-shot classifier without, another encoder."""
    rng = np.random.default_rng(5)
    probe = LinearClassifier.fit(make_data(rows) + 0.1, rng.integers(0, 3, rows))
    zero_shot = LinearClassifier.zero_shot(rng.normal(size=(4, D)), "abcd")
    labels = rng.integers(-1, 3, rows)
    return {
        "classifiers": {"probe": probe, "texts": zero_shot},
        "labels": {"probe": labels},
        "encoder_embeds": load_embeddings(rng.normal(size=(rows, 5)).astype(np.float32)),
        "encoder": "another",
    }
