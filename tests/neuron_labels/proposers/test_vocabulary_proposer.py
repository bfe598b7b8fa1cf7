import json

import numpy as np
import pytest

from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels.proposers.base import Request
from hf_msae.neuron_labels.proposers.vocabulary import VocabularyProposer
from hf_msae.neuron_labels.words import same_words

WORDS = [f"{color} {thing}" for color in ("red", "green", "blue", "gray") for thing in ("cup", "kite", "hut", "rope")]


def word_embeds(texts):
    """One direction for each word, and a large one that all texts share."""
    names = ("red", "green", "blue", "gray", "cup", "kite", "hut", "rope", "ruby")
    rows = np.array([[5.0, *(float(name in text.lower()) for name in names)] for text in texts], dtype=np.float32)
    rows[:, 1] += rows[:, -1]  # a ruby is red
    return rows[:, :-1]


def search(proposer, score, steps, start):
    scores = {concept: score(concept) for concept in start}
    for step in range(steps):
        ranked = tuple(sorted(scores.items(), key=lambda pair: -pair[1]))
        [answer] = proposer.propose([Request(ranked, tuple(scores), seed=step)])
        scores[answer.concept] = score(answer.concept)
    return list(scores)


def test_says_that_it_is_not_a_language_model():
    proposer = VocabularyProposer(["star"])
    assert proposer.is_language_model is False
    assert "not a language model" in repr(proposer)
    assert "not a language model" in VocabularyProposer.__doc__
    assert proposer.settings["is_language_model"] is False


def test_finds_what_is_like_the_best():
    found = search(
        VocabularyProposer(WORDS, word_embeds), lambda word: float("red" in word), 8, ["red cup", "blue hut"]
    )
    assert {"red kite", "red hut", "red rope"} <= set(found[:8])


def test_concepts_outside_of_the_vocabulary_count():
    proposer = VocabularyProposer(WORDS, word_embeds, exploration=0)
    [answer] = proposer.propose([Request((("ruby", 1.0), ("green hut", 0.0), ("blue kite", 0.1)), ("ruby",))])
    assert answer.concept.startswith("red")


def test_merges_to_what_the_best_have_in_common():
    proposer = VocabularyProposer([*WORDS, "red"], word_embeds)
    scores = (("red cup", 0.95), ("red kite", 0.93), ("red hut", 0.94), ("blue hut", 0.1))
    [answer] = proposer.propose([Request(scores, tuple(name for name, _ in scores), merge=True)])
    assert answer.concept == "red"


@pytest.mark.parametrize("embeds", [None, word_embeds], ids=["order", "embeddings"])
@pytest.mark.parametrize(
    "scores", [(), (("red cup", 0.5), ("blue cup", 0.5)), (("red cup", float("nan")),), (("1\n2", 1.0),)]
)
def test_never_proposes_what_to_avoid_and_says_when_all_were_tried(embeds, scores):
    proposer, avoid = VocabularyProposer(WORDS, embeds), ["1\n2", "Red Cups!", "something else"]
    for _ in range(len(WORDS) - 1):
        [answer] = proposer.propose([Request(scores, tuple(avoid))])
        assert same_words(answer.concept) not in map(same_words, avoid[1:])
        avoid.append(answer.concept)
    [answer] = proposer.propose([Request(scores, tuple(avoid))])
    assert answer.concept is None
    assert "16" in answer.problem


def test_the_order_without_embeddings_is_the_seeds():
    def order(seed):
        tried = []
        for _ in WORDS:
            tried.append(VocabularyProposer(WORDS, seed=seed).propose([Request(avoid=tuple(tried))])[0].concept)
        return tried

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(WORDS) != order(0)
    assert VocabularyProposer(WORDS, seed=3).first(4) == order(3)[:4]


def test_starts_with_words_that_are_far_apart():
    proposer = VocabularyProposer(WORDS, word_embeds)
    first = proposer.first(4, seed=1)
    assert first == proposer.first(4, seed=1)
    assert {tuple(proposer.first(4, seed)) for seed in range(5)} != {tuple(first)}
    assert len({word.split()[0] for word in first}) >= 3
    assert set(proposer.first(99)) == set(WORDS)


def test_a_vocabulary_is_cleaned_and_read_with_its_templates():
    read = []

    def embeds(texts):
        read.extend(texts)
        return word_embeds(texts)

    vocabulary = Vocabulary(["The Star", "stars", "1234", "red cup"], templates=["a photo of a {}"])
    proposer = VocabularyProposer(vocabulary, embeds)
    assert proposer.words == ["star", "red cup"]
    proposer.propose([Request((("ruby", 1.0),))])
    assert sorted(read) == ["a photo of a red cup", "a photo of a ruby", "a photo of a star"]


def test_settings_tell_vocabularies_and_embeddings_apart():
    settings = [
        VocabularyProposer(*arguments, **options).settings
        for arguments, options in [
            ((WORDS,), {}),
            ((WORDS[1:],), {}),
            ((WORDS, word_embeds), {}),
            ((WORDS, lambda texts: word_embeds(texts)[:, ::-1].copy()), {}),
            ((WORDS,), {"seed": 1}),
            ((WORDS,), {"exploration": 2.0}),
            ((Vocabulary(WORDS, templates=["a {}"]),), {}),
        ]
    ]
    assert len({json.dumps(each) for each in settings}) == len(settings)
    assert VocabularyProposer(WORDS, word_embeds).settings == settings[2]


@pytest.mark.parametrize(
    ("arguments", "offender"), [((["12", "?"],), "2 words"), ((["a cup"], None, -1.0), "-1.0"), (("cup",), "cup")]
)
def test_refuses(arguments, offender):
    words, embeds, *exploration = arguments if len(arguments) > 1 else (*arguments, None)
    with pytest.raises((ValueError, TypeError), match=offender):
        VocabularyProposer(words, embeds, **({"exploration": exploration[0]} if exploration else {}))


def test_refuses_embeddings_that_are_not_finite():
    proposer = VocabularyProposer(
        ["cup", "hut"], lambda texts: np.array([[1.0, float("nan" if "hut" in t else 1)] for t in texts])
    )
    with pytest.raises(ValueError, match="hut"):
        proposer.propose([Request((("cup", 1.0),))])


def test_a_large_vocabulary_is_embedded_once():
    rng, calls = np.random.default_rng(0), []

    def embeds(texts):
        calls.append(len(texts))
        return rng.standard_normal((len(texts), 16)).astype(np.float32)

    proposer = VocabularyProposer([f"w{number}x" for number in range(2_000)], embeds)
    scores = tuple((f"w{number}x", 1 - number / 100) for number in range(100))
    proposer.propose([Request(scores[:1])])
    proposer.propose([Request(scores, tuple(name for name, _ in scores))])
    assert calls == [2_000]  # embedded once
    assert proposer._embeds.dtype == np.float32
