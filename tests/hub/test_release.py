"""What is published of a run, and that it is whole, measured and loads back before anything is sent."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard, snapshot_download

from hf_msae import MSAEConfig, MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.hub import write_model_card
from hf_msae.hub.publishing.card_edits import is_edited
from hf_msae.hub.publishing.release import push_to_hub
from hf_msae.hub.publishing.verification import read_metrics
from hf_msae.metrics import evaluate_msae
from tests.hub.conftest import KEY, REPO, commit_there, files_of
from tests.stub_hub import OTHER_TOKEN, READ_TOKEN, Repo

SENT = {
    *("README.md", "concepts/words.parquet", "config.json", "metrics.json", "model.safetensors"),
    *("training.json", "training_log.jsonl", "msae_files.json"),
}


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def edit_on_hub(hub, old, new):
    text = card_on_hub(hub)
    assert old in text
    commit_there(hub, {"README.md": text.replace(old, new).encode()})


def card_on_hub(hub, revision="main"):
    return files_of(hub, revision)["README.md"].decode()


def rewrite(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def measure(run_folder, rows):
    data = load_embeddings(torch.randn(rows, 8))
    result = evaluate_msae(MSAEModel.from_pretrained(run_folder), data, cknna_batch_size=50, progress=False)
    result.save(run_folder / "metrics.json")


# -- what is sent ------------------------------------------------------------------------------------------------


def test_a_run_is_sent_in_one_commit_without_what_is_nobodys_business(at_hub, run_folder):
    release = push_to_hub(run_folder, REPO)
    repo = at_hub.repos[KEY]
    assert repo.messages == ["initial commit", "Upload MSAE"] and not repo.private
    files = files_of(at_hub)
    assert set(files) == SENT
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert not any(b"/home" in content or str(run_folder).encode() in content for content in files.values())
    assert json.loads(files["training.json"])["training_arguments"]["output_dir"] == "my-msae"
    assert release.commit == repo.sha() and release.url == f"{at_hub.url}/{REPO}" and release.revision == "main"
    assert {each.path: each.size for each in release.files} == {name: len(files[name]) for name in SENT}
    assert set(release.to_pandas().columns) == {"path", "size", "sent"} and release.to_pandas()["sent"].all()
    assert release.commit in str(release) and "model.safetensors" in str(release)
    assert release.to_dict()["files"][0]["path"] == "README.md"


@pytest.mark.slow
def test_the_card_is_that_of_the_repository_with_the_measured_results(at_hub, run_folder):
    push_to_hub(run_folder, REPO, license="mit", tags=["birds"])
    text = card_on_hub(at_hub)
    card = ModelCard(text)
    assert f'from_pretrained("{REPO}")' in text and not is_edited(text)
    assert card.data.license == "mit" and {"birds", "msae"} <= set(card.data.tags)
    metrics = json.loads((run_folder / "metrics.json").read_text())
    found = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert found["fvu at k=4"] == pytest.approx(metrics["by_k"]["4"]["fvu"], rel=1e-3)


def test_pushing_again_what_is_there_makes_no_commit(at_hub, run_folder):
    first = push_to_hub(run_folder, REPO)
    again = push_to_hub(run_folder, REPO)
    assert len(at_hub.repos[KEY].messages) == 2
    assert again.commit == first.commit and not any(each.sent for each in again.files)
    assert "already" in str(again) and "already" not in str(first)


def test_a_second_push_deletes_what_this_release_has_not_and_leaves_foreign_files(at_hub, run_folder):
    (run_folder / "training.png").write_bytes(b"\x89PNG a figure")
    push_to_hub(run_folder, REPO, max_shard_size=1500, remote_code=True)
    old = set(files_of(at_hub))
    assert "training.png" in old
    assert "model.safetensors.index.json" in old and "modeling_msae.py" in old
    foreign = {"notes.txt": b"mine", "my.png": b"my picture", "data/other.parquet": b"mine"}
    foreign |= {"concepts/by_hand.parquet": b"mine", "modeling_msae.py": b"mine, in place of the one that was sent"}
    commit_there(at_hub, foreign)
    (run_folder / "concepts" / "words.parquet").rename(run_folder / "concepts" / "nouns.parquet")
    (run_folder / "training.png").unlink()
    release = push_to_hub(run_folder, REPO)
    now = SENT - {"concepts/words.parquet"} | {"concepts/nouns.parquet"}
    assert set(files_of(at_hub)) == now | set(foreign)
    assert set(release.deleted) == old - now - set(foreign)
    assert len(at_hub.repos[KEY].messages) == 4


@pytest.mark.slow
def test_a_model_from_memory_takes_everything_but_the_weights_from_its_run(at_hub, run_folder):
    model = MSAEModel.from_pretrained(run_folder)
    (run_folder / "model.safetensors").unlink()
    push_to_hub(model, REPO, run_dir=run_folder, commit_message="Mine", commit_description="words")
    assert set(files_of(at_hub)) == SENT and at_hub.repos[KEY].messages[-1] == "Mine"


def test_pictures_that_a_person_put_into_the_card_are_sent(at_hub, run_folder):
    push_to_hub(run_folder, REPO, dry_run=run_folder.parent / "dry")
    shutil.copy(run_folder.parent / "dry" / "README.md", run_folder)
    with (run_folder / "README.md").open("a") as file:
        file.write("\n![a drawing](another.png) ![elsewhere](../secret.png)\n")
    (run_folder.parent / "secret.png").write_bytes(b"secret")
    push_to_hub(run_folder, REPO)
    assert set(files_of(at_hub)) == SENT | {"another.png"}


@pytest.mark.slow
def test_an_edited_card_of_this_machine_names_the_repository(at_hub, run_folder):
    card = write_model_card(run_folder)
    assert str(run_folder) in card.read_text()
    card.write_text(card.read_text().replace("## Use", "## Usage"))
    push_to_hub(run_folder, REPO)
    sent = files_of(at_hub)["README.md"].decode()
    assert "## Usage" in sent and str(run_folder) not in sent and f'from_pretrained("{REPO}")' in sent


@pytest.mark.parametrize(
    "name", ["model.safetensors", "metrics.json", "README.md", "training.png", "concepts", "x.png"]
)
def test_links_that_leave_the_folder_are_refused(at_hub, run_folder, name, tmp_path):
    """A link shown as a picture of the card would publish the file that it leads to."""
    with (run_folder / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n![a drawing](x.png)\n")
    target = tmp_path / "elsewhere"
    if (run_folder / name).exists():
        (run_folder / name).rename(target)
    else:
        target.write_text("secret")
    (run_folder / name).symlink_to(target)
    with pytest.raises(ValueError, match=rf"{name} is a link to .*elsewhere"):
        push_to_hub(run_folder, REPO)
    assert KEY not in at_hub.repos

    (run_folder / name).unlink()
    inside = run_folder / "kept"
    target.rename(inside)
    (run_folder / name).symlink_to("kept")  # a link that stays inside
    push_to_hub(run_folder, REPO)


def test_a_snapshot_of_the_cache_is_pushed_on(at_hub, run_folder, tmp_path):
    push_to_hub(run_folder, REPO)
    snapshot = Path(snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    weights = snapshot / "model.safetensors"
    blobs = snapshot.parents[1] / "blobs"
    assert weights.is_symlink() and weights.resolve().parent == blobs
    push_to_hub(snapshot, "tester/copy")
    sent = at_hub.repos[("model", "tester/copy")].files()
    assert sent["model.safetensors"] == weights.read_bytes() and "concepts/words.parquet" in sent

    (blobs / "inner").mkdir()
    for target in (blobs.parent / "refs" / "main", blobs / "inner" / "x", blobs.parents[1] / "secret"):
        weights.unlink()
        target.touch()
        weights.symlink_to(target)
        with pytest.raises(ValueError, match=rf"model\.safetensors is a link to .*{target.name}"):
            push_to_hub(snapshot, "tester/copy")


def test_names_keep_their_columns_and_lose_their_paths(at_hub, run_folder, tmp_path):
    push_to_hub(run_folder, REPO)
    (tmp_path / "back.parquet").write_bytes(files_of(at_hub)["concepts/words.parquet"])
    back, source = (
        ConceptTable.load(tmp_path / "back.parquet"),
        ConceptTable.load(run_folder / "concepts/words.parquet"),
    )
    pd.testing.assert_frame_equal(back.frame, source.frame)
    assert back.provenance["vocabulary"] == "words.txt" and back.provenance["templates"] == ["{}"]


def test_the_figure_is_that_of_the_metrics_beside_it(at_hub, run_folder):
    (run_folder / "quality_against_k.png").write_bytes(b"\x89PNG of an earlier evaluation")
    push_to_hub(run_folder, REPO)
    drawn = files_of(at_hub)["quality_against_k.png"]
    assert drawn.startswith(b"\x89PNG\r\n") and drawn != (run_folder / "quality_against_k.png").read_bytes()
    measure(run_folder, rows=60)
    push_to_hub(run_folder, REPO)
    assert files_of(at_hub)["quality_against_k.png"] not in (drawn, b"")
    (run_folder / "metrics.json").unlink()
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    assert "quality_against_k.png" not in files_of(at_hub)


def test_files_of_people_are_never_deleted_whatever_the_card_is_to_be(at_hub, run_folder):
    push_to_hub(run_folder, REPO)
    card = files_of(at_hub)["README.md"] + b"\n![mine](mine.png)\n"
    commit_there(at_hub, {"mine.png": b"my picture", "README.md": card})
    release = push_to_hub(run_folder, REPO, replace_card=True)
    assert not release.deleted and files_of(at_hub)["mine.png"] == b"my picture"
    assert b"mine.png" not in files_of(at_hub)["README.md"]


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"format_version": 9, "files": {}}'])
def test_a_list_of_files_that_is_damaged_or_newer_is_named(at_hub, run_folder, content):
    push_to_hub(run_folder, REPO)
    commit_there(at_hub, {"msae_files.json": content})
    with pytest.raises(ValueError, match=r"msae_files\.json of tester/msae"):
        push_to_hub(run_folder, REPO)


def test_a_list_of_files_names_nothing_outside_its_model(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a")
    push_to_hub(run_folder, REPO, subfolder="b")
    files = files_of(at_hub)
    listed = json.loads(files["b/msae_files.json"])
    listed["files"] |= {"../a/config.json": hashlib.sha256(files["a/config.json"]).hexdigest()}
    commit_there(at_hub, {"b/msae_files.json": json.dumps(listed).encode()})
    assert not push_to_hub(run_folder, REPO, subfolder="b").deleted


@pytest.mark.parametrize("subfolder", [None, "unet"])
@pytest.mark.parametrize(
    ("there", "match"),
    [
        ({"config.json": b'{"model_type": "clip"}', "model.safetensors": b"theirs"}, r"model_type 'clip'"),
        ({"config.json": b'{"_class_name": "UNet"}'}, r"config\.json of another model \(model_type None\)"),
        ({"config.json": b"damaged"}, r"config\.json of another model"),
        ({"model-00001-of-00002.safetensors": b"theirs"}, r"weights \(.*00001-of-00002.* without a config\.json"),
    ],
)
def test_a_model_of_another_kind_is_not_replaced(at_hub, run_folder, subfolder, there, match):
    repo = at_hub.repos[KEY] = Repo()
    repo.commit("main", {f"{subfolder}/{name}" if subfolder else name: each for name, each in there.items()}, "theirs")
    before = files_of(at_hub)
    with pytest.raises(ValueError, match=match):
        push_to_hub(run_folder, REPO, subfolder=subfolder)
    assert files_of(at_hub) == before


def test_another_msae_is_replaced_and_that_is_said(at_hub, run_folder, other_weights, tmp_path):
    first = push_to_hub(run_folder, REPO)
    assert not first.replaced and "replaces" not in str(first)
    assert not push_to_hub(run_folder, REPO, license="mit").replaced, "these are the same weights"
    before = at_hub.repos[KEY].sha()
    second = push_to_hub(tmp_path / "other", REPO, allow_unmeasured=True)
    assert second.replaced == {"": before}
    assert before in str(second)


def test_weights_that_would_be_loaded_in_place_of_ours_are_not_left_beside_them(at_hub, run_folder):
    push_to_hub(run_folder, REPO)
    commit_there(at_hub, {"msae_files.json": None})
    with pytest.raises(ValueError, match=r"tester/msae holds model\.safetensors"):
        push_to_hub(run_folder, REPO, max_shard_size=1500)


def test_a_card_on_a_branch_loads_from_that_branch(at_hub, run_folder):
    push_to_hub(run_folder, REPO, revision="dev")
    assert f'from_pretrained("{REPO}", revision="dev")' in card_on_hub(at_hub, "dev")
    push_to_hub(run_folder, "tester/many", revision="dev", subfolder="a")
    files = files_of(at_hub, "dev", ("model", "tester/many"))
    for name in ("README.md", "a/README.md"):
        assert '("tester/many", revision="dev", subfolder="a")' in files[name].decode()
    push_to_hub(run_folder, REPO, revision="main")
    assert "revision=" not in card_on_hub(at_hub)


def test_a_backbone_that_was_a_folder_is_no_hub_id_elsewhere(at_hub, run_folder):
    rewrite(run_folder / "config.json", lambda config: config.update(base_model_name_or_path="models/my-siglip"))
    push_to_hub(run_folder, REPO)
    assert ModelCard(card_on_hub(at_hub)).data.base_model == "models/my-siglip"
    rewrite(run_folder / "training.json", lambda record: record.update(base_model_is_local=True))
    push_to_hub(run_folder, REPO)
    files = files_of(at_hub)
    assert json.loads(files["config.json"])["base_model_name_or_path"] == "my-siglip"
    text = files["README.md"].decode()
    assert ModelCard(text).data.base_model is None and "models/my-siglip" not in text and "`my-siglip`" in text


# -- what is refused ---------------------------------------------------------------------------------------------


def refused(hub, error, match, *args, **kwargs):
    with pytest.raises(error, match=match):
        push_to_hub(*args, **kwargs)
    assert KEY not in hub.repos or hub.repos[KEY].messages == ["initial commit"]


def test_what_was_not_measured_is_not_sent_unless_asked_for_and_then_the_card_says_so(at_hub, run_folder):
    (run_folder / "metrics.json").unlink()
    refused(at_hub, ValueError, r"no metrics\.json.*evaluate.*--allow_unmeasured", run_folder, REPO)
    refused(at_hub, ValueError, r"run_dir", MSAEModel.from_pretrained(run_folder), REPO)
    assert not at_hub.requests
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    text = card_on_hub(at_hub)
    assert "Nothing was measured" in text and "model-index" not in text


def test_metrics_of_other_weights_are_refused(at_hub, run_folder, other_weights, tmp_path):
    match = r"metrics\.json was measured on another model"
    refused(at_hub, ValueError, match, other_weights, REPO, run_dir=run_folder)
    shutil.copy(tmp_path / "other" / "model.safetensors", run_folder)
    refused(at_hub, ValueError, match, run_folder, REPO)
    assert not at_hub.requests


def test_metrics_that_do_not_say_of_which_weights_are_refused_or_left_behind(at_hub, run_folder):
    rewrite(run_folder / "metrics.json", lambda metrics: metrics.pop("model_sha256"))
    refused(at_hub, ValueError, r"metrics\.json .*model_sha256.*evaluate", run_folder, REPO)
    assert not at_hub.requests
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    files = files_of(at_hub)
    assert "Nothing was measured" in files["README.md"].decode()
    assert set(files) == SENT - {"metrics.json"}


def test_metrics_of_the_same_weights_under_another_config_are_refused(at_hub, run_folder):
    for change in (
        {"activation": "topk", "k": 4, "nesting": "none", "nesting_ks": None},
        {"soft_cap": 2.0},
        {"k": 4},
        {"nesting_ks": [2, 40]},
    ):
        content = (run_folder / "config.json").read_bytes()
        rewrite(run_folder / "config.json", lambda config, change=change: config.update(change))
        refused(at_hub, ValueError, r"metrics\.json was measured on another model", run_folder, REPO)
        (run_folder / "config.json").write_bytes(content)
    rewrite(run_folder / "config.json", lambda config: config.update(base_model_name_or_path="other/backbone"))
    push_to_hub(run_folder, REPO)


def test_a_model_in_half_precision_keeps_the_metrics_it_was_given_in_float32(at_hub, run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    half = MSAEModel.from_pretrained(run_folder).to(torch.bfloat16)
    half.save_pretrained(run_folder)
    metrics["model_sha256"] = model_fingerprint(MSAEModel.from_pretrained(run_folder, dtype=torch.float32))
    (run_folder / "metrics.json").write_text(json.dumps(metrics))
    push_to_hub(run_folder, REPO)
    assert set(files_of(at_hub)) == SENT
    rewrite(run_folder / "training.json", lambda record: record.update(model_sha256="ab" * 32))
    with pytest.raises(ValueError, match=r"words\.parquet"):
        push_to_hub(run_folder, REPO)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda metrics: metrics.pop("fvu"), r"metrics\.json .*fvu"),
        (lambda metrics: metrics["by_k"]["4"].update(fvu=float("nan")), r"fvu at k=4 is nan"),
        (lambda metrics: metrics.update(cosine_similarity="high"), r"cosine_similarity is 'high'"),
        (
            lambda metrics: metrics["by_k"].update({"4000": metrics["by_k"]["4"]}),
            r"k=4000.*40 latents",
        ),
        (lambda metrics: metrics.update(by_k={}), r"has no levels"),
        (lambda metrics: metrics["by_k"]["4"].update(fvu=-3.0), r"fvu at k=4 is -3\.0"),
        (lambda metrics: metrics["by_k"]["4"].update(cosine_similarity=1.7), r"1\.7.* -1 to 1"),
        (lambda metrics: metrics["by_k"]["40"].update(l0=9999.0), r"l0 at k=40 is 9999\.0"),
        (lambda metrics: metrics["by_k"]["4"].update(l0=5.0), r"l0 at k=4 is 5\.0.* 4"),
        (lambda metrics: metrics["by_k"]["4"].update(dead_latents=41), r"dead_latents at k=4 is 41"),
        (lambda metrics: metrics["by_k"]["4"].update(dead_latents=1.5), r"is 1\.5"),
        (lambda metrics: metrics.update(num_samples=-5), r"num_samples is -5"),
        (lambda metrics: metrics["data"].update(num_samples=7), r"num_samples.*7, 100"),
        (lambda metrics: metrics["data"].update(held_out="yes"), r"held_out of its data is 'yes'"),
        (lambda metrics: metrics["baseline_mean"].update(fvu=-1.0), r"fvu of predicting the mean is -1\.0"),
        (lambda metrics: metrics.update(fvu=0.0), r"fvu is 0\.0.*k=40"),
    ],
)
def test_metrics_that_are_impossible_are_named(run_folder, change, match):
    rewrite(run_folder / "metrics.json", change)
    with pytest.raises(ValueError, match=match):
        read_metrics(run_folder / "metrics.json", MSAEModel.from_pretrained(run_folder))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("training.json", b"{", r"training\.json"),
        ("conversion.json", b"{", r"conversion\.json cannot be read as JSON"),
        ("conversion.json", b"[]", r"conversion\.json holds list"),
        ("training_log.jsonl", b'{"step": 1}\n{"ste', r"training_log\.jsonl, line 2 cannot be read as JSON"),
        ("concepts/words.parquet", b"none", r"words\.parquet cannot be read as a table of names"),
    ],
)
def test_damaged_files_of_a_run_are_named(at_hub, run_folder, name, content, match):
    (run_folder / name).write_bytes(content)
    refused(at_hub, ValueError, match, run_folder, REPO)
    assert not at_hub.requests


def test_names_of_another_model_are_refused(at_hub, run_folder):
    table = ConceptTable.load(run_folder / "concepts" / "words.parquet")
    ConceptTable(table.frame.head(30)).save(run_folder / "concepts" / "words.parquet")
    refused(at_hub, ValueError, r"30", run_folder, REPO)
    assert not at_hub.requests


def test_names_of_other_weights_are_refused(at_hub, run_folder):
    model = MSAEModel.from_pretrained(run_folder)
    with torch.no_grad():
        model.decoder.mul_(2)
    model.save_pretrained(run_folder)
    (run_folder / "metrics.json").unlink()
    refused(at_hub, ValueError, r"words\.parquet names the latents of another model", run_folder, REPO,
            allow_unmeasured=True)  # fmt: skip
    assert not at_hub.requests


def test_folders_that_hold_no_model_are_named(at_hub, run_folder, tmp_path):
    refused(at_hub, FileNotFoundError, r"there is no folder .*nowhere", tmp_path / "nowhere", REPO)
    (tmp_path / "empty").mkdir()
    refused(at_hub, ValueError, r"empty.* MSAE", tmp_path / "empty", REPO)
    refused(at_hub, ValueError, r"run_dir=.*my-msae", run_folder, REPO, run_dir=run_folder)
    model = MSAEModel(MSAEConfig(d_in=4, num_latents=8))
    refused(at_hub, FileNotFoundError, r"run_dir=.*nowhere", model, REPO, run_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["msae", "a/b/c", "tester/ms ae", "tester/a--b"])
def test_names_that_are_none_are_refused_before_any_work(at_hub, run_folder, name):
    refused(at_hub, ValueError, re.escape(repr(name)), run_folder, name)
    assert not at_hub.requests


def test_offline_and_without_a_login_nothing_is_begun(at_hub, run_folder, monkeypatch):
    from huggingface_hub import constants

    (run_folder / "metrics.json").write_text("would be refused later")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(at_hub, ConnectionError, "HF_HUB_OFFLINE.*tester/msae.*--dry_run", run_folder, REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    refused(at_hub, PermissionError, r"tester/msae.*hf auth login", run_folder, REPO)
    assert not at_hub.requests


# -- where to, and who may ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("token", ["hf_unknown", OTHER_TOKEN, READ_TOKEN])
def test_who_may_not_write_is_told_so_before_anything_is_uploaded(at_hub, run_folder, token):
    for _ in range(2):
        with pytest.raises(PermissionError, match=r"tester/msae .*nothing was released"):
            push_to_hub(run_folder, REPO, token=token)
        assert not any("lfs" in request for request in at_hub.requests)
        push_to_hub(run_folder, REPO)  # and if the repository is there already
        at_hub.requests.clear()
        (run_folder / "training_log.jsonl").write_text('{"step": 2}\n')


def test_a_private_repository_is_made_and_a_public_one_is_not_taken_for_one(at_hub, run_folder):
    push_to_hub(run_folder, REPO, private=True)
    assert at_hub.repos[KEY].private
    push_to_hub(run_folder, "tester/open")
    with pytest.raises(ValueError, match=r"tester/open .*public"):
        push_to_hub(run_folder, "tester/open", private=True)


@pytest.mark.slow
def test_a_branch_is_made_and_main_stays(at_hub, run_folder):
    release = push_to_hub(run_folder, REPO, revision="v2")
    assert not files_of(at_hub) and set(files_of(at_hub, "v2")) == SENT
    assert release.revision == "v2" and release.url == f"{at_hub.url}/{REPO}/tree/v2"
    assert release.loading_arguments == '"tester/msae", revision="v2"'


def test_a_pull_request_leaves_the_branch_and_gives_its_address(at_hub, run_folder):
    push_to_hub(run_folder, REPO)
    before = files_of(at_hub)
    (run_folder / "training_log.jsonl").write_text('{"step": 2}\n')
    release = push_to_hub(run_folder, REPO, create_pr=True, token=OTHER_TOKEN)  # of somebody who may not write
    assert files_of(at_hub) == before
    assert files_of(at_hub, "refs/pr/1")["training_log.jsonl"] == b'{"step": 2}\n'
    assert release.pull_request == f"{at_hub.url}/{REPO}/discussions/1" and release.pull_request in str(release)
    with pytest.raises(ValueError, match=r"tester/msae .*'nowhere'"):
        push_to_hub(run_folder, REPO, create_pr=True, revision="nowhere")


# -- edited cards ------------------------------------------------------------------------------------------------


def with_card(run_folder):
    """The run with a README.md as it is generated."""
    shutil.rmtree(run_folder.parent / "dry", ignore_errors=True)
    push_to_hub(run_folder, REPO, dry_run=run_folder.parent / "dry")
    shutil.copy(run_folder.parent / "dry" / "README.md", run_folder)
    return run_folder / "README.md"


def test_a_text_that_was_edited_on_the_hub_stays_and_its_results_are_renewed(at_hub, run_folder):
    push_to_hub(run_folder, REPO)
    edit_on_hub(at_hub, "## Use\n", "My own words.\n\n## Use\n")
    before = ModelCard(card_on_hub(at_hub))
    measure(run_folder, rows=60)
    for _ in range(2):
        push_to_hub(run_folder, REPO)
        card = ModelCard(card_on_hub(at_hub))
        assert card.text.split("<!--")[0] == before.text.split("<!--")[0]
        assert card.data.eval_results[0].metric_value != before.data.eval_results[0].metric_value
    push_to_hub(run_folder, REPO, replace_card=True)
    assert "My own words." not in card_on_hub(at_hub) and "60 embeddings" in card_on_hub(at_hub)


@pytest.mark.slow
@pytest.mark.parametrize("subfolder", [None, "a"])
def test_a_repository_made_on_the_hubs_page_keeps_its_license_and_gets_the_card(at_hub, run_folder, subfolder):
    repo = at_hub.repos[KEY] = Repo()
    repo.commit("main", {"README.md": b"---\nlicense: mit\nextra: yes\n---\n"}, "initial commit")
    for _ in range(2):
        push_to_hub(run_folder, REPO, subfolder=subfolder)
        card = ModelCard(card_on_hub(at_hub))
        assert "## Use" in card.text and card.data.license == "mit" and card.data.eval_results
        assert card.data["extra"] is True


def test_what_was_edited_in_the_run_is_sent_and_may_be_edited_there_again(at_hub, run_folder):
    card = with_card(run_folder)
    edit(card, "## Use\n", "First words.\n\n## Use\n")
    push_to_hub(run_folder, REPO)
    assert "First words." in card_on_hub(at_hub)
    edit(card, "First words.", "Second words.")
    push_to_hub(run_folder, REPO)
    assert "Second words." in card_on_hub(at_hub) and "First words." not in card_on_hub(at_hub)


@pytest.mark.parametrize("pushed_between", [True, False])
def test_where_both_were_edited_a_person_has_to_choose(at_hub, run_folder, pushed_between):
    card = with_card(run_folder)
    push_to_hub(run_folder, REPO)
    edit_on_hub(at_hub, "## Use\n", "Theirs.\n\n## Use\n")
    if pushed_between:  # the card on the Hub is now one that was pushed from here, but with their words
        (run_folder / "training_log.jsonl").write_text('{"step": 2}\n')
        push_to_hub(run_folder, REPO)
    edit(card, "## Use\n", "Mine.\n\n## Use\n")
    before = files_of(at_hub)
    with pytest.raises(ValueError, match=r"README\.md .*tester/msae.*--replace_card"):
        push_to_hub(run_folder, REPO)
    assert files_of(at_hub) == before
    card.write_text(card_on_hub(at_hub))
    push_to_hub(run_folder, REPO)
    assert "Theirs." in card_on_hub(at_hub)
    with pytest.warns(DeprecationWarning, match="replace_card"):
        push_to_hub(run_folder, REPO, card="fresh")
    assert "Theirs." not in card_on_hub(at_hub) and "Mine." not in card_on_hub(at_hub)


# -- dry runs ----------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_the_folder_and_asks_nothing_of_the_hub(at_hub, run_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    release = push_to_hub(run_folder, REPO, dry_run=tmp_path / "dry")
    assert not at_hub.requests and release.commit is None
    written = {path.relative_to(tmp_path / "dry").as_posix(): path for path in (tmp_path / "dry").rglob("*.*")}
    assert set(written) == SENT == {each.path for each in release.files}
    assert all(each.size == written[each.path].stat().st_size for each in release.files)
    assert "tester/msae" in str(release) and str(tmp_path / "dry") in str(release)
    MSAEModel.from_pretrained(tmp_path / "dry")
    with pytest.raises(ValueError, match=r"dry already exists"):
        push_to_hub(run_folder, REPO, dry_run=tmp_path / "dry")


def test_a_dry_run_touches_nothing_that_lies_beside_it(run_folder, tmp_path):
    (tmp_path / ".dry.tmp").mkdir()
    (tmp_path / ".dry.tmp" / "mine.txt").write_text("mine")
    push_to_hub(run_folder, REPO, dry_run=tmp_path / "dry")
    assert (tmp_path / ".dry.tmp" / "mine.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"my-msae", "dry", ".dry.tmp"}


def test_a_dry_run_that_fails_leaves_nothing(run_folder, tmp_path):
    (run_folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"metrics\.json"):
        push_to_hub(run_folder, REPO, dry_run=tmp_path / "dry")
    assert {path.name for path in tmp_path.iterdir()} == {"my-msae"}
