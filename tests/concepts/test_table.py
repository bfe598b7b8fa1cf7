"""The table of names: its columns, and what counts as validated."""

import numpy as np
import pandas as pd
import pytest

from hf_msae.concepts import ConceptTable

COLUMNS = ["latent", "name", "similarity", "runner_up", "runner_up_similarity", "p_value", "q_value", "validated"]


@pytest.fixture
def frame():
    return pd.DataFrame({
        "latent": [0, 1, 2, 3],
        "name": ["red", "red", "star", None],
        "similarity": [0.5, 0.6, 0.4, np.nan],
        "runner_up": ["blue", "blue", "ring", None],
        "runner_up_similarity": [0.1, 0.2, 0.3, np.nan],
        "p_value": [0.01, 0.001, 0.2, np.nan],
        "q_value": [0.05, 0.004, 0.21, np.nan],
    })  # fmt: skip


def test_validated_is_a_boolean_column_of_q_values_up_to_the_level(frame):
    shown = ConceptTable(frame).to_pandas()
    assert list(shown)[:8] == COLUMNS
    assert shown["validated"].dtype == bool and shown["validated"].tolist() == [True, True, False, False]
    assert ConceptTable(frame).validated()["latent"].tolist() == [1, 0]
    assert ConceptTable(frame).best_validated()["latent"].tolist() == [1]


def test_without_q_values_nothing_is_validated(frame, tmp_path):
    untested = ConceptTable(frame.drop(columns=["p_value", "q_value"]))
    assert list(untested.to_pandas())[:8] == COLUMNS
    assert not untested.to_pandas()["validated"].any()
    untested.save(tmp_path / "a.parquet")
    assert ConceptTable.load(tmp_path / "a.parquet").to_pandas()["validated"].tolist() == [False] * 4
