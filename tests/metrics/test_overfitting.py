"""Whether a model fits the rows it was trained on alone."""

import pytest

from hf_msae.metrics.overfitting import overfitting


@pytest.mark.parametrize(
    ("fvu", "train_fvu", "is_said"),
    [(0.08, 0.02, True), (0.029, 0.02, False), (0.004, 0.001, False), (0.02, 0.08, False), (0.08, None, False)],
)
def test_a_model_has_overfitted_if_held_out_rows_fare_far_worse(fvu, train_fvu, is_said):
    said = overfitting({"fvu": fvu, "train_fvu": train_fvu})
    assert (said is not None) == is_said
    if is_said:
        assert "0.0800" in said and "0.0200" in said
    assert overfitting({"fvu": fvu}) is None
