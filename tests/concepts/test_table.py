"""The table of names: its columns, look-ups, what counts as validated, and its file."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hf_msae.concepts import ConceptTable
from hf_msae.concepts.editing import latent_of, values_of_latents
from hf_msae.concepts.table import display_name, name_columns, to_text

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


def test_what_is_no_table_is_refused():
    frame = pd.DataFrame({"latent": [0], "name": ["a"]})
    with pytest.raises(ValueError, match=r"more columns than \['latent', 'name'\]: similarity"):
        ConceptTable(frame)
    assert ConceptTable(frame.assign(similarity=0.5)).latent_of("a") == 0
    with pytest.raises(TypeError, match="made of a DataFrame, got str: load reads a file"):
        ConceptTable("words.parquet")
    for given in (frame, "words.parquet", {0: "a"}):
        with pytest.raises(TypeError, match=rf"concepts must be a ConceptTable, got {type(given).__name__}: .*load"):
            name_columns(given, [0])


def test_look_ups(table):
    assert "b" in table and 4 in table and np.int64(4) in table and "c" not in table and 5 not in table
    with pytest.raises(TypeError, match="not iterable"):
        list(table)
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


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("latent", [0, 1, 2, 0, 4], "each of them once"),
        ("latent", [-1, 1, 2, 3, 4], "from 0 on"),
        ("latent", ["0", "1", "2", "3", "4"], "numbers of latents"),
        ("name", [1, 2, 3, 4, 5], "text"),
        ("runner_up", [None, ["a"], None, ["b"], None], "text"),
        ("similarity", [None, None, "high", None, None], ".*high"),
        ("line_auprc", ["<b>", *[None] * 4], ".*<b>"),
    ],
)
def test_a_value_of_another_kind_is_named(table, tmp_path, column, values, message):
    table.frame.assign(**{column: values}).to_parquet(tmp_path / "words.parquet")
    with pytest.raises(ValueError, match=rf"words\.parquet: the column {column} must hold .*{message}"):
        ConceptTable.load(tmp_path / "words.parquet")


def test_columns_without_any_number_are_read(table, tmp_path):
    table.frame.assign(q_value=None, ratio=None).to_parquet(tmp_path / "words.parquet")
    loaded = ConceptTable.load(tmp_path / "words.parquet")
    assert loaded.validated().empty and loaded.to_pandas()["validated"].tolist() == [False] * 5


@pytest.mark.parametrize("content", [b"", b"PAR1", b"latent,name", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_is_named(tmp_path, content):
    (tmp_path / "words.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.parquet cannot be read as parquet"):
        ConceptTable.load(tmp_path / "words.parquet")
    with pytest.raises(FileNotFoundError, match="none"):
        ConceptTable.load(tmp_path / "none.parquet")


def test_a_name_wins_over_a_number_and_both_can_be_said():
    names = ["red", "3", "star", None, "#2"]
    table = ConceptTable.from_columns(names, np.ones(5), [None] * 5, np.zeros(5))
    for key, latent in (("3", 1), ("#3", 3), ("latent:3", 3), ("latent 3", 3), (3, 3), ("#2", 4), ("latent:2", 2)):
        assert latent_of(key, 5, table) == latent, key
    assert latent_of("3", 5, None) == 3
    for key in ("#5", "latent:", "3.0", "-1"):
        with pytest.raises(ValueError, match=key):
            latent_of(key, 5, table)
    with pytest.raises(ValueError, match=r"latent 1.*'3'"):
        values_of_latents([(1, 1.0), ("3", 2.0)], 5, table)


def test_tables_of_text_mark_names_of_chance_and_leave_out_missing_names():
    table = ConceptTable.from_columns(
        ["red", "star"], np.ones(2), [None] * 2, np.zeros(2), q_value=np.array([0.01, 0.5])
    )
    columns = name_columns(table, [1, 0])
    assert columns == {"name": ["star", "red"], "validated": [False, True]}
    printed = to_text(pd.DataFrame({"latent": [1, 0], **columns}), "{:.1f}")
    assert "star (unvalidated)" in printed and "red (" not in printed
    assert "None" not in to_text(pd.DataFrame({"latent": [1, 0], **name_columns(None, [1, 0])}), "{:.1f}")
    assert display_name("red", 4, False) == "red (unvalidated) · 4" and display_name(None, 4) == "latent · 4"
    assert "star (unvalidated)" in repr(table)


def test_latents_that_a_part_of_a_table_lacks_have_no_name():
    whole = ConceptTable.from_columns(["red", None, "star"], np.ones(3), [None] * 3, np.zeros(3), q_value=np.zeros(3))
    assert name_columns(whole, [2, 1]) == {"name": ["star", None], "validated": [True, True]}
    part = ConceptTable(whole.frame[whole.frame["name"] == "star"])
    assert name_columns(part, [0, 2, 1]) == {"name": [None, "star", None], "validated": [False, True, False]}
