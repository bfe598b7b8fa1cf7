"""Small runs for tests: data that a sparse autoencoder should learn from, a model, and a trainer."""

import json

import numpy as np
import torch
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments

WIDTH, LATENTS, ROWS = 16, 64, 320


def sparse_embeddings(rows=ROWS, seed=0):
    """Sparse non-negative combinations of 24 unit directions around a mean: what a sparse autoencoder should find."""
    world, rng = np.random.default_rng(0), np.random.default_rng((1, seed))
    directions = world.normal(size=(24, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = rng.uniform(size=(rows, 24)) * (rng.uniform(size=(rows, 24)) < 0.1)
    return (codes @ directions + world.normal(size=WIDTH)).astype(np.float32)


def new_model(**settings):
    """A small model whose first latent never fires, so that there is a dead one to be counted."""
    set_seed(7)
    model = MSAEModel(MSAEConfig(**{"d_in": WIDTH, "num_latents": LATENTS, "nesting_ks": [2, 8, LATENTS], **settings}))
    with torch.no_grad():
        model.latent_bias[0] = -100.0
    return model


def new_trainer(output_dir, data, model=None, eval_data=None, callbacks=(), accelerator=None, **settings):
    defaults = {
        "per_device_train_batch_size": 32,
        "max_steps": 25,
        "learning_rate": 5e-3,
        "logging_steps": 4,
        "save_strategy": None if "save_steps" in settings else "no",
        "cknna_batch_size": 64,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = MSAETrainingArguments(str(output_dir), **{**defaults, **settings})
    return MSAETrainer(model or new_model(), args, data, eval_data, callbacks, accelerator)


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_equal_weights(trainer, expected):
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def untimed(log):
    return [{key: value for key, value in record.items() if key != "samples_per_second"} for record in log]


def read_log(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
