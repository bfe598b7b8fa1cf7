"""Which rows are of one picture, and the half that names are tested on."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_msae.concepts.halves import picture_groups, random_half, usual_rows
from hf_msae.embeddings import load_embeddings

PICTURES = torch.randn(60, 16, generator=torch.Generator().manual_seed(0)) + 4


def test_without_copies_every_row_is_a_group_of_its_own():
    assert picture_groups(load_embeddings(PICTURES)).tolist() == list(range(60))


@pytest.mark.parametrize("change", [1.0, 1 + 1e-6, 3.0])
def test_copies_are_one_group_wherever_they_are(change):
    rows = np.random.default_rng(1).permutation(np.r_[np.arange(60), 7, 7, 30])
    embeddings = PICTURES[rows]
    embeddings[rows == 7] *= torch.tensor([1.0, change, change])[:, None]
    groups = picture_groups(load_embeddings(embeddings), batch_size=10)
    assert len(np.unique(groups)) == 60 and groups.max() == 59
    for picture in (7, 30):
        assert len(np.unique(groups[rows == picture])) == 1
    first = np.unique(groups, return_index=True)[1]
    assert (np.diff(first) > 0).all()  # numbered in order of their first row
    held_out = random_half(groups, 0)
    assert len(np.unique(held_out[rows == 7])) == 1


def test_pictures_that_differ_a_little_are_different():
    near = torch.cat([PICTURES, PICTURES + 0.01 * torch.randn(60, 16, generator=torch.Generator().manual_seed(1))])
    assert len(np.unique(picture_groups(load_embeddings(near)))) == 120


def test_pictures_of_the_same_tokens_are_copies():
    rows = [[0, 1, 2], [3, 4], [0, 1, 2], [0, 1], [5, 6]]
    tokens = Dataset.from_dict({"image_embeds": [PICTURES[row].tolist() for row in rows]})
    embeddings = load_embeddings(tokens)
    assert embeddings.has_tokens
    assert picture_groups(embeddings, batch_size=2).tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 3, 3]


def test_half_of_the_groups_are_held_out():
    assert random_half(np.arange(100), 3).sum() == 50
    assert random_half(np.repeat(np.arange(100), 3), 3).sum() == 150
    assert (random_half(np.arange(100), 3) != random_half(np.arange(100), 4)).any()


def test_a_few_rows_far_along_the_words_are_left_out_with_a_warning():
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(2)) + 4
    word = torch.eye(16)[0]
    assert usual_rows(load_embeddings(x), word) == range(500)
    x[[3, 70]] = 50 * word
    x[4] = -50 * word
    with pytest.warns(UserWarning, match=r"without 3 of the 500 .*rows 3, 4, 70"):
        rows = usual_rows(load_embeddings(x), word, batch_size=64)
    assert rows.tolist() == [row for row in range(500) if row not in (3, 4, 70)]


def test_pictures_of_another_kind_are_no_exceptions(recwarn):
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(2)) + 4
    x[:490] = x[:1]  # most are blank
    assert usual_rows(load_embeddings(x), torch.eye(16)[0]) == range(500)
    assert not recwarn.list
