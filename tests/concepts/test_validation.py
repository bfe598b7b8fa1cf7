"""Why a name is not validated: chance, strength, or no test at all."""

import numpy as np
import pandas as pd
import pytest

from hf_msae.concepts import ConceptTable
from hf_msae.concepts.labels import Labels
from hf_msae.concepts.validation import doubts, rule, too_weak, why_none

Q = [0.01, 0.01, 0.2, 0.2, np.nan, 1.0]
LOW = [0.9, 0.879, 0.95, 0.5, 0.95, np.nan]
DOUBTS = [None, "strength", "chance", "chance", "untested", "chance"]
NAMES = ["a", "b", "c", "d", "e", None]


def frame(bound, **columns):
    return pd.DataFrame({"latent": range(6), "name": NAMES, "q_value": Q, bound: LOW, **columns})


@pytest.mark.parametrize("bound", ["auroc_low", "zero_shot_auroc_low"])
def test_the_reason_is_chance_before_strength(bound):
    table = ConceptTable(frame(bound, agreement=0.5, similarity=0.1))
    assert doubts(table.frame).tolist() == DOUBTS
    assert doubts(table.frame, 0.3).tolist() == [None, "strength", None, "strength", "untested", "chance"]
    labels = Labels(table)
    assert [labels(latent).doubt for latent in range(5)] == DOUBTS[:5] and labels(5).name is None
    assert [labels(latent).validated for latent in range(6)] == [True, *[False] * 5] and labels.has_strength_test
    assert table.validated()["latent"].tolist() == [0]
    assert too_weak(table.frame).startswith("1 latent has") and too_weak(table.frame, 0.3).startswith("2 latents have")
    assert "0.9" in rule(table.frame) and "0.3" in rule(table.frame, 0.3)
    weak = table.frame[table.frame["latent"] != 0]
    assert why_none(weak) == too_weak(weak) != ""
    assert "no q-value" in why_none(weak[weak["latent"] > 1])


def test_names_from_directions_can_only_be_due_to_chance():
    table = frame("ratio")
    assert set(doubts(table)) == {None, "chance", "untested"} and too_weak(table) == ""
    assert rule(table) == "q at most 0.05"
    untested = table.drop(columns="q_value")
    assert set(doubts(untested)) == {"untested"} and "no q-values" in why_none(untested)


@pytest.mark.parametrize("bound", ["ratio", "zero_shot_auroc_low"])
def test_a_test_that_finds_nothing_in_any_latent_is_called_that(bound):
    table = frame(bound).assign(q_value=1.0, p_value=[0.31, 0.4, 0.9, 1.0, 1.0, 1.0])
    assert "lowest p-value is 0.31" in why_none(table)
    assert ("use pictures" in why_none(table)) == (bound == "ratio")
    assert "lowest" not in why_none(table.assign(p_value=0.02)) and "lowest" not in why_none(table, 0.5)
