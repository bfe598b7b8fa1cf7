"""What an evaluation says it was of, and that two processes measure the same as one."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState

from hf_msae import MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import EvaluationResult, evaluate_msae
from hf_msae.metrics import evaluation as evaluation_module
from tests.metrics.small_evaluation import D, N, asked, make_data, make_model


def test_the_encoder_is_named_by_its_data():
    embeds = load_embeddings(make_data(40))
    embeds.provenance["base_model_name_or_path"] = "facebook/dinov2-base"
    result = evaluate_msae(make_model(), make_data(40), cknna_batch_size=32, progress=False, encoder_embeds=embeds)
    assert result.monosemanticity_encoder == "facebook/dinov2-base"


def test_the_result_identifies_the_weights(tmp_path):
    model, x = make_model(), make_data(40)
    result = evaluate_msae(model, x, progress=False)
    assert result.model_sha256 == model_fingerprint(model)
    assert all("model_sha256" not in row for row in result.by_k.values())
    model.save_pretrained(tmp_path)
    result.save(tmp_path)
    assert EvaluationResult.load(tmp_path).model_sha256 == model_fingerprint(MSAEModel.from_pretrained(tmp_path))
    with torch.no_grad():
        model.latent_bias[3] += 1e-3
    assert evaluate_msae(model, x, progress=False).model_sha256 != result.model_sha256


def test_the_result_identifies_settings_that_change_what_the_weights_compute():
    x, found = make_data(40), set()
    for settings in ({}, {"soft_cap": 2.0}, {"k": 7}, {"nesting": "none", "nesting_ks": None}, {"nesting_ks": [2, N]}):
        found.add(evaluate_msae(make_model(**settings), x, progress=False).model_sha256)
    topk = {"activation": "topk", "k": 7, "nesting": "none", "nesting_ks": None}
    found.add(evaluate_msae(make_model(**topk), x, progress=False).model_sha256)
    assert len(found) == 6
    same = make_model(base_model_name_or_path="a/b", hook_point="text_embeds", nesting_weights="reverse")
    assert evaluate_msae(same, x, progress=False).model_sha256 in found


def test_the_result_describes_the_data_without_naming_local_folders(tmp_path):
    file = tmp_path / "secret" / "embeds.npy"
    file.parent.mkdir()
    np.save(file, make_data(40))
    found = evaluate_msae(make_model(), load_embeddings(file), progress=False)
    assert found.data["source"] == "embeds.npy" and str(tmp_path) not in json.dumps(found.data)
    assert (found.data["num_rows"], found.data["num_samples"], found.data["width"]) == (40, 40, D)
    assert found.data["mean_length"] == pytest.approx(np.linalg.norm(make_data(40).mean(axis=0)), rel=1e-5)
    assert found.data["held_out"] is None


def test_weights_in_pieces_have_no_fingerprint():
    """As FSDP leaves them: a process has a part of each."""
    model = make_model()
    model.encoder.full_tensor = lambda: model.encoder
    assert evaluate_msae(model, make_data(40), progress=False).model_sha256 is None


ROWS = (203, 30)  # seven batches, the last short; or a single one, so that one process has nothing to do


CKNNA_BATCH_SIZES = (16, 512)


def evaluate_in_process(folder):
    """What each of the two processes runs; writes its results, and which rows it was given."""
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    model = accelerator.prepare(make_model())
    for rows in ROWS:
        embeddings = load_embeddings(make_data(rows))
        batches = evaluation_module._batches(embeddings, 32, 16, False, accelerator)
        mine = [row for start, batch in batches for row in range(start, start + len(batch))]
        (folder / f"{rows}-rows-{accelerator.process_index}.json").write_text(json.dumps(mine))
        for size in CKNNA_BATCH_SIZES:
            result = evaluate_msae(model, embeddings, None, 32, size, False, accelerator, **asked(rows))
            result.save(folder / f"{rows}-{size}-{accelerator.process_index}.json")


def check_alike(found, expected):
    """Equal up to the order of sums. (pytest.approx does not look into nested dicts.)"""
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, dict):
            check_alike(found[name], value)
        elif value is None or isinstance(value, str):
            assert found[name] == value
        else:
            assert found[name] == pytest.approx(value, rel=1e-11, abs=1e-14), name


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # in those processes too: float32 matrix products depend on it, and nothing else may
    debug_launcher(evaluate_in_process, (tmp_path,), num_processes=2)
    for rows in ROWS:
        parts = [json.loads((tmp_path / f"{rows}-rows-{rank}.json").read_text()) for rank in range(2)]
        assert sorted(parts[0] + parts[1]) == list(range(rows))
        for size in CKNNA_BATCH_SIZES:
            both = [EvaluationResult.load(tmp_path / f"{rows}-{size}-{rank}.json") for rank in range(2)]
            assert both[0] == both[1]
            single = evaluate_msae(make_model(), make_data(rows), None, 32, size, False, **asked(rows))
            for k, expected in single.by_k.items():
                check_alike(both[0].by_k[k], expected)
            check_alike(both[0].baseline_mean, single.baseline_mean)
            assert both[0].cknna_batch_size == min(rows, size)
