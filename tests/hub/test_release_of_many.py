"""Many models in one repository: each in its subfolder, an index, and a card of them all."""

import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard

from hf_msae import MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.hub.publishing.card_edits import is_edited
from hf_msae.hub.publishing.index import INDEX_FILE, check_subfolder, read_index
from hf_msae.hub.publishing.release import push_to_hub
from tests.hub.conftest import KEY, REPO, commit_there, files_of


def index_of(hub):
    return json.loads(files_of(hub)[INDEX_FILE])["models"]


@pytest.fixture
def sweep(run_folder, tmp_path):
    """Two runs side by side, as a sweep leaves them, and what else may lie there."""
    folder = tmp_path / "sweep"
    for name in ("num_latents=40,k=4", "vision.layers.11/seed-0"):
        shutil.copytree(run_folder, folder / name)
    (folder / "vision.layers.11/seed-0/metrics.json").unlink()
    (folder / "checkpoint-5").mkdir()
    shutil.copy(run_folder / "config.json", folder / "checkpoint-5")
    (folder / "backbone").mkdir()
    (folder / "backbone" / "config.json").write_text('{"model_type": "siglip"}')
    (folder / "sweep.csv").write_text("name,fvu\n")
    return folder


def test_a_sweep_is_published_in_one_commit_with_an_index_and_a_card_of_all(at_hub, sweep):
    names = ["num_latents=40,k=4", "vision.layers.11/seed-0"]
    release = push_to_hub(sweep, REPO, allow_unmeasured=True)
    assert at_hub.repos[KEY].messages[1:] == [f"Upload 2 MSAEs: {', '.join(names)}"]
    files, index = files_of(at_hub), index_of(at_hub)
    assert {name.rsplit("/", 1)[0] for name in files if name.endswith("config.json")} == set(names) == set(index)
    assert {name for name in files if "/" not in name} == {INDEX_FILE, "README.md"}
    assert release.subfolders == tuple(names)
    metrics = json.loads((sweep / names[0] / "metrics.json").read_text())
    line = index[names[0]]
    assert line["fvu"] == metrics["fvu"] and line["cosine_similarity"] == metrics["cosine_similarity"]
    assert line["model_sha256"] == model_fingerprint(MSAEModel.from_pretrained(sweep / names[0]))
    told = {"hook_point": "image_embeds", "d_in": 8, "num_latents": 40, "nesting": "topk", "nesting_ks": [4, 40]}
    told |= {"base_model_name_or_path": "google/siglip-tiny", "activation": "relu", "concepts": True}
    assert told.items() <= line.items() and index[names[1]]["fvu"] is None
    assert f'subfolder="{names[0]}"' in files[f"{names[0]}/README.md"].decode()


def test_a_card_takes_no_pictures_from_outside_of_its_run(at_hub, sweep):
    other = "num_latents=40,k=4"
    (sweep / "vision.layers.11/seed-0/README.md").write_text(f"# Mine\n\n![theirs](../../{other}/another.png)\n")
    push_to_hub(sweep, REPO, allow_unmeasured=True)
    assert f"{other}/another.png" not in files_of(at_hub)


@pytest.mark.slow
def test_the_card_of_all_has_a_row_for_each_and_valid_metadata(at_hub, sweep):
    push_to_hub(sweep, REPO, allow_unmeasured=True)
    text = files_of(at_hub)["README.md"].decode()
    card = ModelCard(text)
    (row,) = [line for line in text.splitlines() if line.startswith("| [num_latents=40,k=4]")]
    fvu = index_of(at_hub)["num_latents=40,k=4"]["fvu"]
    assert f"| image_embeds | 8 | 40 | relu | 4, 40 | {fvu:.4g} |" in row and row.endswith("| yes |")
    assert "Not measured: vision.layers.11/seed-0." in text
    assert card.data.base_model == "google/siglip-tiny" and card.data.license == "apache-2.0"
    assert {"msae", "matryoshka"} <= set(card.data.tags) and card.data.library_name == "hf_msae"
    found = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert found["fvu"] == pytest.approx(fvu, rel=1e-3) and not is_edited(text)
    lines = text.splitlines()
    for number, line in enumerate(lines):  # Markdown needs an empty line before a table, and none in it
        if line.startswith("|") and not lines[number - 1].startswith("|"):
            assert lines[number - 1] == "" and set(lines[number + 1]) <= set("|-")


def test_models_are_added_renewed_and_forgotten(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a")
    push_to_hub(run_folder, REPO, subfolder="b/seed-0")
    assert list(index_of(at_hub)) == ["a", "b/seed-0"]
    commit_there(at_hub, {name: None for name in files_of(at_hub) if name.startswith("a/")})
    (run_folder / "metrics.json").unlink()
    push_to_hub(run_folder, REPO, subfolder="b/seed-0", allow_unmeasured=True)
    index = index_of(at_hub)
    assert list(index) == ["b/seed-0"] and index["b/seed-0"]["fvu"] is None
    files = files_of(at_hub)
    assert "b/seed-0/metrics.json" not in files and "[a](a/README.md)" not in files["README.md"].decode()


@pytest.mark.slow
def test_a_model_in_a_subfolder_leaves_the_others_files_alone(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a", max_shard_size=1500)
    before = {name: content for name, content in files_of(at_hub).items() if name.startswith("a/")}
    push_to_hub(run_folder, REPO, subfolder="b", max_shard_size=1500)
    release = push_to_hub(run_folder, REPO, subfolder="b")
    assert release.deleted and all(name.startswith("b/") for name in release.deleted)
    assert {name: content for name, content in files_of(at_hub).items() if name.startswith("a/")} == before


@pytest.mark.slow
def test_what_people_wrote_into_the_card_of_all_stays(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a")
    card = files_of(at_hub)["README.md"].replace(b"## Limits\n", b"My own words.\n\n## Limits\n")
    commit_there(at_hub, {"README.md": card})
    push_to_hub(run_folder, REPO, subfolder="b")
    text = files_of(at_hub)["README.md"].decode()
    assert "My own words." in text and list(index_of(at_hub)) == ["a", "b"]
    push_to_hub(run_folder, REPO, subfolder="b", replace_card=True)
    text = files_of(at_hub)["README.md"].decode()
    assert "My own words." not in text and "[b](b/README.md)" in text and "[a](a/README.md)" in text


def test_a_repository_holds_one_model_at_its_root_or_many_in_subfolders(published, run_folder):
    with pytest.raises(ValueError, match=r"tester/msae .* root"):
        push_to_hub(run_folder, REPO, subfolder="a")
    push_to_hub(run_folder, "tester/many", subfolder="a")
    with pytest.raises(ValueError, match=r"tester/many .*--subfolder"):
        push_to_hub(run_folder, "tester/many")


@pytest.mark.parametrize("name", ["..", "a/../b", "a//b", "", "a b", "a/.", "a:b", ".git", "a/.hidden"])
def test_subfolders_that_are_none_are_refused(name):
    with pytest.raises(ValueError, match=re.escape(repr(name.strip("/")))):
        check_subfolder(name)


@pytest.mark.slow
def test_an_index_that_is_damaged_or_newer_is_not_overwritten(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a")
    for content in (b"[]", b'{"models": {}, "format_version": 9}'):
        commit_there(at_hub, {INDEX_FILE: content})
        with pytest.raises(ValueError, match=r"msae_index\.json of tester/msae"):
            push_to_hub(run_folder, REPO, subfolder="b")
        assert files_of(at_hub)[INDEX_FILE] == content
    assert read_index(None, REPO) == {}


@pytest.mark.slow
def test_a_race_of_two_pushes_loses_neither(at_hub, run_folder):
    push_to_hub(run_folder, REPO, subfolder="a")
    at_hub.fail("POST", r"/commit/", action=lambda: push_to_hub(run_folder, REPO, subfolder="b"))
    push_to_hub(run_folder, REPO, subfolder="c")
    assert list(index_of(at_hub)) == ["a", "b", "c"]
