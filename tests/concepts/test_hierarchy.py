"""Hierarchies: planted parents are found, and neither what is always active nor chance is one."""

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae.concepts import ConceptHierarchy, ConceptTable, concept_hierarchy, hierarchy
from hf_msae.concepts.codes import collect_codes
from hf_msae.concepts.collectors import SparseCollector
from hf_msae.embeddings import load_embeddings
from tests.identity_msae import identity_msae

N, ROWS = 10, 2000
NAMES = ConceptTable.from_columns([f"n{i}" for i in range(N)], np.ones(N), [None] * N, np.zeros(N))


def planted():
    """0 is an animal; 1 a dog, always an animal; 2 a poodle, always a dog; 3 is of nothing; 4 always there; 5 rare;
    6 is with the animal in 70% of its samples; 7 is the twin of 3."""
    rng = np.random.default_rng(0)
    z = np.zeros((ROWS, N))
    z[:, 0] = rng.uniform(size=ROWS) < 0.4
    z[:, 1] = z[:, 0] * (rng.uniform(size=ROWS) < 0.4)
    z[:, 2] = z[:, 1] * (rng.uniform(size=ROWS) < 0.4)
    z[:, 3] = rng.uniform(size=ROWS) < 0.3
    z[:, 4] = 1
    z[:10, 5] = 1
    z[:, 6] = np.where(z[:, 0] > 0, rng.uniform(size=ROWS) < 0.35, rng.uniform(size=ROWS) < 0.1)
    z[:, 7] = z[:, 3]
    return z * np.array([5, 4, 3, 2, 9, 1, 1.5, 1.8, 1, 1])


@pytest.fixture(scope="module")
def world():
    z = planted()
    model = identity_msae(N, [2, 4, N])
    return model, load_embeddings(z.astype(np.float32)), z


@pytest.mark.parametrize("batch_size", [4096, 301])
def test_planted_parents_are_found_and_nothing_else(world, batch_size):
    model, embeddings, z = world
    found = concept_hierarchy(model, embeddings, NAMES, k=N, batch_size=batch_size, progress=False)
    assert list(zip(found.edges["parent_name"], found.edges["child_name"], strict=True)) == [
        ("n0", "n1"),
        ("n1", "n2"),
    ]
    assert set(found.concepts["latent"]) == {0, 1, 2, 3, 4, 6, 7}, "5 is too rare"
    edge = found.edges.iloc[0]
    active = z > 0
    both = (active[:, 0] & active[:, 1]).sum()
    assert (edge["together"], edge["parent_given_child"]) == (both, 1.0)
    assert edge["child_given_parent"] == pytest.approx(both / active[:, 0].sum())
    assert edge["lift"] == pytest.approx(1 / active[:, 0].mean()) and 0.98 < edge["low"] < 1
    assert found.concepts["count"].tolist() == active.sum(axis=0)[found.concepts["latent"]].tolist()
    assert found.children() == [0] and found.children(0) == [1] and found.children(1) == [2]


def test_conditions_decide(world):
    model, embeddings, _ = world

    def pairs(**settings):
        edges = concept_hierarchy(model, embeddings, k=N, progress=False, **settings).edges
        return set(edges[["parent", "child"]].itertuples(index=False, name=None))

    assert (0, 6) in pairs(min_parent=0.6, min_lift=1.5)
    assert pairs(max_child=1.0) >= {(3, 7), (7, 3)}, "twins"
    assert (4, 3) in pairs(min_lift=0.5), "what is always active"
    assert pairs(indices=[0, 2, 3]) == {(0, 2)}, "of the parents that are left the rarest"
    assert (0, 5) not in pairs(min_count=5)


def test_pairs_are_the_same_however_many_children_are_held(world, monkeypatch):
    model, embeddings, _ = world
    whole = concept_hierarchy(model, embeddings, k=N, progress=False, max_child=1.0).edges
    monkeypatch.setattr(hierarchy, "_CHILDREN", 2)
    found = concept_hierarchy(model, embeddings, k=N, progress=False, max_child=1.0).edges
    assert len(whole) > 1 and found.equals(whole)
    none = concept_hierarchy(model, embeddings, indices=[], k=N, progress=False)
    assert none.edges.empty and list(none.edges) == list(whole)


def test_levels_of_a_prefix_model_are_widths(world):
    _, embeddings, _ = world
    model = identity_msae(N, [N])
    model.config.nesting, model.config.nesting_widths = "prefix", [2, 5, N]
    found = concept_hierarchy(model, embeddings, k=N, min_count=1, progress=False).concepts
    expected = [next(width for width in (2, 5, N) if latent < width) for latent in found["latent"]]
    assert found["level"].tolist() == expected and set(expected) == {2, 5, N}


def test_levels_are_where_a_concept_mostly_enters(world):
    model, embeddings, z = world
    found = concept_hierarchy(model, embeddings, k=N, progress=False).concepts.set_index("latent")["level"]
    ranks = (-z).argsort(axis=1, kind="stable").argsort(axis=1) + 1
    for latent, level in found.items():
        own = ranks[z[:, latent] > 0, latent]
        expected = next(each for each in (2, 4, N) if (own <= each).mean() >= 0.5)
        assert level == expected
    few = concept_hierarchy(model, embeddings, k=3, progress=False)
    assert set(few.concepts["level"]) <= {2, 3} and few.k == 3


def test_it_prints_and_is_drawn(world):
    model, embeddings, _ = world
    found = concept_hierarchy(model, embeddings, NAMES, k=N, progress=False)
    lines = str(found).splitlines()
    assert lines[0] == found.verdict() and "2 of 7" in lines[0]
    assert lines[1].startswith("n0 (unvalidated) · 0 (") and lines[2].startswith(
        "   n1 (unvalidated) · 1: in 100% of "
    )
    assert lines[3].startswith("      n2 (unvalidated) · 2: in 100%")
    texts = [text.get_text() for text in found.plot().axes[0].texts]
    assert texts == ["n0 (unvalidated) · 0", "n1 (unvalidated) · 1  (100%)", "n2 (unvalidated) · 2  (100%)"]
    assert "latent · 0" in str(concept_hierarchy(model, embeddings, k=N, progress=False))
    concept_hierarchy(model, embeddings, indices=[3, 4], k=N, progress=False).plot()  # nothing to draw


def test_what_is_refused(world):
    model, embeddings, _ = world
    for settings, message in (
        ({"k": 11}, "10.*11"),
        ({"min_parent": 1.0}, "min_parent.*1.0"),
        ({"indices": [3, 10]}, "0 to 9.*10"),
        ({"indices": [-1, 3]}, "-1"),
        ({"indices": np.arange(N) > 5}, "got False"),  # were the latents 0 and 1
        ({"indices": torch.arange(N) > 5}, "got False"),
        ({"indices": [1.5]}, "got 1.5"),
        ({"indices": "n1"}, r"several latents, got 'n1': pass \['n1'\]"),
        ({"indices": ["n1"]}, "'n1' is a name, but these latents have none"),
    ):
        with pytest.raises(ValueError, match=message):
            concept_hierarchy(model, embeddings, **{"k": N, **settings}, progress=False)


def test_latents_are_chosen_by_number_or_name(world):
    model, embeddings, _ = world
    for indices in (["n0", "#1", 7], pd.Series([7, 0, 1], index=list("abc")), torch.tensor([0, 1, 7]), {0, 1, 7}):
        found = concept_hierarchy(model, embeddings, NAMES, indices, k=N, progress=False)
        assert found.concepts["latent"].tolist() == [0, 1, 7]
    with pytest.raises(ValueError, match=r"'n11'; did you mean 'n1'"):
        concept_hierarchy(model, embeddings, NAMES, ["n11"], k=N, progress=False)


def test_codes_at_hand_are_not_computed_again(world):
    model, embeddings, _ = world
    (codes,) = collect_codes(model, embeddings, [SparseCollector(N)], progress=False)
    for k in (N, 3):
        found = concept_hierarchy(model, None, NAMES, k=k, codes=codes, progress=False)
        expected = concept_hierarchy(model, embeddings, NAMES, k=k, progress=False)
        pd.testing.assert_frame_equal(found.edges, expected.edges)
        pd.testing.assert_frame_equal(found.concepts, expected.concepts)
    with pytest.raises(ValueError, match=r"3.*4"):
        concept_hierarchy(model, embeddings, k=4, codes=codes[:, :3])


def test_it_is_saved_and_loaded(world, tmp_path):
    for min_count in (20, 10**6):  # with trees, and with nothing at all
        found = concept_hierarchy(world[0], world[1], NAMES, k=N, min_count=min_count, progress=False)
        found.save(tmp_path / "tree.json")
        loaded = ConceptHierarchy.load(tmp_path / "tree.json")
        assert str(loaded) == str(found) and list(loaded.edges) == list(found.edges)
