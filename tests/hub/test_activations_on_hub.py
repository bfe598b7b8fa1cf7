"""Embeddings on the Hub, against a server that speaks its protocol, in processes that know it by HF_ENDPOINT alone."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import datasets
import numpy as np
import pytest

from hf_msae.activations import ActivationWriter
from hf_msae.hub import push_activations, render_activations_card
from tests.extraction.test_extraction import TRAINING, labelled
from tests.stub_hub import StubHub

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)
KEY = ("dataset", "tester/embeds")


@pytest.fixture
def hub():
    with StubHub() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "embeds")


def write(folder, rows=25):
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    known = {"base_model_name_or_path": "google/siglip-base-patch16-224", "dataset": "/home/someone/pictures"}
    columns = {"image_embeds": 4, "vision.layers.2": 4}
    settings = {"rows_per_shard": 10, "metadata": known, "token_columns": ["vision.layers.2"]}
    with ActivationWriter(folder, columns, features, **settings) as writer:
        for row in range(rows):
            tokens = [X[row : row + 2]]
            writer.write({"image_embeds": X[row : row + 1], "vision.layers.2": tokens}, {"label": [row % 2]})
    return folder


def run(hub, home, program, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **hub.environment(home), **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=120
    )


PUSH = """
    from hf_msae.hub import push_activations
    print(push_activations({folder!r}, "tester/embeds").oid)
"""
LOAD = """
    import json
    import datasets
    from hf_msae.activations import ActivationDataset, load_activations

    acts = load_activations("tester/embeds", hook_point="vision.layers.2")
    found = {"rows": acts[:].tolist(), "of": acts.dataset_rows().tolist(), "label": acts.dataset["label"][:]}
    found["provenance"] = acts.provenance
    ActivationDataset.batches = None  # statistics are stored
    found["mean"] = acts.statistics().mean.tolist()
    print(json.dumps(found))
"""


def check(done):
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    tokens = np.concatenate([X[row : row + 2] for row in range(25)])
    np.testing.assert_array_equal(np.asarray(found["rows"], dtype=np.float32), tokens)
    assert found["of"] == [row for row in range(25) for _ in X[row : row + 2]]
    assert found["label"] == [row % 2 for row in range(25)]
    assert found["provenance"]["base_model_name_or_path"] == "google/siglip-base-patch16-224"
    np.testing.assert_allclose(found["mean"], tokens.astype(np.float64).mean(axis=0), rtol=1e-12)


@pytest.mark.slow
def test_pushed_in_one_commit_and_loaded_by_id_with_all_that_is_known(hub, folder, tmp_path):
    done = run(hub, tmp_path / "a", PUSH.format(folder=str(folder)))
    assert done.returncode == 0, done.stderr
    repo = hub.repos[KEY]
    assert repo.messages == ["initial commit", "Upload 25 rows of embeddings"] and not repo.private
    files = set(repo.files()) - {".gitattributes"}
    assert files == {path.name for path in folder.iterdir()} | {"README.md"}
    assert not any(b"/home" in content for content in repo.files().values())
    assert repo.files()["data-00001.arrow"] == (folder / "data-00001.arrow").read_bytes()
    assert "pictures" in repo.files()["README.md"].decode() and "/home" not in repo.files()["README.md"].decode()
    check(run(hub, tmp_path / "b", LOAD))
    check(run(hub, tmp_path / "b", LOAD, HF_HUB_OFFLINE="1"))


@pytest.mark.slow
def test_datasets_loads_it_without_this_package(hub, folder, tmp_path):
    assert run(hub, tmp_path / "a", PUSH.format(folder=str(folder))).returncode == 0
    program = """
        import sys
        import datasets
        data = datasets.load_dataset("tester/embeds", split="train")
        assert data.features["label"].names == ["no", "yes"] and len(data) == 25
        assert "hf_msae" not in sys.modules
        print(data[3]["image_embeds"])
    """
    done = run(hub, tmp_path / "b", program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == X[3].astype(float).tolist()


@pytest.mark.slow
def test_a_second_push_replaces_shards_and_leaves_an_edited_card(hub, folder, tmp_path):
    assert run(hub, tmp_path / "a", PUSH.format(folder=str(folder))).returncode == 0
    repo = hub.repos[KEY]
    repo.commit("main", {**repo.files(), "README.md": b"my own words", "notes.txt": b"mine"}, "edit")
    shutil.rmtree(folder)
    write(folder, rows=12)
    assert run(hub, tmp_path / "a", PUSH.format(folder=str(folder))).returncode == 0
    files = repo.files()
    assert sorted(name for name in files if name.endswith(".arrow")) == ["data-00000.arrow", "data-00001.arrow"]
    assert files["README.md"] == b"my own words" and files["notes.txt"] == b"mine"
    done = run(
        hub, tmp_path / "b", "from hf_msae.activations import load_activations as l; print(len(l('tester/embeds')))"
    )
    assert done.stdout.split()[-1] == "12", done.stderr


@pytest.mark.slow
def test_other_data_sets_are_loaded_as_before(hub, tmp_path):
    program = """
        import datasets, numpy as np
        from hf_msae.activations import load_activations
        data = datasets.Dataset.from_dict({"image_embeds": np.eye(4).tolist()})
        data.push_to_hub("tester/plain")
        print(load_activations("tester/plain")[:].tolist())
    """
    done = run(hub, tmp_path, program)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == np.eye(4).tolist()


@pytest.mark.slow
def test_the_script_pushes_and_finds_out_first_whether_it_may(hub, folders, tmp_path):
    labelled(6).save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    flags += ["--hub_dataset_id", "tester/new", "--hub_private_repo", "--use_cpu", "--disable_tqdm"]

    def script(**more):
        environment = {**os.environ, **hub.environment(tmp_path / "home"), **more}
        command = [sys.executable, TRAINING / "extract_activations.py", *flags]
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120)

    refused = script(HF_TOKEN="hf_other")
    assert refused.returncode == 1 and "no permission to write to the data set tester/new" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = script()
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/datasets/tester/new" in done.stdout
    assert (
        hub.repos["dataset", "tester/new"].private and "data-00000.arrow" in hub.repos["dataset", "tester/new"].files()
    )


def test_what_is_unfinished_or_has_changed_is_not_pushed(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no activations\.json"):
        push_activations(tmp_path, "tester/embeds")
    file = folder / "data-00001.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"data-00001.arrow has changed since it was written"):
        push_activations(folder, "tester/embeds")


def test_the_card(folder):
    text = render_activations_card(folder, "tester/embeds")
    assert text.startswith("---\n") and "path: data-*.arrow" in text
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("| `vision.layers.2`")]
    tokens = np.concatenate([X[row : row + 2] for row in range(25)]).astype(np.float64)
    expected = ["`vision.layers.2` (one for each token)", "49", "4", "float32"]
    expected += [f"{np.linalg.norm(tokens.mean(axis=0)):.4g}", f"{np.sqrt(tokens.var(axis=0).mean()):.4g}"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == expected
    assert "Beside them: `label`." in lines and "could not be read" not in text
    for index, line in enumerate(lines):  # Markdown ends a table at an empty line
        if line.startswith("#") or (line.startswith("|") and not lines[index - 1].startswith("|")):
            assert lines[index - 1] == "", line
