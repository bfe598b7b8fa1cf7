"""The table of names: its columns, look-ups, what counts as validated, and its file."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hf_msae.concepts import ConceptTable

COLUMNS = ["latent", "name", "similarity", "runner_up", "runner_up_similarity", "p_value", "q_value", "validated"]


@pytest.fixture
def table():
    return ConceptTable.from_columns(
        ["a", "a", "b", "a", None], np.array([0.9, 0.5, 0.6, 0.7, 0.8]), ["c"] * 5, np.full(5, 0.3),
        q_value=np.array([0.2, 0.01, 0.05, 0.01, 0.01]), ratio=np.array([3, 5 / 3, 2, 7 / 3, 8 / 3]),
    )  # fmt: skip


@pytest.fixture
def untested(table):
    return replace(table, frame=table.frame.drop(columns="q_value"))


def test_the_columns_are_fixed_and_say_which_names_are_validated(table, untested):
    frame = table.to_pandas()
    assert list(frame) == [*COLUMNS, "ratio"] and frame["validated"].dtype == bool
    assert frame["validated"].tolist() == [False, True, True, True, True] and frame["p_value"].isna().all()
    assert list(untested.to_pandas()) == [*COLUMNS, "ratio"] and not untested.to_pandas()["validated"].any()


def test_look_ups(table):
    assert table["a"]["latent"].tolist() == [0, 3, 1] and table[2].iloc[0]["name"] == "b"
    assert table.latent_of("a") == 0
    with pytest.raises(KeyError, match="moon"):
        table["moon"]
    with pytest.raises(ValueError, match=r"'aa'.*'a'"):
        table.latent_of("aa")


def test_the_best_latent_of_each_name(table, untested):
    assert table.validated()["latent"].tolist() == [4, 3, 2, 1]
    assert table.best()["latent"].tolist() == [0, 2] and table.best(1)["latent"].tolist() == [0]
    assert table.best_validated()["latent"].tolist() == [3, 2]
    assert table.best_validated(n=1)["name"].tolist() == ["a"]
    assert table.best_validated(q=0.5)["latent"].tolist() == [0, 2]
    for q, latents, validated in ((0.05, [3, 2], True), (1e-9, [0, 2], False)):
        rows, known = table.best_available(q)
        assert (rows["latent"].tolist(), known) == (latents, validated)
    assert untested.best_available()[1] is False and not untested.has_q_values
    with pytest.raises(ValueError, match=r"q_value.*name_latents"):
        untested.validated()
    with pytest.raises(ValueError, match=r"q.*5"):
        table.validated(5)
    assert table.by_rule(0.55, 2.2)["latent"].tolist() == [0, 4, 3]


def test_names_by_activations_are_added_by_latent(table):
    found = pd.DataFrame({"latent": [2, 0, 1, 4, 3], "activation_name": ["b", "z", None, "c", "a"]})
    both = table.with_activation_names(found.assign(num_active=[5, 6, 0, 1, 2]))
    assert both.frame["agrees"].tolist() == [False, False, True, True, False]
    assert both.frame["num_active"].tolist() == [6, 0, 5, 2, 1]
    again = both.with_activation_names(found.assign(activation_name="a", num_active=1))
    assert again.frame["agrees"].tolist() == [True, True, False, True, False]
    assert list(again.frame) == list(both.frame)
    with pytest.raises(ValueError, match=r"2 latents.*5"):
        table.with_activation_names(found.head(2))


def test_a_table_is_saved_with_its_provenance(table, tmp_path):
    path = tmp_path / "concepts" / "words.parquet"
    table.provenance.update(vocabulary="words.txt", templates=["a {}", "{}"], seed=3)
    table.save(path)
    loaded = ConceptTable.load(path)
    assert loaded.provenance == table.provenance and not loaded.frame.attrs
    pd.testing.assert_frame_equal(loaded.frame, table.frame)
    assert [each.name for each in path.parent.iterdir()] == ["words.parquet"]
    pd.DataFrame({"latent": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match="name, similarity, runner_up"):
        ConceptTable.load(path)
