"""extract_activations: the right rows with their labels, after an interruption, and on several processes."""

import json
import multiprocessing
import signal
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import transformers
from accelerate import InitProcessGroupKwargs

from hf_msae._utils import acceleration
from hf_msae.backbones import extraction
from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.extraction.parts import Part, divide
from hf_msae.cli import extract
from hf_msae.embeddings import load_embeddings
from hf_msae.embeddings.metadata import new_metadata
from tests.backbones.extraction.data import (
    Counting,
    column,
    encoded,
    exit_code,
    fork,
    in_one_process,
    labelled,
    numbered,
    picture,
)

BOTH = {"text_column": "caption", "hook_points": ("image_embeds", "text_embeds")}


def test_rows_are_the_embeddings_of_the_rows_with_their_labels(backbone, tmp_path):
    data = labelled(30)
    folder = extract_activations(backbone, data, tmp_path / "out", **BOTH, batch_size=8, progress=False)
    assert folder == tmp_path / "out"
    images = backbone.image_embeds([picture(row) for row in range(30)], batch_size=8)
    texts = backbone.text_embeds(data["caption"], batch_size=8)
    np.testing.assert_array_equal(column(folder), images.numpy())
    np.testing.assert_array_equal(column(folder, "text_embeds"), texts.numpy())
    assert np.linalg.norm(column(folder), axis=1).std() > 1e-4, "embeddings must not be L2-normalized"
    saved = datasets.load_from_disk(str(folder))
    assert saved.column_names == ["image_embeds", "text_embeds", "caption", "label", "is_red", "score"]
    assert saved.features["label"] == data.features["label"]
    for name in ("caption", "label", "is_red", "score"):
        assert saved[name][:] == data[name][:]


def test_the_provenance_is_recorded(backbone, tmp_path):
    data = labelled(4)
    extract_activations(backbone, data, tmp_path, metadata={"dataset": "my/pictures"}, progress=False)
    known = load_embeddings(tmp_path).provenance
    assert known["base_model_name_or_path"] == backbone.name_or_path and known["base_model_revision"] is None
    assert known["base_model_class"] == "SiglipModel" and known["image_processor_backend"] == "pil"
    assert known["hook_point"] == "image_embeds" and known["hook_points"] == ["image_embeds"]
    assert known["dataset"] == "my/pictures" and known["dataset_fingerprint"] == data._fingerprint
    assert known["library_versions"]["transformers"] == transformers.__version__
    assert set(known["library_versions"]) == {"hf_msae", "torch", "transformers", "datasets", "pillow"}


def test_captions_alone_need_no_images(backbone, tmp_path):
    data = labelled(9).remove_columns("image").select(range(8, -1, -1))
    settings = {"text_column": "caption", "hook_points": "text_embeds", "keep_columns": ["boxes"], "progress": False}
    extract_activations(backbone, data, tmp_path, **settings)
    saved = datasets.load_from_disk(str(tmp_path))
    assert saved.column_names == ["text_embeds", "boxes"] and saved["boxes"][:] == data["boxes"][:]
    np.testing.assert_array_equal(column(tmp_path, "text_embeds"), backbone.text_embeds(data["caption"]).numpy())


def test_images_may_be_files_bytes_or_undecoded(backbone, tmp_path):
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    for row, path in enumerate(paths):
        path.write_bytes(encoded(row))
    data = {
        "feature": labelled(3).select_columns("image"),
        "undecoded": labelled(3).select_columns("image").cast_column("image", datasets.Image(decode=False)),
        "path": datasets.Dataset.from_dict({"image": list(map(str, paths))}),
        "bytes": datasets.Dataset.from_dict({"image": [encoded(row) for row in range(3)]}),
        "struct": datasets.Dataset.from_dict({"image": [{"bytes": encoded(row)} for row in range(3)]}),
        "formatted": labelled(3).with_format("torch"),
    }
    expected = backbone.image_embeds([picture(row) for row in range(3)]).numpy()
    for name, each in data.items():
        extract_activations(backbone, each, tmp_path / name, keep_columns=[], progress=False)
        np.testing.assert_array_equal(column(tmp_path / name), expected, err_msg=name)
        assert datasets.load_from_disk(str(tmp_path / name)).column_names == ["image_embeds"]


def test_only_images_with_a_path_have_a_file_name(backbone, tmp_path):
    path = tmp_path / "a" / "0.png"
    path.parent.mkdir()
    path.write_bytes(encoded(0))
    images = [{"path": str(path), "bytes": None}, {"path": None, "bytes": encoded(1)}]
    data = datasets.Dataset.from_dict({"image": images}, features=datasets.Features({"image": datasets.Image()}))
    extract_activations(backbone, data, tmp_path / "out", progress=False)
    assert datasets.load_from_disk(str(tmp_path / "out"))["file_name"][:] == ["0.png", None]


def test_workers_prepare_the_same_images_and_name_the_bad_ones(backbone, tmp_path):
    settings = {"batch_size": 3, "progress": False}
    extract_activations(backbone, labelled(20), tmp_path / "here", **BOTH, **settings)
    extract_activations(backbone, labelled(20), tmp_path / "there", **BOTH, **settings, num_workers=2)
    for name in ("image_embeds", "text_embeds"):
        np.testing.assert_array_equal(column(tmp_path / "there", name), column(tmp_path / "here", name))
    before = multiprocessing.active_children()
    with pytest.raises(ValueError, match="row 13 of column 'image'"):
        extract_activations(backbone, numbered(20, bad=[13]), tmp_path / "bad", **settings, num_workers=2)
    assert multiprocessing.active_children() == before, "workers do not outlive the error"


def test_a_killed_run_continues_to_the_same_numbers(folders, tmp_path, one_thread):
    settings = {**BOTH, "batch_size": 7, "rows_per_shard": 10, "progress": False}
    process = fork(in_one_process, folders["SiglipModel"], labelled(60), tmp_path / "killed", last=6, **settings)
    assert exit_code(process) == -signal.SIGKILL
    # Five batches of 7 were embedded; a shard holds two batches (10 rows rounded up), and two shards were complete.
    assert json.loads((tmp_path / "killed" / "activations.json").read_text())["num_rows"] == 28
    with pytest.raises(ValueError, match=r"unfinished \(28 rows"):
        load_embeddings(tmp_path / "killed")

    whole, rest = (Counting.from_pretrained(folders["SiglipModel"]) for _ in range(2))
    extract_activations(whole, labelled(60), tmp_path / "whole", **settings)
    extract_activations(rest, labelled(60), tmp_path / "killed", **settings)
    assert (whole.rows, rest.rows) == (60, 32)
    for file in (tmp_path / "whole").glob("data-*.arrow"):
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes()
    extract_activations(rest, labelled(60), tmp_path / "killed", **settings)
    assert rest.rows == 32, "a finished folder was embedded again"
    assert len(load_embeddings(tmp_path / "killed")) == 60


def test_a_folder_is_not_continued_with_something_else(folders, tmp_path):
    backbone = Counting.from_pretrained(folders["SiglipModel"])
    extract_activations(backbone, labelled(6), tmp_path, progress=False)
    with pytest.raises(ValueError, match="dataset_fingerprint"):
        extract_activations(backbone, labelled(7), tmp_path, progress=False)
    with pytest.raises(ValueError, match="extra_features"):
        extract_activations(backbone, labelled(6), tmp_path, keep_columns=["label"], progress=False)
    with torch.no_grad():
        backbone.model.vision_model.head.probe += 0.1
    with pytest.raises(ValueError, match="base_model_weights_sha256"):
        extract_activations(backbone, labelled(6), tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        extract_activations(backbone, labelled(6), tmp_path, resume=False, progress=False)
    assert backbone.rows == 6
    extract_activations(backbone, labelled(7), tmp_path, overwrite=True, progress=False)
    assert len(load_embeddings(tmp_path)) == 7

    (tmp_path / "part-000000007-000000014").mkdir()
    metadata = tmp_path / "activations.json"
    metadata.write_text(metadata.read_text().replace('"complete": true', '"complete": false'))
    (tmp_path / "data-00000.arrow").unlink()
    with pytest.raises(ValueError, match=r"part-000000007-000000014.*overwrite=True"):
        extract_activations(backbone, labelled(7), tmp_path, progress=False)
    extract_activations(backbone, labelled(7), tmp_path, overwrite=True, progress=False)
    assert not list(tmp_path.glob("part-*")) and len(load_embeddings(tmp_path)) == 7


DATA = labelled(6)


@pytest.mark.parametrize(
    ("error", "message", "dataset", "arguments"),
    [
        (TypeError, "train, test", datasets.DatasetDict(train=DATA, test=DATA), {}),
        (TypeError, "Dataset.*list", [1], {}),
        (ValueError, "empty", DATA.select([]), {}),
        (ValueError, "transform.*reset_format", DATA.with_transform(lambda rows: rows), {}),
        (ValueError, "image_column.*'img'.*image, caption", DATA, {"image_column": "img"}),
        (ValueError, "image_column 'score'.*Value", DATA, {"image_column": "score"}),
        (ValueError, "text_column.*'text'.*caption", DATA, {**BOTH, "text_column": "text"}),
        (ValueError, "text_column 'boxes'.*List", DATA, {**BOTH, "text_column": "boxes"}),
        (ValueError, "text_embeds.*text_column", DATA, {"hook_points": ["text_embeds"]}),
        (ValueError, "text.layers.0.*text_column", DATA, {"hook_points": "text.layers.0"}),
        (ValueError, "keep_columns.*'labels'.*caption", DATA, {"keep_columns": ["labels"]}),
        (ValueError, "'image'.*keep_columns.*Image", DATA, {"keep_columns": ["image"]}),
        (ValueError, "'logits'", DATA, {"hook_points": ["image_embeds", "logits"]}),
        (ValueError, "vision.layers.2", DATA, {"hook_points": "vision.layers.2"}),
        (ValueError, r"hook_points.*\[\]", DATA, {"hook_points": []}),
        (ValueError, "batch_size.*0", DATA, {"batch_size": 0}),
        (ValueError, "dtype.*float16.*int8", DATA, {"dtype": "int8"}),
        (ValueError, "'ignore'.*raise or skip", DATA, {"on_unreadable": "ignore"}),
        (ValueError, "'cls'.*all or patches", DATA, {"tokens": "cls"}),
        (ValueError, "seed.*-1", DATA, {"seed": -1}),
        (ValueError, "tokens_per_row.*0", DATA, {"tokens_per_row": 0}),
        (ValueError, "'image_embeds'.*keep_columns", DATA.rename_column("score", "image_embeds"), {}),
    ],
)
def test_bad_input_is_named_before_anything_is_embedded(backbone, tmp_path, error, message, dataset, arguments):
    with pytest.raises(error, match=message):
        extract_activations(backbone, dataset, tmp_path / "out", **arguments, progress=False)
    assert not (tmp_path / "out").exists()


def test_bad_rows_are_named_and_what_was_embedded_is_kept(backbone, tmp_path):
    rows = labelled(12).to_dict()
    rows["image"][9], rows["caption"][5] = None, None
    data = datasets.Dataset.from_dict(rows, features=labelled(1).features)
    with pytest.raises(ValueError, match="row 9 of column 'image'"):
        extract_activations(backbone, data, tmp_path / "image", batch_size=4, progress=False)
    assert json.loads((tmp_path / "image" / "activations.json").read_text())["num_rows"] == 8
    with pytest.raises(ValueError, match="row 5 of column 'caption'"):
        extract_activations(backbone, data, tmp_path / "text", **BOTH, progress=False)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(encoded(0, "JPEG")[:-200])
    with pytest.raises(ValueError, match=r"row 0 of column 'image' \(.*cut.jpg\).*OSError"):
        extract_activations(
            backbone, datasets.Dataset.from_dict({"image": [str(cut)]}), tmp_path / "file", progress=False
        )


def test_half_precision_is_stored_as_such(backbone, tmp_path):
    extract_activations(backbone, labelled(5), tmp_path / "half", dtype="float16", progress=False)
    extract_activations(backbone, labelled(5), tmp_path / "full", progress=False)
    kind = datasets.load_from_disk(str(tmp_path / "half")).features["image_embeds"]
    assert kind == datasets.List(datasets.Value("float16"), length=32)
    np.testing.assert_array_equal(column(tmp_path / "half"), column(tmp_path / "full").astype(np.float16))


@pytest.mark.parametrize(
    ("start", "stop", "batch_size", "processes"),
    [(0, 100, 8, 3), (40, 101, 8, 2), (0, 5, 8, 4), (7, 7, 8, 2), (0, 64, 8, 8)],
)
def test_parts_are_contiguous_whole_batches_that_cover_all_rows(start, stop, batch_size, processes):
    parts = divide(start, stop, batch_size, processes)
    assert [row for part in parts for row in part] == list(range(start, stop))
    assert all(part and (part.start - start) % batch_size == 0 for part in parts) and len(parts) <= processes
    sizes = [-(-len(part) // batch_size) for part in parts]
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_processes_that_open_other_rows_stop_before_they_embed_them(backbone, tmp_path, monkeypatch):
    main = [Part(range(4)), Part(range(4, 8))], new_metadata({"image_embeds": 32}, metadata={"dataset": "shuffled"})
    monkeypatch.setattr(extraction, "on_main_process", lambda *_: main)
    second = SimpleNamespace(process_index=1, num_processes=2, device="cpu")
    with pytest.raises(ValueError, match="dataset: the folder has 'shuffled'"):
        extract_activations(backbone, numbered(8), tmp_path / "out", accelerator=second)
    assert not (tmp_path / "out").exists()


def test_processes_wait_for_one_that_takes_hours(backbone, tmp_path, monkeypatch):
    class Created(Exception):
        pass

    def created(kwargs_handlers, **_):
        (waiting,) = (each for each in kwargs_handlers if isinstance(each, InitProcessGroupKwargs))
        raise Created(waiting.timeout)

    monkeypatch.setattr(acceleration, "Accelerator", created)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Created, match="30 days"):
        extract_activations(backbone, numbered(2), tmp_path / "out")
    with pytest.raises(Created, match="30 days"):
        extract.main(["--backbone", "scenes", "--dataset", "scenes:test:2", "--output_dir", str(tmp_path / "out")])
