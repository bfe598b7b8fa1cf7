"""Sparse probing and stability across seeds, level by level, against the functions that they are made of."""

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import (
    progressive_ks,
    seed_stability,
    seed_stability_by_level,
    sparse_probing,
    sparse_probing_by_level,
)

D, N = 6, 24
KS = (2, 7, N)


def make_model(seed=0, **settings):
    torch.manual_seed(seed)
    model = MSAEModel(MSAEConfig(**{"d_in": D, "num_latents": N, "nesting_ks": list(KS), **settings}))
    with torch.no_grad():
        model.latent_bias.normal_(-0.5, 0.3)
        model.latent_bias[:5] = -100.0  # dead
    return model


def data(rows, seed):
    """Embeddings in three clusters, and which one."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, rows)
    x = np.eye(3, D)[kind] * 3 + rng.normal(size=(rows, D))
    return x.astype(np.float32), kind


def test_progressive_granularities():
    assert progressive_ks(1024) == [16, 32, 64, 128, 256, 512, 1024]
    assert progressive_ks(100) == [16, 32, 64, 100]
    assert progressive_ks(8) == [8]
    with pytest.raises(ValueError, match=r"smallest.*0"):
        progressive_ks(100, 0)


def test_sparse_probing_of_each_level_is_that_of_its_codes():
    (train, kind), (test, test_kind) = data(300, 0), data(200, 1)
    kind[:30] = test_kind[:20] = -1  # unknown
    model = make_model().train()
    labels = {"kind": (kind, test_kind, ["cat", "dog", "ant"])}
    found = sparse_probing_by_level(
        model, load_embeddings(train), load_embeddings(test), labels, (2, N), (2,), progress=False
    )
    assert model.training and list(found) == [2, N]
    model.eval()
    truth, test_truth = kind[30:, None] == np.arange(3), test_kind[20:, None] == np.arange(3)
    own = sparse_probing(train[30:], truth, test[20:], test_truth, (2,), progress=False).summary()
    for k in (2, N):
        with torch.no_grad():
            codes, test_codes = (model.encode(torch.from_numpy(x), k=k) for x in (train[30:], test[20:]))
        expected = sparse_probing(codes, truth, test_codes, test_truth, (2,), progress=False).summary()
        figures = {
            f"{prefix}{name}_2": means.loc[2, name]
            for prefix, means in (("", expected), ("embeds_", own))
            for name in ("auroc", "balanced_accuracy")
        }
        sizes = {"num_concepts": 3, "num_train": 270, "num_test": 180}
        assert found[k]["kind"] == pytest.approx({**figures, **sizes}, rel=1e-6)


def test_of_two_classes_the_second_is_probed_for_and_samples_are_drawn():
    (train, kind), (test, test_kind) = data(300, 0), data(200, 1)
    embeddings = load_embeddings(train), load_embeddings(test)
    labels = {"is dog": (kind == 1, test_kind == 1, ["no", "yes"])}
    found = sparse_probing_by_level(make_model(), *embeddings, labels, [N], (1,), 100, progress=False)[N]["is dog"]
    assert (found["num_concepts"], found["num_train"], found["num_test"]) == (1, 100, 100)
    again = sparse_probing_by_level(make_model(), *embeddings, labels, [N], (1,), 100, progress=False)[N]["is dog"]
    other = sparse_probing_by_level(make_model(), *embeddings, labels, [N], (1,), 100, 1, progress=False)[N]["is dog"]
    assert found == again != other
    with pytest.raises(ValueError, match="'none'"):
        sparse_probing_by_level(
            make_model(), *embeddings, {"none": (kind * 0, test_kind * 0, ["no", "yes"])}, [N], progress=False
        )


def test_stability_of_each_level_is_that_of_the_latents_alive_there():
    embeddings = load_embeddings(data(150, 0)[0])
    model, others = make_model(0), [make_model(1), make_model(2)]
    found = seed_stability_by_level(model, others, embeddings, KS, batch_size=64, progress=False)
    assert list(found) == list(KS)
    for k in KS:
        alive = [
            each.dictionary[each.encode(embeddings[:], k=k).gt(0).any(dim=0)].detach() for each in (model, *others)
        ]
        expected = [seed_stability(alive[0], each) for each in alive[1:]]
        assert found[k]["mean_cosine"] == pytest.approx(np.mean([each.mean_cosine for each in expected]))
        assert found[k]["fraction_above"] == pytest.approx(np.mean([each.fraction_above for each in expected]))
        assert found[k]["num_latents"] == len(alive[0]) <= N - 5 and found[k]["error"] == 0
        assert 0 < found[k]["by_chance"] < 1


def test_the_row_of_the_data_that_is_not_finite_is_named():
    (good, kind), (bad, _) = data(100, 0), data(100, 0)
    bad[70, 1] = np.nan
    good, bad, model = load_embeddings(good), load_embeddings(bad), make_model()
    labels = {"kind": (kind, kind, ["cat", "dog", "ant"])}
    for measure in (
        lambda: seed_stability_by_level(model, [make_model(1)], bad, KS, batch_size=64, progress=False),
        lambda: sparse_probing_by_level(model, good, bad, labels, KS, (1,), max_samples=100, progress=False),
        lambda: sparse_probing_by_level(model, bad, good, labels, KS, (1,), progress=False),
    ):
        with pytest.raises(ValueError, match=r"row 70 of the given array .*NaN"):
            measure()


def test_where_nothing_is_alive_there_is_no_stability():
    embeddings, dead = load_embeddings(data(50, 0)[0]), make_model(1)
    with torch.no_grad():
        dead.latent_bias.fill_(-100)
    with pytest.warns(DeprecationWarning, match="embeddings"):
        found = seed_stability_by_level(make_model(), [dead], acts=embeddings, ks=[2, N], progress=False)
    assert found[N]["mean_cosine"] is None and found[N]["num_latents"] > 0


def test_models_that_cannot_be_compared_are_refused():
    embeddings = load_embeddings(data(50, 0)[0])
    for other, message in (
        (make_model(1, d_in=5), "5.*6"),
        (make_model(1, num_latents=20, nesting_ks=[20]), f"20.*{N}"),
        (make_model(0), "another seed"),
    ):
        with pytest.raises(ValueError, match=message):
            seed_stability_by_level(make_model(), [other], embeddings, KS, progress=False)
