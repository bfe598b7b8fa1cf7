"""What is published of a run, where to, and who may."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import ModelCard, snapshot_download

from hf_msae import MSAEModel
from hf_msae.concepts import ConceptTable
from hf_msae.hub import write_model_card
from hf_msae.hub.publishing.card_edits import is_edited
from hf_msae.hub.publishing.release import push_to_hub
from tests.hub.conftest import KEY, REPO, SENT, card_on_hub, commit_there, files_of, rewrite
from tests.stub_hub import OTHER_TOKEN, READ_TOKEN


def test_a_run_is_sent_in_one_commit_without_what_is_nobodys_business(at_hub, run_folder):
    release = push_to_hub(run_folder, REPO, license="mit", tags=["birds"])
    repo = at_hub.repos[KEY]
    assert repo.messages == ["initial commit", "Upload MSAE"] and not repo.private
    card = ModelCard(card_on_hub(at_hub))
    assert card.data.license == "mit" and {"birds", "msae"} <= set(card.data.tags) and card.data.eval_results
    assert f'from_pretrained("{REPO}")' in card.text and not is_edited(str(card))
    files = files_of(at_hub)
    assert set(files) == SENT
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert not any(b"/home" in content or str(run_folder).encode() in content for content in files.values())
    assert json.loads(files["training.json"])["training_arguments"]["output_dir"] == "my-msae"
    assert release.commit == repo.sha() and release.url == f"{at_hub.url}/{REPO}" and release.revision == "main"
    assert {each.path: each.size for each in release.files} == {name: len(files[name]) for name in SENT}
    assert set(release.to_pandas().columns) == {"path", "size", "sent"} and release.to_pandas()["sent"].all()
    assert release.commit in str(release) and "model.safetensors" in str(release) and "already" not in str(release)
    assert release.to_dict()["files"][0]["path"] == "README.md"


def test_pushing_again_what_is_there_makes_no_commit(published, run_folder):
    again = push_to_hub(run_folder, REPO)
    assert len(published.repos[KEY].messages) == 2
    assert again.commit == published.repos[KEY].sha() and not any(each.sent for each in again.files)
    assert "already" in str(again)


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


def test_pictures_that_a_person_put_into_the_card_are_sent(published, run_folder):
    pictures = "\n![a drawing](another.png) ![elsewhere](../secret.png) ![a](<my drawing.png>) ![b](my%20other.png)\n"
    for name in ("my drawing.png", "my other.png"):
        shutil.copy(run_folder / "another.png", run_folder / name)
    (run_folder / "README.md").write_text(card_on_hub(published) + pictures)
    (run_folder.parent / "secret.png").write_bytes(b"secret")
    push_to_hub(run_folder, REPO)
    assert set(files_of(published)) == SENT | {"another.png", "my drawing.png", "my other.png"}


@pytest.mark.slow
def test_an_edited_card_of_this_machine_names_the_repository(at_hub, run_folder):
    card = write_model_card(run_folder)
    assert str(run_folder) in card.read_text()
    card.write_text(card.read_text().replace("## Use", "## Usage"))
    push_to_hub(run_folder, REPO)
    sent = files_of(at_hub)["README.md"].decode()
    assert "## Usage" in sent and str(run_folder) not in sent and f'from_pretrained("{REPO}")' in sent


def test_links_that_leave_the_folder_are_refused(at_hub, run_folder, tmp_path):
    """A link shown as a picture of the card would publish the file that it leads to."""
    (run_folder / "README.md").write_text("![a drawing](x.png)\n")
    for name in ("model.safetensors", "metrics.json", "README.md", "training.png", "concepts", "x.png"):
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
        target.rename(run_folder / f"kept {name}")
        (run_folder / name).symlink_to(f"kept {name}")  # a link that stays inside
    push_to_hub(run_folder, REPO)


def test_a_snapshot_of_the_cache_is_pushed_on(published, tmp_path):
    snapshot = Path(snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    weights = snapshot / "model.safetensors"
    blobs = snapshot.parents[1] / "blobs"
    assert weights.is_symlink() and weights.resolve().parent == blobs
    push_to_hub(snapshot, "tester/copy")
    sent = published.repos[("model", "tester/copy")].files()
    assert sent["model.safetensors"] == weights.read_bytes() and "concepts/words.parquet" in sent

    (blobs / "inner").mkdir()
    for target in (blobs.parent / "refs" / "main", blobs / "inner" / "x", blobs.parents[1] / "secret"):
        weights.unlink()
        target.touch()
        weights.symlink_to(target)
        with pytest.raises(ValueError, match=rf"model\.safetensors is a link to .*{target.name}"):
            push_to_hub(snapshot, "tester/copy")


def test_names_keep_their_columns_and_lose_their_paths(published, run_folder, tmp_path):
    (tmp_path / "back.parquet").write_bytes(files_of(published)["concepts/words.parquet"])
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
    (run_folder / "metrics.json").unlink()
    push_to_hub(run_folder, REPO, allow_unmeasured=True)
    assert "quality_against_k.png" not in files_of(at_hub)


def test_files_of_people_are_never_deleted_whatever_the_card_is_to_be(published, run_folder):
    card = files_of(published)["README.md"] + b"\n![mine](mine.png)\n"
    commit_there(published, {"mine.png": b"my picture", "README.md": card})
    release = push_to_hub(run_folder, REPO, replace_card=True)
    assert not release.deleted and files_of(published)["mine.png"] == b"my picture"
    assert b"mine.png" not in files_of(published)["README.md"]


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"format_version": 9, "files": {}}'])
def test_a_list_of_files_that_is_damaged_or_newer_is_named(published, run_folder, content):
    commit_there(published, {"msae_files.json": content})
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


def test_another_msae_is_replaced_and_that_is_said(published, run_folder, other_weights, tmp_path):
    first = push_to_hub(run_folder, REPO, license="mit")
    assert not first.replaced and "replaces" not in str(first), "these are the same weights"
    before = published.repos[KEY].sha()
    second = push_to_hub(tmp_path / "other", REPO, allow_unmeasured=True)
    assert second.replaced == {"": before}
    assert before in str(second)


def test_a_card_on_a_branch_loads_from_that_branch(at_hub, run_folder):
    release = push_to_hub(run_folder, REPO, revision="dev")
    assert not files_of(at_hub) and release.url == f"{at_hub.url}/{REPO}/tree/dev"
    assert release.loading_arguments == f'"{REPO}", revision="dev"'
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


def test_a_private_repository_is_made_and_a_public_one_is_not_taken_for_one(published, run_folder):
    push_to_hub(run_folder, "tester/mine", private=True)
    assert published.repos["model", "tester/mine"].private
    with pytest.raises(ValueError, match=r"tester/msae .*public"):
        push_to_hub(run_folder, REPO, private=True)


def test_a_pull_request_leaves_the_branch_and_gives_its_address(published, run_folder):
    before = files_of(published)
    (run_folder / "training_log.jsonl").write_text('{"step": 2}\n')
    release = push_to_hub(run_folder, REPO, create_pr=True, token=OTHER_TOKEN)  # of somebody who may not write
    assert files_of(published) == before
    assert files_of(published, "refs/pr/1")["training_log.jsonl"] == b'{"step": 2}\n'
    assert release.pull_request == f"{published.url}/{REPO}/discussions/1" and release.pull_request in str(release)
    with pytest.raises(ValueError, match=r"tester/msae .*'nowhere'"):
        push_to_hub(run_folder, REPO, create_pr=True, revision="nowhere")


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


def test_a_dry_run_that_fails_leaves_nothing(run_folder, tmp_path):
    (run_folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"metrics\.json"):
        push_to_hub(run_folder, REPO, dry_run=tmp_path / "dry")
    assert {path.name for path in tmp_path.iterdir()} == {"my-msae"}
