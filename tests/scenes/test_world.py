"""The ground truth: concepts, independence, correlations, determinism."""

import numpy as np
import pytest

from hf_msae.scenes import CONCEPTS, GROUPS, sample_scene
from hf_msae.scenes.world import GROUP_OF, POSITIONS, check_correlations, with_concept


@pytest.fixture(scope="module")
def plain():
    """Scenes without correlations."""
    return [sample_scene("train", 0, i) for i in range(1200)]


def rate(scenes, concept, given=None):
    pool = [s for s in scenes if given is None or given in s.concepts]
    return np.mean([concept in s.concepts for s in pool]), len(pool)


def test_there_are_at_least_sixty_distinct_concepts():
    assert len(CONCEPTS) == len(set(CONCEPTS)) >= 60
    assert sorted(c for members in GROUPS.values() for c in members) == sorted(CONCEPTS)


def test_a_scene_depends_on_split_seed_and_index_alone():
    assert sample_scene("train", 3, 7) == sample_scene("train", 3, 7)
    others = [sample_scene("test", 3, 7), sample_scene("train", 4, 7), sample_scene("train", 3, 8)]
    assert all(other.concepts != sample_scene("train", 3, 7).concepts for other in others)


def test_every_concept_occurs_and_objects_keep_apart(plain):
    assert set().union(*(s.concepts for s in plain)) == set(CONCEPTS)
    for scene in plain:
        places = [thing.position for thing in scene.objects]
        assert len(set(places)) == len(places) and set(places) <= set(POSITIONS)


def test_groups_are_independent_without_correlations(plain):
    base, _ = rate(plain, "beach")
    given, count = rate(plain, "beach", given="red")
    assert abs(given - base) < 4 * np.sqrt(base * (1 - base) / count)


@pytest.mark.parametrize(
    ("cause", "effect"),
    [("beach", "frame"), ("star", "watermark"), ("vintage", "paper"), ("three", "night"), ("beach", "star")],
)
def test_a_correlation_about_the_scene_has_the_rate_that_was_set(plain, cause, effect):
    scenes = [sample_scene("train", 0, i, {(cause, effect): 0.9}) for i in range(600)]
    given, count = rate(scenes, effect, given=cause)
    assert abs(given - 0.9) < 4 * np.sqrt(0.09 / count)
    assert abs(rate(scenes, cause)[0] - rate(plain[:600], cause)[0]) < 0.05, "the cause keeps its base rate"


def test_a_correlation_within_an_object_binds_that_object():
    scenes = [sample_scene("train", 0, i, {("star", "yellow"): 0.8}) for i in range(800)]
    stars = [thing for scene in scenes for thing in scene.objects if thing.shape == "star"]
    others = [thing for scene in scenes for thing in scene.objects if thing.shape != "star"]
    assert abs(np.mean([t.colour == "yellow" for t in stars]) - 0.8) < 4 * np.sqrt(0.16 / len(stars))
    assert abs(np.mean([t.colour == "yellow" for t in others]) - 1 / 11) < 0.03


def test_a_correlation_of_zero_excludes_and_a_later_rule_wins():
    never = [sample_scene("train", 0, i, {("beach", "red"): 0.0}) for i in range(500)]
    assert rate(never, "red", given="beach")[0] == 0
    both = {("beach", "frame"): 0.0, ("red", "frame"): 1.0}
    scenes = [sample_scene("train", 0, i, both) for i in range(500)]
    assert rate(scenes, "frame", given="red")[0] == 1


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({("read", "beach"): 0.5}, "'read'.*'red'"),
        ({("red", "beach"): 1.5}, "1.5.*between 0 and 1"),
        ({("red", "beach"): "x"}, "'x'.*between 0 and 1"),
        ({("red", "blue"): 0.5}, "'colour'"),
        ({("red", "left"): 0.5}, "'left' is a position"),
        ({("red", "two"): 0.5}, "'two' is a count"),
        ({"red": 0.5}, "pair.*'red'"),
    ],
)
def test_impossible_correlations_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        check_correlations(rules)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        sample_scene("dev", 0, 0)


SETTABLE = [concept for concept in CONCEPTS if GROUP_OF[concept] not in ("position", "count")]


@pytest.mark.parametrize("present", [True, False])
def test_a_concept_is_set_and_nothing_else_changes(present):
    for scene in (sample_scene("test", 3, index) for index in range(10)):
        for concept in SETTABLE:
            other = with_concept(scene, concept, present)
            assert (concept in other.concepts) is present, concept
            assert other == with_concept(scene, concept, present), "it depends on scene and concept alone"
            if (concept in scene.concepts) is present:
                assert other == scene
            changed = scene.concepts ^ other.concepts
            assert {GROUP_OF[each] for each in changed} <= {GROUP_OF[concept]}
            assert len(other.objects) == len(scene.objects)
            differing = [a != b for a, b in zip(scene.objects, other.objects, strict=True)]
            assert sum(differing) <= (1 if present else 3)


def test_what_cannot_be_set_is_refused():
    scene = sample_scene("test", 3, 0)
    for concept, why in (("two", "count"), ("left", "position"), ("unicorn", "no such")):
        with pytest.raises(ValueError, match=f"{concept!r}.*{why}"):
            with_concept(scene, concept)
