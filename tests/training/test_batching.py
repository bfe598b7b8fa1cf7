"""Batch plans: deterministic epochs, and the same global batches however they are cut."""

import numpy as np
import pytest
import torch

from hf_msae.embeddings import load_embeddings
from hf_msae.training.batching import BatchPlan


def global_batches(plan, epoch, first_step=0):
    """The set of rows of each optimizer step, gathered over processes and accumulation steps."""
    parts = [list(plan.epoch_batches(epoch, rank, first_step)) for rank in range(plan.num_processes)]
    steps = len(parts[0]) // plan.gradient_accumulation_steps
    size = plan.gradient_accumulation_steps
    return [np.concatenate([np.concatenate(p[i * size : (i + 1) * size]) for p in parts]) for i in range(steps)]


def test_an_epoch_visits_every_row_at_most_once_and_leaves_out_less_than_a_batch():
    plan = BatchPlan(num_rows=103, per_device_batch_size=10, seed=1)
    rows = np.concatenate(list(plan.epoch_batches(0)))
    assert plan.steps_per_epoch == 10
    assert len(rows) == 100 == len(np.unique(rows))
    assert 0 <= rows.min() and rows.max() < 103


def test_epochs_and_seeds_shuffle_differently_and_repeatably():
    def order(seed, epoch):
        return np.concatenate(list(BatchPlan(100, 10, seed=seed).epoch_batches(epoch)))

    assert np.array_equal(order(1, 3), order(1, 3))
    assert not np.array_equal(order(1, 3), order(1, 4))
    assert not np.array_equal(order(1, 3), order(2, 3))
    assert not np.array_equal(order(1, 3), np.sort(order(1, 3)))


@pytest.mark.parametrize(("batch", "processes", "accumulation"), [(4, 2, 1), (4, 1, 2), (2, 2, 2)])
def test_every_cut_of_the_global_batch_holds_the_same_rows_in_the_same_order_of_steps(batch, processes, accumulation):
    whole = global_batches(BatchPlan(50, 8, seed=5), epoch=2)
    cut = global_batches(BatchPlan(50, batch, processes, accumulation, seed=5), epoch=2)
    assert len(whole) == len(cut) == 6
    for expected, actual in zip(whole, cut, strict=True):
        assert np.array_equal(np.sort(expected), np.sort(actual))


def test_an_epoch_can_be_entered_at_any_step():
    plan = BatchPlan(64, 4, 2, 2, seed=0)
    for rank in range(2):
        whole = list(plan.epoch_batches(1, rank))
        tail = list(plan.epoch_batches(1, rank, first_step=3))
        assert len(tail) == len(whole) - 6
        assert all(np.array_equal(a, b) for a, b in zip(whole[6:], tail, strict=True))


def test_the_batch_size_shrinks_to_what_the_rows_fill():
    assert BatchPlan.fit(100, 64, 1, 1, seed=0).per_device_batch_size == 64
    assert BatchPlan.fit(100, 64, 2, 1, seed=0).per_device_batch_size == 50
    assert BatchPlan.fit(100, 64, 2, 4, seed=0).per_device_batch_size == 12
    with pytest.raises(ValueError, match=r"3 rows.* 4"):
        BatchPlan.fit(3, 64, 2, 2, seed=0)


def test_the_loader_fetches_the_planned_rows_and_leaves_the_random_state_alone():
    embeddings = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    plan = BatchPlan(20, 4, 1, 1, seed=9)
    state = torch.get_rng_state()
    loader = plan.loader(load_embeddings(embeddings), epoch=1, first_step=2)
    batches = list(loader)
    assert torch.equal(state, torch.get_rng_state())
    assert len(batches) == len(loader) == 3
    assert all(map(torch.equal, loader, batches))  # a second pass
    for rows, batch in zip(plan.epoch_batches(1, first_step=2), batches, strict=True):
        assert torch.equal(batch, torch.from_numpy(embeddings[rows]))


@pytest.mark.parametrize(("rows", "window", "batch"), [(5003, 1000, 64), (2560, 256, 100), (300, 256, 300)])
def test_a_window_bounds_how_far_a_batch_reaches(rows, window, batch):
    plan = BatchPlan(rows, batch, seed=3, window_rows=window)
    batches = list(plan.epoch_batches(1))
    assert len(batches) == plan.steps_per_epoch
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == len(seen) == plan.steps_per_epoch * batch
    blocks = -(-max(window, 256) // 256)
    # A batch may begin in one window and end in the next.
    assert max(len(np.unique(each // 256)) for each in batches) <= 2 * blocks
    for first_step in range(0, plan.steps_per_epoch, 7):
        entered = list(plan.epoch_batches(1, first_step=first_step))
        assert all(np.array_equal(a, b) for a, b in zip(entered, batches[first_step:], strict=True))
    assert batch == rows or not np.array_equal(seen, np.concatenate(list(plan.epoch_batches(2))))


@pytest.mark.parametrize("window", [None, 512])
def test_the_rows_of_a_step_are_those_of_its_batch(window):
    plan = BatchPlan(2000, 10, num_processes=2, gradient_accumulation_steps=3, seed=5, window_rows=window)
    for step in (1, 20, plan.steps_per_epoch, plan.steps_per_epoch + 2):
        epoch, place = divmod(step - 1, plan.steps_per_epoch)
        assert np.array_equal(plan.rows_of_step(step), np.sort(global_batches(plan, epoch)[place]))


def test_a_loader_counts_the_parts_of_an_accumulated_step():
    plan = BatchPlan(50, 4, num_processes=2, gradient_accumulation_steps=3)
    loader = plan.loader(load_embeddings(np.random.default_rng(0).normal(size=(50, 3))), 0, process_index=1)
    assert len(loader) == len(list(loader)) == 6
