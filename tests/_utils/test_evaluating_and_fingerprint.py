"""Evaluation mode ends with its block, and a fingerprint tells models apart by what they compute."""

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae._utils.evaluating import evaluation_mode
from hf_msae._utils.fingerprint import accepted_fingerprints, array_fingerprint, model_fingerprint


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_ends_with_its_block_even_after_an_error(training):
    model = torch.nn.Dropout().train(training)
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not model.training
        raise KeyError
    assert model.training == training


def test_a_fingerprint_is_of_what_a_model_computes(tmp_path):
    model = MSAEModel(MSAEConfig(d_in=4, num_latents=8, nesting_ks=[2, 8]))
    fingerprint = model_fingerprint(model)
    model.save_pretrained(tmp_path)
    loaded = MSAEModel.from_pretrained(tmp_path)
    assert model_fingerprint(loaded) == fingerprint == accepted_fingerprints(loaded)[0]
    loaded.config.nesting_ks = [4, 8]
    assert model_fingerprint(loaded) != fingerprint, "another setting"
    assert model_fingerprint(model.bfloat16()) != fingerprint, "other weights"


def test_a_fingerprint_of_an_array_is_of_its_rows_and_their_order_but_not_of_rounding():
    rows = np.random.default_rng(0).normal(size=(500, 16))
    other = rows.copy()
    other[7] *= -1
    assert (
        array_fingerprint(rows) == array_fingerprint(rows * (1 + 1e-9)) == array_fingerprint(rows.astype(np.float32))
    )
    kinds = (rows, other, rows[::-1], 2 * rows, rows[:, :8], rows[:, 0], 0 * rows)
    assert len(set(map(array_fingerprint, kinds))) == len(kinds)
