"""A release over a network that fails: it is there as a whole, or not at all, and what is said of it is true.

huggingface_hub repeats uploads (5 times, on 408, 429 and 5xx and on lost connections), not commits.
"""

import re
import shutil
from pathlib import Path

import pytest
import torch

from hf_msae import MSAEModel
from hf_msae.concepts import Vocabulary, name_latents
from hf_msae.embeddings import load_embeddings
from hf_msae.hub.publishing.release import push_to_hub
from hf_msae.metrics import evaluate_msae
from tests.hub.conftest import KEY, REPO, commit_there, files_of

UPLOAD, COMMIT = r"^/lfs/", r"/commit/"


def assert_whole(hub, run_folder, revision="main"):
    """The branch holds all of the release."""
    files = files_of(hub, revision)
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert files["training_log.jsonl"] == (run_folder / "training_log.jsonl").read_bytes()
    assert {"README.md", "config.json", "metrics.json", "concepts/words.parquet"} <= set(files)


@pytest.fixture(scope="module")
def _next_run(_made_run, tmp_path_factory):
    """The run with other weights and another log."""
    folder = Path(shutil.copytree(_made_run, tmp_path_factory.mktemp("next") / "my-msae"))
    model = MSAEModel.from_pretrained(folder)
    with torch.no_grad():
        model.decoder.mul_(-1)
    model.save_pretrained(folder)
    words = Vocabulary(["red", "green", "blue"])
    name_latents(model, words, torch.randn(3, 8)).save(folder / "concepts" / "words.parquet")
    data = load_embeddings(torch.randn(100, 8))
    evaluate_msae(model, data, cknna_batch_size=50, progress=False).save(folder / "metrics.json")
    (folder / "training_log.jsonl").write_text('{"step": 2}\n')
    return folder


@pytest.fixture
def released(published, run_folder, _next_run):
    """A first release, and a run (run_folder) whose next one will be another."""
    shutil.copytree(_next_run, run_folder, dirs_exist_ok=True)
    return published


def requests(hub, method, pattern):
    return [each for each in hub.requests if re.search(f"^{method} .*{pattern}", each)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"status": 503}, {"request_bytes": 500}], ids=["503", "dropped in the middle"])
def test_an_upload_that_keeps_failing_is_reported_and_the_branch_is_as_it_was(released, run_folder, fault):
    before = files_of(released)
    fault = released.fail("PUT", UPLOAD, times=1000, **fault)
    with pytest.raises(ConnectionError, match=r"the Hub at http.*; nothing was released"):
        push_to_hub(run_folder, REPO)
    assert files_of(released) == before and not requests(released, "POST", COMMIT)
    fault.times = 0
    push_to_hub(run_folder, REPO)
    assert_whole(released, run_folder)


@pytest.mark.parametrize(
    ("fault", "times"),
    [({"lose_answer": True}, 1), ({"response_bytes": 10}, 1000)],
    ids=["no answer", "half an answer, each time"],
)
def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(released, run_folder, fault, times):
    released.fail("POST", COMMIT, times=times, **fault)
    release = push_to_hub(run_folder, REPO)
    repo = released.repos[KEY]
    assert_whole(released, run_folder)
    assert len(repo.messages) == 3 and release.commit == repo.sha() and release.answer_lost
    assert any(each.sent for each in release.files) and release.commit in str(release)


def test_where_nothing_can_be_found_out_after_a_lost_answer_it_says_so(released, run_folder):
    def dark():
        released.fail("GET", ".*", times=1000, status=503)

    released.fail("POST", COMMIT, action=dark, lose_answer=True)
    with pytest.raises(ConnectionError, match=r"not known whether main of tester/msae"):
        push_to_hub(run_folder, REPO)
    assert_whole(released, run_folder)
    released.faults.clear()
    push_to_hub(run_folder, REPO)
    assert len(released.repos[KEY].messages) == 3


def test_a_commit_that_lacks_a_file_is_no_release(released, run_folder):
    """As where a .gitignore there excludes it."""

    def forget():
        repo = released.repos[KEY]
        files = {name: each for name, each in repo.files().items() if name != "training_log.jsonl"}
        repo.commits[repo.sha()] = files

    released.fail("POST", COMMIT, then=forget)
    with pytest.raises(ValueError, match=r"tester/msae lacks training_log\.jsonl"):
        push_to_hub(run_folder, REPO)


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(released, run_folder):
    released.fail("POST", COMMIT, lose_answer=True)
    with pytest.raises(ConnectionError, match=rf"{released.url}/{REPO}/discussions"):
        push_to_hub(run_folder, REPO, create_pr=True)
    assert [name for name in released.repos[KEY].names if name.startswith("refs/pr/")] == ["refs/pr/1"]
    assert_whole(released, run_folder, "refs/pr/1")


@pytest.mark.parametrize("failures", [1, 99])
def test_a_pull_request_that_was_acknowledged_is_named(released, run_folder, failures):
    read_again = lambda: released.fail("GET", r"/api/models/.*/(revision|tree)", times=failures, status=503)  # noqa: E731
    released.fail("POST", COMMIT, then=read_again)
    if failures == 1:
        assert push_to_hub(run_folder, REPO, create_pr=True).pull_request.endswith("/discussions/1")
    else:
        with pytest.raises(ConnectionError, match=r"/discussions/1 was opened"):
            push_to_hub(run_folder, REPO, create_pr=True)
    assert [name for name in released.repos[KEY].names if name.startswith("refs/pr/")] == ["refs/pr/1"]


def test_somebody_elses_commit_in_between_is_kept_and_their_edits_too(released, run_folder):
    words = files_of(released)["README.md"].decode().replace("## Use\n", "Their words.\n\n## Use\n")
    theirs = {"notes.txt": b"theirs", "README.md": words.encode()}
    released.fail("POST", COMMIT, action=lambda: commit_there(released, theirs))
    push_to_hub(run_folder, REPO)
    assert_whole(released, run_folder)
    files = files_of(released)
    assert files["notes.txt"] == b"theirs" and "Their words." in files["README.md"].decode()
    assert released.repos[KEY].messages[2:] == ["somebody else's", "Upload MSAE"]


@pytest.mark.slow
def test_somebody_who_keeps_committing_is_reported(released, run_folder):
    notes = iter(range(1000))
    released.fail(
        "POST", COMMIT, times=1000, action=lambda: commit_there(released, {"notes.txt": b"%d" % next(notes)})
    )
    with pytest.raises(ConnectionError, match=r"others .*nothing was released, main of tester/msae"):
        push_to_hub(run_folder, REPO)
    assert files_of(released)["training_log.jsonl"] != b'{"step": 2}\n'


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"status": 503}, {"lose_answer": True}], ids=["503", "no answer"])
def test_every_other_request_may_fail_once(released, run_folder, fault):
    requests = [
        ("POST", r"^/api/repos/create$"),
        ("GET", r"^/api/models/tester/msae"),
        ("GET", r"/tree/"),
        ("GET", r"/resolve/.*README\.md$"),
        ("POST", r"/preupload/"),
        ("POST", r"/objects/batch$"),
        ("POST", r"/validate-yaml$"),
    ]
    faults = [released.fail(method, path, **fault) for method, path in requests]
    push_to_hub(run_folder, REPO)
    assert [each.times for each in faults] == [0] * len(requests)
    assert_whole(released, run_folder)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), [("POST", r"/repos/create$"), ("GET", r"/tree/"), ("GET", r"/resolve/")])
def test_a_hub_that_is_down_is_named_and_nothing_is_half(released, run_folder, method, path):
    before = files_of(released)
    released.fail(method, path, times=1000, status=503)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:\d+ answered 503 .*nothing was released"):
        push_to_hub(run_folder, REPO)
    assert files_of(released) == before


def test_a_hub_that_cannot_be_reached_is_named(at_hub, run_folder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9 "):
        push_to_hub(run_folder, REPO)


@pytest.mark.slow
def test_a_whole_release_by_a_process_that_knows_the_hub_by_hf_endpoint_alone(hub, run_folder, in_process):
    hub.fail("PUT", UPLOAD, request_bytes=500)
    hub.fail("POST", COMMIT, lose_answer=True)
    printed = in_process(f"""
        from hf_msae.cli.push import main
        from transformers import AutoModel
        main([{str(run_folder)!r}, "tester/msae", "--remote_code"])
        print(AutoModel.from_pretrained("tester/msae").config.num_latents)
    """)
    assert "was lost" in printed and hub.repos[KEY].sha() in printed and printed.split()[-1] == "40"
    assert_whole(hub, run_folder)
