"""evaluate_msae against the pure functions on whole arrays, for any batching, in one process and in two."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_msae import metrics
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import EvaluationResult, LinearClassifier, evaluate_msae
from tests.metrics.small_evaluation import D, N, asked, make_data, make_model

KEYS = {
    *("fvu", "fvu_per_sample", "cosine_similarity", "cosine_similarity_centered", "normalized_mae"),
    *("l0", "sparsity", "dead_latents", "dead_fraction"),
    *("cknna", "cknna_batch_size", "decoder_orthogonality", "num_samples"),
    *("relative_reconstruction_bias", "relative_reconstruction_bias_centered", "cknna_reconstruction"),
    *("monosemanticity", "monosemanticity_std", "monosemanticity_encoder", "classifiers"),
}


UNASKED = {"monosemanticity": None, "monosemanticity_std": None, "monosemanticity_encoder": None, "classifiers": {}}


def whole(model, x, k, cknna_batch_size):
    """The pure functions on everything at once."""
    x = torch.from_numpy(x)
    with torch.no_grad():
        latents = model.encode(x, k=k)
        reconstruction = model.decode(latents)
    starts = range(0, len(x) - cknna_batch_size + 1, cknna_batch_size)
    pieces = [slice(start, start + cknna_batch_size) for start in starts] or [slice(0, len(x))]
    return {
        "fvu": metrics.fvu(x, reconstruction),
        "fvu_per_sample": metrics.fvu_per_sample(x, reconstruction),
        "cosine_similarity": metrics.cosine_similarity(x, reconstruction),
        "cosine_similarity_centered": metrics.cosine_similarity_centered(x, reconstruction),
        "normalized_mae": metrics.normalized_mae(x, reconstruction),
        "l0": metrics.l0(latents),
        "sparsity": metrics.sparsity(latents),
        "dead_latents": metrics.dead_latents(latents),
        "dead_fraction": metrics.dead_fraction(latents),
        "cknna": np.mean([metrics.cknna(x[piece], latents[piece]) for piece in pieces]),
        "cknna_batch_size": min(len(x), cknna_batch_size),
        "cknna_reconstruction": np.mean([metrics.cknna(x[piece], reconstruction[piece]) for piece in pieces]),
        "relative_reconstruction_bias": metrics.relative_reconstruction_bias(x, reconstruction),
        "relative_reconstruction_bias_centered": metrics.relative_reconstruction_bias(
            x, reconstruction, x.double().mean(dim=0)
        ),
        **UNASKED,
        "decoder_orthogonality": metrics.decoder_orthogonality(model.dictionary),
        "num_samples": len(x),
    }


def check_close(found, expected, **tolerance):
    """Equal within a tolerance; what was not measured is None in both."""
    found, expected = dict(found), dict(expected)
    for name in UNASKED:
        assert found.pop(name) == expected.pop(name)
    assert found == pytest.approx(expected, **tolerance)


# Wider than float64 rounding: matrix products of other sizes round differently in float32.
CLOSE = {"rel": 1e-5, "abs": 1e-9}


@pytest.mark.parametrize(
    ("settings", "rows", "batch_size"),
    [
        *(({}, *sizes) for sizes in ((101, 4096), (101, 1), (101, 33), (97, 32), (64, 64), (20, 7))),
        *((settings, 101, 33) for settings in ({"soft_cap": 2.0}, {"tied": True})),
    ],
    ids=str,
)
def test_every_level_equals_the_pure_functions(settings, rows, batch_size):
    model, x = make_model(**settings), make_data(rows)
    result = evaluate_msae(model, load_embeddings(x), batch_size=batch_size, cknna_batch_size=32, progress=False)
    assert list(result.by_k) == ["2", "7", "20", str(N)]
    for k in (2, 7, 20, N):
        check_close(result.by_k[str(k)], whole(model, x, k, 32), **CLOSE)
        assert set(result.by_k[str(k)]) == KEYS
    content = result.to_dict()
    assert {key: content[key] for key in KEYS} == result.by_k[str(N)]
    assert result.dead_latents >= 5


def test_a_mean_far_from_zero_costs_no_digits():
    model, x = make_model(), make_data(300, offset=1e3)
    model.set_input_statistics(torch.from_numpy(x.mean(axis=0)), 0.5)
    result = evaluate_msae(model, load_embeddings(x), batch_size=64, cknna_batch_size=64, progress=False)
    expected = whole(model, x, N, 64)
    # Neighbors are decided by differences that float32 codes do not carry.
    del expected["cknna"], expected["cknna_reconstruction"]
    check_close({key: getattr(result, key) for key in expected}, expected, rel=1e-4)
    with torch.no_grad():
        reconstruction = model.decode(model.encode(torch.from_numpy(x))).double().numpy()
    x = x.astype(np.float64)
    fvu = ((x - reconstruction) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    assert result.fvu == pytest.approx(fvu, rel=1e-4)
    assert result.baseline_mean["cosine_similarity"] > 0.9999 and result.baseline_mean["fvu"] == 1.0


def test_baseline_is_the_mean_prediction():
    x = make_data(90)
    result = evaluate_msae(make_model(), load_embeddings(x), batch_size=32, cknna_batch_size=32, progress=False)
    mean = x.astype(np.float64).mean(axis=0, keepdims=True).repeat(90, axis=0)
    found = dict(result.baseline_mean)
    assert (found.pop("relative_reconstruction_bias_centered"), found.pop("classifiers")) == (None, {})
    assert found == pytest.approx(
        {
            "fvu": 1.0,
            "fvu_per_sample": metrics.fvu_per_sample(torch.from_numpy(x), mean),
            "cosine_similarity": metrics.cosine_similarity(torch.from_numpy(x), mean),
            "cosine_similarity_centered": 0.0,
            "normalized_mae": metrics.normalized_mae(torch.from_numpy(x), mean),
            "relative_reconstruction_bias": metrics.relative_reconstruction_bias(torch.from_numpy(x), mean),
        },
        rel=1e-11,
    )


def test_each_batch_is_encoded_once_and_memory_is_bounded_by_it(monkeypatch):
    model, x = make_model(), make_data(200)
    seen = []
    original = model.full_code
    monkeypatch.setattr(model, "full_code", lambda u: seen.append(len(u)) or original(u))
    evaluate_msae(model, load_embeddings(x), batch_size=50, cknna_batch_size=16, progress=False)
    assert seen == [48, 48, 48, 48, 8]


def test_ks_choose_levels():
    model, x = make_model(soft_cap=1e-3), make_data(40)  # every activation saturates to the cap
    ks, size = np.array([20, 3, 20]), np.int64(32)  # of numpy, which JSON refuses
    result = evaluate_msae(model, load_embeddings(x), ks=ks, cknna_batch_size=size, progress=False)
    assert list(json.loads(json.dumps(result.to_dict()))["by_k"]) == ["3", "20"]
    assert result.l0 == result.by_k["20"]["l0"]
    for k in (3, 20):  # the cap does not change which latents are kept
        check_close(result.by_k[str(k)], whole(model, x, k, 32), **CLOSE)


def test_mode_and_gradients_are_left_as_they_were():
    embeddings = load_embeddings(make_data(40))
    for training in (True, False):
        model = make_model().train(training)
        evaluate_msae(model, embeddings, cknna_batch_size=32, progress=False)
        assert model.training is training and model.encoder.grad is None
    model = make_model().train()
    with torch.no_grad():
        model.decoder[3, 3] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        evaluate_msae(model, embeddings, cknna_batch_size=32, progress=False)
    assert model.training


def test_cknna_can_be_left_out_and_is_null_for_too_few_samples():
    model = make_model()
    without = evaluate_msae(model, make_data(40), cknna_batch_size=None, progress=False)
    assert without.cknna is None and without.cknna_batch_size is None
    few = evaluate_msae(model, make_data(8), progress=False)
    assert few.cknna is None and few.cknna_batch_size == 8
    assert json.loads(json.dumps(few.to_dict(), allow_nan=False)) == few.to_dict()


def test_half_precision_models_are_evaluated():
    model, x = make_model().to(torch.bfloat16), make_data(64)
    result = evaluate_msae(model, load_embeddings(x), cknna_batch_size=32, progress=False)
    check_close(result.by_k["7"], whole(model, x, 7, 32), rel=1e-3, abs=1e-6)


def test_progress_bar(capsys):
    evaluate_msae(make_model(), make_data(40), cknna_batch_size=32, progress=False)
    assert capsys.readouterr().err == ""
    evaluate_msae(make_model(), make_data(40), cknna_batch_size=32)
    assert "evaluating: 100%" in capsys.readouterr().err


BROKEN, CONSTANT = make_data(40), make_data(40)


BROKEN[21], CONSTANT[21] = np.nan, 1.5


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (make_data(40)[:, 1:], {}, r"5 columns.* 6 \(openai/clip, image_embeds"),
        (make_data(40), {"ks": [2, 0]}, f"num_latents={N}.* 0 in ks"),
        (make_data(40), {"ks": [2, N + 1]}, f"num_latents={N}.* {N + 1} in ks"),
        (make_data(40), {"ks": []}, "ks is empty"),
        (make_data(40), {"batch_size": 0}, "batch_size.* 0"),
        (make_data(40), {"cknna_batch_size": 5}, "11 or more, not 5"),
        (BROKEN, {}, "row 21 of the given array.*NaN"),
        (CONSTANT, {"batch_size": 16, "cknna_batch_size": 16}, "the given array.*fvu_per_sample.*row 21"),
        (make_data(40), {"encoder_embeds": make_data(39), "encoder": "another"}, "40 rows.* another, has 39"),
        (make_data(40), {"encoder_embeds": BROKEN, "encoder": "another"}, "row 21 of the given array"),
        (make_data(40), {"encoder_embeds": make_data(40)}, "name the encoder of the given array"),
        (make_data(40), {"encoder": "another"}, "another.*encoder_embeds"),
        (make_data(40), {"labels": {"probe": np.zeros(39, dtype=int)}}, "40 rows.*39 labels for 'probe'"),
        (make_data(40), {"labels": {"prove": np.zeros(40, dtype=int)}}, "'prove'.*no classifier"),
        (
            make_data(40),
            {"classifiers": {"narrow": LinearClassifier.zero_shot(np.eye(3), "abc")}},
            "'narrow'.* 3 .* 6",
        ),
    ],
)
def test_what_does_not_fit_is_refused(x, settings, message):
    model = make_model(base_model_name_or_path="openai/clip", hook_point="image_embeds")
    settings = {"classifiers": {"probe": LinearClassifier.zero_shot(np.eye(3, D), "abc")}, **settings}
    with pytest.raises(ValueError, match=message):
        evaluate_msae(model, x, progress=False, **settings)


@pytest.mark.parametrize("batch_size", [4096, 33])
def test_classifiers_and_another_encoder_are_those_of_the_pure_functions(batch_size):
    model, x, more = make_model(), make_data(101), asked(101)
    result = evaluate_msae(model, x, None, batch_size, 32, progress=False, **more)
    x = torch.from_numpy(x)
    for k in (2, 7, 20, N):
        with torch.no_grad():
            latents = model.encode(x, k=k)
            reconstruction = model.decode(latents)
        found = result.by_k[str(k)]
        scores = metrics.monosemanticity(latents, more["encoder_embeds"][:], "another")
        assert found["monosemanticity"] == pytest.approx(scores.mean, rel=1e-6)
        assert found["monosemanticity_std"] == pytest.approx(scores.std, rel=1e-6)
        assert found["monosemanticity_encoder"] == "another"
        for name, classifier in more["classifiers"].items():
            of_classifier = found["classifiers"][name]
            assert of_classifier["kl"] == pytest.approx(metrics.probe_kl(x, reconstruction, classifier), rel=1e-5)
            assert of_classifier["agreement"] == metrics.probe_agreement(x, reconstruction, classifier)
        labels = torch.from_numpy(more["labels"]["probe"])
        drop = metrics.accuracy_drop(x, reconstruction, more["classifiers"]["probe"], labels)
        assert found["classifiers"]["probe"]["accuracy_drop"] == drop
        assert found["classifiers"]["probe"]["num_labelled"] == int((labels >= 0).sum())
        assert found["classifiers"]["texts"]["accuracy"] is None
    mean = x.double().mean(dim=0).float().expand_as(x)
    of_mean = result.baseline_mean["classifiers"]["probe"]
    assert of_mean["kl"] == pytest.approx(metrics.probe_kl(x, mean, more["classifiers"]["probe"]), rel=1e-5)
    assert EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    frame = result.to_pandas()
    assert frame["probe.agreement"].tolist() == [
        each["classifiers"]["probe"]["agreement"] for each in result.by_k.values()
    ]
    text = str(result)
    assert "judged by another" in text and "probe: " in text


def test_a_classifier_of_another_kind_is_refused():
    x = make_data(40)
    probe = LogisticRegression().fit(x, np.arange(40) % 2)
    with pytest.raises(TypeError, match=r"'mine' is a LogisticRegression, but has to be a LinearClassifier"):
        evaluate_msae(make_model(), x, classifiers={"mine": probe}, progress=False)
