"""EvaluationResult: the same in memory, on disk, in a table and in a data frame."""

import dataclasses
import json

import pytest

from hf_msae.metrics import EvaluationResult


def level(k, cknna=0.5):
    return {
        **{"fvu": 0.1 / k, "fvu_per_sample": 0.2, "cosine_similarity": 0.9, "cosine_similarity_centered": 0.8},
        **{"normalized_mae": 0.3, "l0": float(k), "sparsity": 0.75, "dead_latents": 3, "dead_fraction": 0.05},
        **{"cknna": cknna, "cknna_batch_size": 64, "decoder_orthogonality": 0.01, "num_samples": 123},
    }


@pytest.fixture
def result():
    baseline = {"fvu": 1.0, "cosine_similarity": 0.95, "cosine_similarity_centered": 0.0, "normalized_mae": 0.9}
    return EvaluationResult.from_levels({128: level(128, None), 8: level(8)}, baseline)


def test_headline_is_the_largest_level(result):
    assert result.fvu == 0.1 / 128 and result.l0 == 128.0 and result.cknna is None
    assert list(result.by_k) == ["8", "128"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.fvu = 0.0


def test_dict_and_file_round_trip(result, tmp_path):
    assert EvaluationResult.from_dict(result.to_dict()) == result
    path = result.save(tmp_path)
    assert path == tmp_path / "metrics.json"
    assert result.save(tmp_path / "other.json") == tmp_path / "other.json"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.json", "other.json"]  # nothing temporary
    assert json.loads(path.read_text()) == result.to_dict()
    assert '"cknna": null' in path.read_text()
    assert EvaluationResult.load(tmp_path) == EvaluationResult.load(path) == result


def test_a_tilde_is_the_home_folder(result, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert result.save("~/metrics.json") == tmp_path / "metrics.json"
    assert EvaluationResult.load("~").to_dict() == result.to_dict()


def test_files_of_earlier_versions_are_still_read(result):
    content = result.to_dict()
    newer = ("classifiers", "monosemanticity", "cknna_reconstruction", "relative_reconstruction_bias")
    for name in (*newer, "model_sha256", "data"):
        del content[name]
    assert EvaluationResult.from_dict(content) == result


def test_what_the_caller_knows_of_the_data_is_added(result):
    known = result.with_data(source="a").with_data(held_out=True)
    assert known.data == {"source": "a", "held_out": True} and result.data is None
    assert EvaluationResult.from_dict(known.to_dict()) == known


def test_a_failed_save_leaves_the_old_file(result, tmp_path):
    result.save(tmp_path)
    broken = dataclasses.replace(result, fvu=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path)
    assert EvaluationResult.load(tmp_path) == result


def test_from_dict_names_what_is_missing_and_leaves_additions_aside(result):
    content = result.to_dict()
    assert EvaluationResult.from_dict({**content, "global_step": 5}) == result
    del content["fvu"], content["by_k"]
    with pytest.raises(ValueError, match="fvu, by_k missing"):
        EvaluationResult.from_dict(content)


def test_data_frame(result):
    frame = result.to_pandas()
    assert frame["k"].tolist() == [8, 128]
    assert frame["fvu"].tolist() == [0.1 / 8, 0.1 / 128]
    assert set(level(8)) | {"k"} == set(frame.columns)


def test_metrics_of_classifiers_in_the_data_frame_and_in_print():
    with_labels = {"kl": 0.25, "agreement": 0.75, "accuracy": 0.9, "accuracy_reconstruction": 0.8}
    with_labels |= {"accuracy_drop": 0.1, "num_labelled": 50}
    levels = {k: {**level(k), "classifiers": {"birds": with_labels}} for k in (8, 128)}
    result = EvaluationResult.from_levels(levels, {"fvu": 1.0})
    frame = result.to_pandas()
    assert frame["birds.agreement"].tolist() == [0.75, 0.75] and "classifiers" not in frame
    lines = str(result).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("birds:"))
    assert lines[start + 3].split() == ["8", "75.00%", "0.2500", "80.00%", "+10.00%"]
    assert "90.00%" in lines[-1] and "50 samples" in lines[-1]


def test_sparse_probing_and_stability_join_their_levels(result):
    probing = {8: {"birds": {"auroc_1": 0.75, "balanced_accuracy_1": 0.7, "embeds_auroc_1": 0.6}}}
    probing[128] = {"birds": {"auroc_1": 0.8, "balanced_accuracy_1": 0.72, "embeds_auroc_1": 0.6}}
    for each in probing.values():
        each["birds"] |= {"num_concepts": 3, "num_train": 50, "num_test": 40}
    found = {"mean_cosine": 0.5, "fraction_above": 0.25, "by_chance": 0.125, "error": 0.001, "num_latents": 7}
    seeds = {8: {**found, "mean_cosine": None}, 128: found}
    with_both = result.with_levels(sparse_probing=probing).with_levels(seed_stability=seeds)
    assert with_both.sparse_probing == probing[128] and with_both.by_k["8"]["sparse_probing"] == probing[8]
    assert with_both.seed_stability == found
    assert EvaluationResult.from_dict(json.loads(json.dumps(with_both.to_dict()))) == with_both
    frame = with_both.to_pandas()
    assert frame["sparse birds.auroc_1"].tolist() == [0.75, 0.8]
    assert frame["seed_stability.mean_cosine"].tolist()[1] == 0.5
    lines = str(with_both).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("sparse probing of birds"))
    assert [line.split() for line in lines[start + 3 : start + 6]] == [
        ["8", "0.7500", "0.7000"], ["128", "0.8000", "0.7200"], ["embeds", "0.6000", "-"],
    ]  # fmt: skip
    start = next(i for i, line in enumerate(lines) if line.startswith("stability across seeds"))
    assert lines[start + 3].split() == ["8", "7", "-", "0.1250", "25.0%"]
    assert "3 classes" in str(with_both)
    probing[128]["birds"]["num_concepts"] = 1
    assert "1 classes" not in str(result.with_levels(sparse_probing=probing))
    assert "1.0e-03" in lines[-1]


def test_table(result):
    lines = str(result).splitlines()
    assert lines[0].split()[:2] == ["k", "FVU"]
    assert lines[2].split()[:3] == ["8", "0.0125", "0.9000"]
    assert lines[3].split()[-1] == "-"  # no CKNNA at this level
    assert lines[4].startswith("mean only") and "1.0000" in lines[4]
    assert "123 samples" in lines[-1] and "batches of 64" in lines[-1]
    assert len({len(line) for line in lines[:-1]}) == 1
