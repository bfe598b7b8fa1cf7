"""benchmarks/worlds.py, and what is measured on the worlds, with a world whose truth is planted."""

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.concepts import ConceptTable

WIDTH = 12
WORDS = ("flag", "card", "star", "hotel")


@pytest.fixture
def planted(benchmark_module):
    """A world in which word i is dimension i of the embeddings, and an MSAE with a latent for each dimension."""
    worlds = benchmark_module("worlds")
    rng = np.random.default_rng(0)
    truth = rng.random((800, len(WORDS))) < 0.25
    pictures = 0.1 * rng.normal(size=(800, WIDTH))
    pictures[:, : len(WORDS)] += truth
    others = tuple(f"other {i}" for i in range(WIDTH - len(WORDS)))
    pictures = torch.tensor(pictures, dtype=torch.float32)
    world = worlds.World("planted", "none", pictures, truth, WORDS, others, ("{}",), 400)
    world.__dict__["embeds"] = torch.eye(WIDTH)  # instead of a backbone's
    msae = MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=WIDTH, nesting_ks=[WIDTH])).eval()
    with torch.no_grad():
        msae.encoder.copy_(torch.eye(WIDTH))
        msae.decoder.copy_(torch.eye(WIDTH))
    return world, msae


def table_of(names, validated):
    n = len(names)
    table = ConceptTable.from_columns(names, np.ones(n), names, np.zeros(n), p_value=np.zeros(n), q_value=np.zeros(n))
    return ConceptTable(table.frame.assign(q_value=np.where(validated, 0.0, 1.0)))


def test_only_validated_names_that_are_right_are_true(planted, monkeypatch):
    world, msae = planted
    names = ["flag", "star", "flag", "hotel", "other 0", *[None] * 7]
    table = table_of(names, [True, True, True, False, True, *[False] * 7])
    monkeypatch.setattr(type(world), "names", lambda self, msae: table)
    judged = world.judged_names(msae)
    assert judged.loc[judged["true"], ["latent", "name"]].to_dict("list") == {"latent": [0], "name": ["flag"]}


def test_names_are_made_from_the_first_pictures_and_judged_by_the_others(planted):
    world, msae = planted
    world.truth[400:] = np.roll(world.truth[400:], 1, axis=0)
    assert world.names(msae).validated()["name"].isin(WORDS).any()
    assert not world.judged_names(msae)["true"].any()


def test_dictionaries_of_random_embeddings_have_true_names_without_training(planted, benchmark_module):
    from hf_msae.embeddings import load_embeddings

    world, _ = planted
    world.pictures[:, len(WORDS) :] *= 0.1  # pictures with a word and nothing else point at it
    comparison = benchmark_module("comparison")
    data = comparison.Data(load_embeddings(world.pictures), None, world=world)
    found = comparison.untrained_names(data, 64, [0, 1]).groupby("dictionary").sum()
    assert found.loc["random embeddings", "distinct words"] > found.loc["random directions", "distinct words"] >= 0


def test_a_word_is_usable_if_it_has_a_name_and_pictures_on_both_sides(planted):
    world, _ = planted
    world.truth[410:, WORDS.index("card")] = False
    world.truth[:391, WORDS.index("star")] = False
    table = table_of(["flag", "card", "star", "other 0"], [True] * 4)
    assert world.usable(table) == ["flag"]


def test_queries_know_which_pictures_are_right(planted, benchmark_module):
    world, _ = planted
    quality = benchmark_module("search_quality")
    asked = list(quality.queries(world, ["flag", "card"], 10, np.random.default_rng(0)))
    truth = world.truth[400:]
    right = {(kind, tuple(weights.items())): found for kind, weights, found in asked}
    assert np.array_equal(right["a", (("card", 1.0),)], truth[:, 1])
    assert np.array_equal(right["a, not b", (("flag", 1.0), ("card", -1.0))], truth[:, 0] & ~truth[:, 1])
    assert right["a and b", (("flag", 1.0), ("card", 1.0))].sum() == (truth[:, 0] & truth[:, 1]).sum()
    assert quality.precision(np.array([True, False, True]), np.array([3.0, 2.0, 1.0]), top=2) == 0.5


def test_every_way_to_remove_a_word_removes_it_and_random_directions_do_not(planted, benchmark_module):
    world, msae = planted
    editing = benchmark_module("editing")
    ways = editing.removals(world, msae, table_of([*WORDS, *world.others], [True] * WIDTH), "flag")
    (_, (last, truth)), flag = world.parts(), torch.eye(WIDTH)[0]
    found = {way: editing.auroc(remove(last), flag, truth[:, 0]) for way, remove in ways.items()}
    assert found["nothing"] > 0.99 and found["random"] > 0.9
    gone = {way: found[way] for way in ("latent", "latents", "text", "difference")}
    assert max(gone.values()) < 0.8, gone  # what lies below zero is in no code, so a little is left


def test_reports_are_counted_by_what_was_planted(benchmark_module):
    bias = benchmark_module("bias")
    frame = pd.DataFrame(
        {
            "name": ["star", "red", "night", "beach", "snow"],
            "drives": [True, True, False, True, True],
            "log_odds": [3.0, 2.0, 0.0, 4.0, -1.0],
            "z": [9.0, 5.0, 0.0, 4.0, -4.0],
            "effect": [0.5, 0.2, 0.0, 0.1, -0.1],
        }
    )
    found = bias.counts(frame, "star", "red", ["beach", "red"])
    assert (found["target found"], found["cause found"], found["rank of cause by log-odds"]) == (True, True, 3)
    assert (found["innocent concepts"], found["innocent concepts found"], found["related concepts found"]) == (2, 1, 1)
    assert found["innocent concepts found, by name"] == "snow"


def test_a_common_part_is_added_to_words_until_it_has_its_share(benchmark_module):
    naming = benchmark_module("naming")
    generator = torch.Generator().manual_seed(0)
    pictures, words = torch.randn(300, WIDTH, generator=generator), torch.randn(40, WIDTH, generator=generator)
    unit = torch.nn.functional.normalize
    for share in (0.4, 0.8):
        scores = unit(pictures, dim=-1) @ naming.with_common_part(words, pictures, share).T
        assert scores.mean(dim=1).var() / scores.var(dim=0).mean() == pytest.approx(share, rel=1e-4)
    with pytest.raises(ValueError, match=r"0\.01"):
        naming.with_common_part(words, pictures, 0.01)


def test_intervals_of_precision_draw_words(benchmark_module):
    interval = benchmark_module("naming").interval
    one = pd.DataFrame({"name": ["flag"] * 9 + ["led"], "true": [True] * 9 + [False]})
    found = interval(pd.Series([one, one, np.nan]))
    assert (found["names"], found["precision"], found["low"], found["high"]) == (20, 0.9, 0.0, 1.0)
    many = pd.DataFrame({"name": [f"word {i}" for i in range(10)], "true": [True] * 9 + [False]})
    assert 0.6 < interval(pd.Series([many]))["low"] < 0.9
    assert interval(pd.Series([np.nan]))["names"] == 0
