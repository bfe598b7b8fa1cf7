"""extract_activations: the right rows with their labels, after an interruption, and on several processes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.extraction.parts import divide
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings
from tests.tiny_backbones import CAPTIONS, save_siglip

ROOT = Path(__file__).parents[3]
TRAINING = ROOT / "training"
BOTH = {"text_column": "caption", "hook_points": ("image_embeds", "text_embeds")}


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory):
    transformers.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("backbone") / "siglip"
    torch.manual_seed(0)
    save_siglip(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(backbone_folder):
    return Backbone.from_pretrained(backbone_folder)


def encoded(row, kind="PNG"):
    noise = np.random.default_rng(row).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def picture(row):
    return Image.open(io.BytesIO(encoded(row)))


def labelled(rows=30):
    """A data set with an image, a caption, labels of several types, and a vector that is no label."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["circle", "square", "star"]),
            "is_red": datasets.Value("bool"),
            "score": datasets.Value("float64"),
            "boxes": datasets.List(datasets.Value("int64")),
            "raw": datasets.Value("binary"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encoded(row), "path": None} for row in range(rows)],
            "caption": [CAPTIONS[row % 3] + " red" * (row % 4) for row in range(rows)],
            "label": [row % 3 for row in range(rows)],
            "is_red": [row % 2 == 0 for row in range(rows)],
            "score": [None if row == 4 else row / 7 for row in range(rows)],
            "boxes": [[row, 1] for row in range(rows)],
            "raw": [b"raw"] * rows,
        },
        features=features,
    )


def column(folder, name="image_embeds"):
    return load_embeddings(folder, hook_point=name)[:].numpy()


def test_rows_are_the_embeddings_of_the_rows_with_their_labels(backbone, tmp_path):
    data = labelled(30)
    folder = extract_activations(backbone, data, tmp_path / "out", **BOTH, batch_size=8, progress=False)
    assert folder == tmp_path / "out"
    images = backbone.image_embeds([picture(row) for row in range(30)], batch_size=8)
    texts = backbone.text_embeds(data["caption"], batch_size=8)
    np.testing.assert_array_equal(column(folder), images.numpy())
    np.testing.assert_array_equal(column(folder, "text_embeds"), texts.numpy())
    assert np.linalg.norm(column(folder), axis=1).std() > 1e-4, "embeddings must not be L2-normalised"

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
    extract_activations(
        backbone,
        data,
        tmp_path,
        text_column="caption",
        hook_points="text_embeds",
        keep_columns=["boxes"],
        progress=False,
    )
    saved = datasets.load_from_disk(str(tmp_path))
    assert saved.column_names == ["text_embeds", "boxes"] and saved["boxes"][:] == data["boxes"][:]
    np.testing.assert_array_equal(column(tmp_path, "text_embeds"), backbone.text_embeds(data["caption"]).numpy())


def test_images_may_be_files_bytes_or_undecoded(backbone, tmp_path):
    paths = []
    for row in range(3):
        paths.append(str(tmp_path / f"{row}.png"))
        Path(paths[-1]).write_bytes(encoded(row))
    data = {
        "feature": labelled(3).select_columns("image"),
        "undecoded": labelled(3).select_columns("image").cast_column("image", datasets.Image(decode=False)),
        "path": datasets.Dataset.from_dict({"image": paths}),
        "bytes": datasets.Dataset.from_dict({"image": [encoded(row) for row in range(3)]}),
        "struct": datasets.Dataset.from_dict({"image": [{"bytes": encoded(row)} for row in range(3)]}),
        "formatted": labelled(3).with_format("torch"),
    }
    expected = backbone.image_embeds([picture(row) for row in range(3)]).numpy()
    for name, each in data.items():
        extract_activations(backbone, each, tmp_path / name, keep_columns=[], progress=False)
        np.testing.assert_array_equal(column(tmp_path / name), expected, err_msg=name)
        assert datasets.load_from_disk(str(tmp_path / name)).column_names == ["image_embeds"]


def test_workers_prepare_the_same_images(backbone, tmp_path):
    extract_activations(backbone, labelled(20), tmp_path / "here", **BOTH, batch_size=3, progress=False)
    extract_activations(
        backbone, labelled(20), tmp_path / "there", **BOTH, batch_size=3, num_workers=2, progress=False
    )
    for name in ("image_embeds", "text_embeds"):
        np.testing.assert_array_equal(column(tmp_path / "there", name), column(tmp_path / "here", name))

    data = labelled(20).to_dict()
    data["image"][13] = {"bytes": b"no image", "path": None}
    broken = datasets.Dataset.from_dict(data, features=labelled(1).features)
    with pytest.raises(ValueError, match="row 13 of column 'image' cannot be decoded"):
        extract_activations(backbone, broken, tmp_path / "broken", num_workers=2, batch_size=4, progress=False)


class Counting(Backbone):
    """Counts the images it embeds."""

    rows = 0

    def embed_pixels(self, inputs):
        self.rows += len(inputs["pixel_values"])
        return super().embed_pixels(inputs)


class Killed(Backbone):
    """Dies at its sixth batch of images, without a chance to clean up."""

    batches = 0

    def embed_pixels(self, inputs):
        self.batches += 1
        if self.batches == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_pixels(inputs)


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_numbers(backbone_folder, tmp_path, request):
    # The threads of this process are not in its fork, and on some processors products depend on their number.
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)
    settings = {**BOTH, "batch_size": 7, "rows_per_shard": 10, "progress": False}
    pid = os.fork()
    if pid == 0:
        try:
            killed = Killed.from_pretrained(backbone_folder)
            extract_activations(killed, labelled(60), tmp_path / "killed", **settings)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    # Five batches of 7 were embedded; a shard holds two batches (10 rows rounded up), and two shards were complete.
    assert json.loads((tmp_path / "killed" / "activations.json").read_text())["num_rows"] == 28
    with pytest.raises(ValueError, match=r"unfinished \(28 rows in complete shards\)"):
        load_embeddings(tmp_path / "killed")

    whole, rest = Counting.from_pretrained(backbone_folder), Counting.from_pretrained(backbone_folder)
    extract_activations(whole, labelled(60), tmp_path / "whole", **settings)
    extract_activations(rest, labelled(60), tmp_path / "killed", **settings)
    assert (whole.rows, rest.rows) == (60, 32)
    for file in ("data-00000.arrow", "data-00001.arrow", "data-00002.arrow", "data-00003.arrow", "data-00004.arrow"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    extract_activations(rest, labelled(60), tmp_path / "killed", **settings)
    assert rest.rows == 32, "a finished folder was embedded again"
    assert len(load_embeddings(tmp_path / "killed")) == 60


def test_a_folder_is_not_continued_with_something_else(backbone_folder, tmp_path):
    backbone = Counting.from_pretrained(backbone_folder)
    extract_activations(backbone, labelled(6), tmp_path, progress=False)
    with pytest.raises(ValueError, match="dataset_fingerprint: the folder has"):
        extract_activations(backbone, labelled(7), tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        extract_activations(backbone, labelled(6), tmp_path, keep_columns=["label"], progress=False)
    with torch.no_grad():
        backbone.model.vision_model.head.probe += 0.1
    with pytest.raises(ValueError, match="base_model_weights_sha256: the folder has"):
        extract_activations(backbone, labelled(6), tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="already holds embeddings"):
        extract_activations(backbone, labelled(6), tmp_path, resume=False, progress=False)
    assert backbone.rows == 6
    extract_activations(backbone, labelled(7), tmp_path, overwrite=True, progress=False)
    assert len(load_embeddings(tmp_path)) == 7

    (tmp_path / "part-000000007-000000014").mkdir()
    with pytest.raises(ValueError, match=r"part-000000007-000000014.*overwrite=True"):
        (tmp_path / "activations.json").write_text(
            (tmp_path / "activations.json").read_text().replace('"complete": true', '"complete": false')
        )
        (tmp_path / "data-00000.arrow").unlink()
        extract_activations(backbone, labelled(7), tmp_path, progress=False)
    extract_activations(backbone, labelled(7), tmp_path, overwrite=True, progress=False)
    assert not list(tmp_path.glob("part-*")) and len(load_embeddings(tmp_path)) == 7


def test_bad_input_is_named_before_anything_is_embedded(backbone_folder, tmp_path):
    backbone, out = Counting.from_pretrained(backbone_folder), tmp_path / "out"
    data = labelled(6)
    for error, message, dataset, arguments in (
        (TypeError, "train, test", datasets.DatasetDict(train=data, test=data), {}),
        (TypeError, "Dataset.*list", [1], {}),
        (ValueError, "empty", data.select([]), {}),
        (ValueError, "transform.*reset_format", data.with_transform(lambda rows: rows), {}),
        (ValueError, "image_column.*'img'.*image, caption", data, {"image_column": "img"}),
        (ValueError, "image_column 'score'.*Value", data, {"image_column": "score"}),
        (ValueError, "text_column.*'text'.*caption", data, {**BOTH, "text_column": "text"}),
        (ValueError, "text_column 'boxes'.*List", data, {**BOTH, "text_column": "boxes"}),
        (ValueError, "text_embeds.*text_column", data, {"hook_points": ["text_embeds"]}),
        (ValueError, "keep_columns.*'labels'.*caption", data, {"keep_columns": ["labels"]}),
        (ValueError, "'image'.*keep_columns.*Image", data, {"keep_columns": ["image"]}),
        (ValueError, "'logits'", data, {"hook_points": ["image_embeds", "logits"]}),
        (ValueError, r"hook_points.*\[\]", data, {"hook_points": []}),
        (ValueError, "batch_size.*0", data, {"batch_size": 0}),
        (ValueError, "dtype.*float16.*int8", data, {"dtype": "int8"}),
    ):
        with pytest.raises(error, match=message):
            extract_activations(backbone, dataset, out, **arguments, progress=False)
    with pytest.raises(FileNotFoundError, match=r"'\./nowhere' is neither a folder"):
        extract_activations("./nowhere", data, out, progress=False)
    assert backbone.rows == 0 and not out.exists()


def test_bad_rows_are_named_and_what_was_embedded_is_kept(backbone_folder, tmp_path):
    rows = labelled(12).to_dict()
    features = labelled(1).features
    missing = datasets.Dataset.from_dict(
        {**rows, "image": [*rows["image"][:9], None, *rows["image"][10:]]}, features=features
    )
    backbone = Counting.from_pretrained(backbone_folder)
    with pytest.raises(ValueError, match="row 9 of column 'image' is missing"):
        extract_activations(backbone, missing, tmp_path / "image", batch_size=4, progress=False)
    assert json.loads((tmp_path / "image" / "activations.json").read_text())["num_rows"] == 8

    captions = datasets.Dataset.from_dict(
        {**rows, "caption": [*rows["caption"][:5], None, *rows["caption"][6:]]}, features=features
    )
    with pytest.raises(ValueError, match="row 5 of column 'caption'"):
        extract_activations(backbone, captions, tmp_path / "text", **BOTH, progress=False)

    cut = tmp_path / "cut.jpg"
    cut.write_bytes(encoded(0, "JPEG")[:-200])
    with pytest.raises(ValueError, match=r"row 0 of column 'image' \(.*cut.jpg\) cannot be decoded: OSError"):
        files = datasets.Dataset.from_dict({"image": [str(cut)]})
        extract_activations(backbone, files, tmp_path / "file", progress=False)


def test_half_precision_is_stored_as_such(backbone, tmp_path):
    extract_activations(backbone, labelled(5), tmp_path / "half", dtype="float16", progress=False)
    extract_activations(backbone, labelled(5), tmp_path / "full", progress=False)
    kind = datasets.load_from_disk(str(tmp_path / "half")).features["image_embeds"]
    assert kind == datasets.List(datasets.Value("float16"), length=32)
    np.testing.assert_array_equal(column(tmp_path / "half"), column(tmp_path / "full").astype(np.float16))


def test_parts_are_contiguous_whole_batches_that_cover_all_rows():
    for start, stop, batch_size, processes in (
        (0, 100, 8, 3),
        (40, 101, 8, 2),
        (0, 5, 8, 4),
        (7, 7, 8, 2),
        (0, 64, 8, 8),
    ):
        parts = divide(start, stop, batch_size, processes)
        assert [row for part in parts for row in part] == list(range(start, stop))
        assert all(part and (part.start - start) % batch_size == 0 for part in parts) and len(parts) <= processes
        sizes = [-(-len(part) // batch_size) for part in parts]
        assert not sizes or max(sizes) - min(sizes) <= 1


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


def launch(launcher, script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(script), "--use_cpu", "--disable_tqdm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def one_process(backbone_folder, tmp_path_factory):
    """Flags of a run, and the folder that one process writes."""
    root = tmp_path_factory.mktemp("one")
    labelled(45).save_to_disk(str(root / "data"))
    flags = ["--backbone", str(backbone_folder), "--dataset", str(root / "data"), "--text_column", "caption"]
    flags += ["--hook_point", "image_embeds", "text_embeds", "--batch_size", "4", "--rows_per_shard", "8"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two processes have: on some processors products depend on the number
    script_main()([*flags, "--output_dir", str(root / "out"), "--disable_tqdm"])
    torch.set_num_threads(threads)
    return flags, root / "out"


def script_main():
    sys.path.insert(0, str(TRAINING))
    try:
        from extract_activations import main
    finally:
        sys.path.remove(str(TRAINING))
    return main


def assert_same_data(folder, expected):
    one, two = datasets.load_from_disk(str(expected)), datasets.load_from_disk(str(folder))
    assert one.features == two.features
    vectors = ["image_embeds", "text_embeds"]
    assert one.remove_columns(vectors).to_dict() == two.remove_columns(vectors).to_dict()
    for name in vectors:  # on some processors a product's last bit depends on where in memory its factors lie
        np.testing.assert_allclose(column(folder, name), column(expected, name), rtol=0, atol=1e-6)
    assert load_embeddings(folder).provenance == load_embeddings(expected).provenance
    assert not list(folder.glob("part-*"))


@pytest.mark.slow
def test_two_processes_write_what_one_writes(one_process, tmp_path):
    flags, expected = one_process
    done = launch(TORCHRUN, TRAINING / "extract_activations.py", *flags, "--output_dir", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1
    written = json.loads((tmp_path / "two" / "activations.json").read_text())
    # 12 batches, 6 for each process: 24 rows in shards of 8, then 21.
    assert [shard["num_rows"] for shard in written["shards"]] == [8, 8, 8, 8, 8, 5] and written["complete"]
    assert_same_data(tmp_path / "two", expected)
    script_main()([*flags, "--output_dir", str(tmp_path / "two")])  # finished for one process, too


KILLED_SCRIPT = """
import os, signal, sys
sys.path.insert(0, {training!r})
from extract_activations import main
from hf_msae.backbones import Backbone

embed_pixels, batches = Backbone.embed_pixels, []

def dying(self, inputs):
    batches.append(inputs)
    if os.environ["RANK"] == "1" and len(batches) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_pixels(self, inputs)

Backbone.embed_pixels = dying
main()
"""


@pytest.mark.slow
def test_two_killed_processes_continue_to_what_one_writes(one_process, tmp_path, capsys):
    flags, expected = one_process
    flags = [*flags, "--output_dir", str(tmp_path / "two")]
    (tmp_path / "killed.py").write_text(KILLED_SCRIPT.format(training=str(TRAINING)))
    assert launch(TORCHRUN, tmp_path / "killed.py", *flags).returncode != 0
    (second,) = (tmp_path / "two").glob("part-000000024-000000045")
    assert json.loads((second / "activations.json").read_text())["num_rows"] == 8  # three batches, a shard of two

    with pytest.raises(SystemExit):
        script_main()(flags)
    assert "part-000000024-000000045" in capsys.readouterr().err

    done = launch(ACCELERATE, TRAINING / "extract_activations.py", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1
    assert_same_data(tmp_path / "two", expected)


def test_the_script_says_what_it_wrote_and_what_comes_next(backbone_folder, tmp_path, capsys):
    main = script_main()
    labelled(10).save_to_disk(str(tmp_path / "data"))
    arguments = ["--backbone", str(backbone_folder), "--dataset", str(tmp_path / "data"), "--output_dir"]
    main([*arguments, str(tmp_path / "out"), "--disable_tqdm"])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: 10 image_embeds of width 32" in said and "caption, label, is_red, score" in said
    assert f"hf-msae train --train_data {tmp_path / 'out'} --output_dir" in said
    assert load_embeddings(tmp_path / "out").provenance["dataset"] == str(tmp_path / "data")

    for extra, message in (
        (["--hook_point", "text_embeds"], "text_column"),
        (["--split", "test"], "'test'"),
        (["--dtype", "float16"], "dtype: "),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, str(tmp_path / "out"), "--disable_tqdm", *extra])
        assert stopped.value.code == 1 and message in capsys.readouterr().err


def test_data_sets_are_opened_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    scenes = open_dataset("scenes:test:3:5")
    assert (
        len(scenes) == 3
        and str(scenes.split) == "test"
        and scenes["caption"][:] != open_dataset("scenes:test:3")["caption"][:]
    )

    data = labelled(4)
    data.save_to_disk(str(tmp_path / "saved"))
    data.to_parquet(tmp_path / "data.parquet")
    (tmp_path / "shards").mkdir()
    data.to_parquet(tmp_path / "shards" / "train-00000-of-00001.parquet")
    for name in ("saved", "data.parquet", "shards"):
        opened = open_dataset(str(tmp_path / name))
        assert opened["caption"][:] == data["caption"][:] and np.array_equal(opened[2]["image"], picture(2)), name
    datasets.DatasetDict(train=data, test=data.select([3])).save_to_disk(str(tmp_path / "splits"))
    assert len(open_dataset(str(tmp_path / "splits"), split="test")) == 1

    (tmp_path / "images" / "cats").mkdir(parents=True)
    (tmp_path / "images" / "dogs").mkdir()
    for row, kind in enumerate(("cats", "dogs")):
        (tmp_path / "images" / kind / "0.png").write_bytes(encoded(row))
    images = open_dataset(str(tmp_path / "images"))
    assert images.features["label"].names == ["cats", "dogs"] and np.array_equal(images[1]["image"], picture(1))

    for error, message, source, split in (
        (ValueError, "train, test", tmp_path / "splits", None),
        (ValueError, "'val'.*train, test", tmp_path / "splits", "val"),
        (ValueError, "'test'", tmp_path / "saved", "test"),
        (FileNotFoundError, "nothing.*parquet", tmp_path / "nothing", None),
        (FileNotFoundError, "nobody/nothing.*Hub", "nobody/nothing", None),
        (ValueError, "scenes:train'.*scenes:SPLIT:N:SEED", "scenes:train", None),
        (ValueError, "'train'.*'test'", "scenes:train:5", "test"),
        (ValueError, "'tain'", "scenes:tain:5", None),
    ):
        with pytest.raises(error, match=message):
            open_dataset(str(source), split)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"data.parquet cannot be read"):
        open_dataset(str(tmp_path / "data.parquet"))


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extraction.md").read_text(), flags=re.DOTALL)
    exec(compile(example, "docs/extraction.md", "exec"), {})
    assert "100 x 128) hf_msae/scenes-siglip" in capsys.readouterr().out
