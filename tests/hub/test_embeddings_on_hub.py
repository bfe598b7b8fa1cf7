"""Embeddings are pushed in one commit, and loaded by id with all that is known of them."""

import json
import shutil

import datasets
import numpy as np
import pytest
from huggingface_hub import close_session, constants

from hf_msae.backbones.pictures import open_pictures
from hf_msae.cli.extract import main
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.hub import push_embeddings, render_embeddings_card
from hf_msae.scenes import load_scenes
from tests.backbones.extraction.data import labelled
from tests.hub.conftest import commit_there, files_of
from tests.stub_hub import READ_TOKEN, Repo

X = np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)
KEY = ("dataset", "tester/embeds")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "embeds")


def write(folder, rows=25):
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    known = {"base_model_name_or_path": "google/siglip-base-patch16-224", "dataset": "/home/someone/pictures"}
    columns = {"image_embeds": 4, "vision.layers.2": 4}
    settings = {"rows_per_shard": 10, "metadata": known, "token_columns": ["vision.layers.2"]}
    with EmbeddingWriter(folder, columns, features, **settings) as writer:
        tokens = [X[row : row + 2] for row in range(rows)]
        labels = [row % 2 for row in range(rows)]
        writer.write({"image_embeds": X[:rows], "vision.layers.2": tokens}, {"label": labels})
    return folder


def push(folder, **settings):
    return push_embeddings(folder, "tester/embeds", **settings)


def rewritten(folder, rows):
    shutil.rmtree(folder)
    return write(folder, rows)


def check_loaded():
    embeddings = load_embeddings("tester/embeds", hook_point="vision.layers.2")
    tokens = np.concatenate([X[row : row + 2] for row in range(25)])
    np.testing.assert_array_equal(embeddings[:].numpy(), tokens)
    assert embeddings.dataset_rows().tolist() == [row for row in range(25) for _ in X[row : row + 2]]
    assert embeddings.dataset["label"][:] == [row % 2 for row in range(25)]
    assert embeddings.provenance["base_model_name_or_path"] == "google/siglip-base-patch16-224"
    embeddings.batches = None  # statistics are stored, so they need no pass
    np.testing.assert_allclose(embeddings.statistics().mean, tokens.astype(np.float64).mean(axis=0), rtol=1e-12)


def test_pushed_in_one_commit_and_loaded_by_id_with_all_that_is_known(at_hub, folder, monkeypatch):
    push(folder)
    repo, files = at_hub.repos[KEY], files_of(at_hub, key=KEY)
    assert repo.messages == ["initial commit", "Upload 25 rows of embeddings"] and not repo.private
    assert set(files) == {path.name for path in folder.iterdir()} | {"README.md"}
    assert not any(b"/home" in content for content in files.values())
    assert files["data-00001.arrow"] == (folder / "data-00001.arrow").read_bytes()
    assert b"pictures" in files["README.md"]
    check_loaded()
    asked = len(at_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    check_loaded()
    assert len(at_hub.requests) == asked


def test_their_pictures_are_found_without_those_that_could_not_be_read(at_hub, tmp_path):
    known = {"dataset": "scenes:test:4:7", "image_column": "image"}
    with EmbeddingWriter(tmp_path / "embeds", {"image_embeds": 4}, metadata=known) as writer:
        writer.write({"image_embeds": X[:3]}, skipped=[1])
    push(tmp_path / "embeds")
    pictures = open_pictures(load_embeddings("tester/embeds"))
    assert pictures["caption"][:] == load_scenes("test", 4, 7).select([0, 2, 3])["caption"][:]


@pytest.mark.slow
def test_datasets_loads_it_without_this_package_and_other_datasets_load_too(at_hub, folder, in_process, monkeypatch):
    push(folder)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", at_hub.url)
    datasets.Dataset.from_dict({"image_embeds": np.eye(4).tolist()}).push_to_hub("tester/plain")
    printed = in_process("""
        import sys
        import datasets
        data = datasets.load_dataset("tester/embeds", split="train")
        assert data.features["label"].names == ["no", "yes"] and len(data) == 25
        assert "hf_msae" not in sys.modules
        print(data[3]["image_embeds"])
        from hf_msae.embeddings import load_embeddings
        print(load_embeddings("tester/plain")[:].tolist())
    """)
    first, second = map(json.loads, printed.splitlines()[-2:])
    assert first == X[3].astype(float).tolist() and second == np.eye(4).tolist()


def test_the_command_pushes_and_checks_first_whether_it_may(at_hub, folders, tmp_path, monkeypatch, capsys):
    labelled(6).save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    flags += ["--hub_dataset_id", "tester/new", "--hub_private_repo", "--use_cpu", "--disable_tqdm"]
    with monkeypatch.context() as context:
        context.setenv("HF_TOKEN", "hf_other")
        with pytest.raises(SystemExit):
            main(list(map(str, flags)))
    assert "tester/new" in capsys.readouterr().err and not (tmp_path / "out").exists()
    main(list(map(str, flags)))
    assert f"{at_hub.url}/datasets/tester/new" in capsys.readouterr().out
    repo = at_hub.repos["dataset", "tester/new"]
    assert repo.private and "data-00000.arrow" in repo.files()


def test_the_card_is_renewed_until_a_person_edits_it(at_hub, folder):
    pushed = push(folder)
    assert pushed.commit == at_hub.repos[KEY].sha() and pushed.url == f"{at_hub.url}/datasets/tester/embeds"
    assert push(folder).sent == () and len(at_hub.repos[KEY].messages) == 2
    pushed = push(rewritten(folder, 7))
    text = at_hub.repos[KEY].files()["README.md"].decode()
    assert "\n7 rows of embeddings" in text
    commit_there(at_hub, {"README.md": text.replace("## Use\n", "My words.\n\n## Use\n").encode()}, KEY)
    push(rewritten(folder, 12))
    text = at_hub.repos[KEY].files()["README.md"].decode()
    assert "\n7 rows of embeddings" in text and "My words." in text
    push(folder, replace_card=True)
    assert "My words." not in at_hub.repos[KEY].files()["README.md"].decode()
    assert pushed.deleted == ("data-00001.arrow", "data-00002.arrow") and pushed.num_rows == 7


def test_a_push_in_between_is_noticed_and_no_mixture_is_left(at_hub, folder, tmp_path):
    push(rewritten(folder, 7))
    other = write(tmp_path / "other", rows=25)
    at_hub.fail("POST", r"/commit/", action=lambda: push(other))
    push(rewritten(folder, 12))
    files = at_hub.repos[KEY].files()
    assert {name for name in files if name.endswith(".arrow")} == {"data-00000.arrow", "data-00001.arrow"}
    assert json.loads(files["activations.json"])["num_rows"] == 12


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"data-00000.arrow": b"theirs"}, r"tester/embeds holds data-00000\.arrow"),
        ({"activations.json": b"[1]"}, r"tester/embeds holds an activations\.json"),
        ({"activations.json": b'{"shards": [], "columns": 3}'}, r"tester/embeds holds an activations\.json"),
    ],
)
def test_a_data_set_of_something_else_is_left_alone(at_hub, folder, files, match):
    at_hub.repos[KEY] = Repo()
    at_hub.repos[KEY].commit("main", files, "theirs")
    with pytest.raises(ValueError, match=match):
        push(folder)
    assert at_hub.repos[KEY].files() == files


def test_shards_that_others_added_are_neither_deleted_nor_mixed_in(at_hub, folder):
    push(folder)
    commit_there(at_hub, {"data-extra.arrow": b"theirs", "table.arrow": b"theirs"}, KEY)
    with pytest.raises(ValueError, match=r"holds data-extra\.arrow"):
        push(rewritten(folder, 7))


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("POST", r"/repos/create$", {"status": 503}),
        ("POST", r"/commit/", {"status": 500}),
        ("POST", r"/commit/", {"lose_answer": True}),
        ("GET", r"/tree/", {"status": 503}),
    ],
)
def test_what_fails_once_is_tried_again_and_nothing_is_made_twice(at_hub, folder, method, path, fault):
    fault = at_hub.fail(method, path, **fault)
    pushed = push(folder)
    repo = at_hub.repos[KEY]
    assert fault.times == 0 and len(repo.messages) == 2 and pushed.commit == repo.sha()
    assert pushed.answer_lost == bool(fault.lose_answer)


def test_what_keeps_failing_is_reported_with_its_fate(at_hub, folder):
    at_hub.fail("POST", r"/commit/", times=1000, status=500)
    with pytest.raises(ConnectionError, match=r"500 .*nothing was released.*tester/embeds"):
        push(folder)
    with pytest.raises(PermissionError, match=r"tester/embeds"):
        push(folder, token=READ_TOKEN)


def test_a_pull_request_leaves_the_branch(at_hub, folder):
    push(folder)
    pushed = push(rewritten(folder, 7), create_pr=True)
    assert pushed.url == f"{at_hub.url}/datasets/tester/embeds/discussions/1"
    assert "data-00002.arrow" in at_hub.repos[KEY].files()


def test_a_link_that_leaves_the_folder_is_not_pushed(at_hub, folder, tmp_path):
    (folder / "state.json").rename(tmp_path / "elsewhere.json")
    (folder / "state.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match=r"state\.json is a link to .*elsewhere\.json"):
        push(folder)


def test_what_is_unfinished_or_has_changed_is_not_pushed(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no activations\.json"):
        push_embeddings(tmp_path, "tester/embeds")
    file = folder / "data-00001.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"data-00001.arrow has changed"):
        push_embeddings(folder, "tester/embeds")


def test_the_card(folder):
    text = render_embeddings_card(folder, "tester/embeds")
    assert text.startswith("---\n") and "path: data-*.arrow" in text
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("| `vision.layers.2`")]
    tokens = np.concatenate([X[row : row + 2] for row in range(25)]).astype(np.float64)
    expected = ["`vision.layers.2` (one per token)", "49", "4", "float32"]
    expected += [f"{np.linalg.norm(tokens.mean(axis=0)):.4g}", f"{np.sqrt(tokens.var(axis=0).mean()):.4g}"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == expected
    assert "Other columns: `label`." in lines and "could not be read" not in text
    for index, line in enumerate(lines):  # Markdown ends a table at an empty line
        if line.startswith("#") or (line.startswith("|") and not lines[index - 1].startswith("|")):
            assert lines[index - 1] == "", line
