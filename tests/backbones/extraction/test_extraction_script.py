"""training/extract_activations.py: on several processes, on streams, and on data sets by name."""

import json
import sys

import datasets
import numpy as np
import pytest

from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings
from tests.backbones.extraction.data import (
    ACCELERATE,
    ROOT,
    TORCHRUN,
    column,
    encoded,
    labelled,
    launch,
    numbered,
    picture,
)

TRAINING = ROOT / "training"


@pytest.fixture
def main():
    """The script's main function."""
    sys.path.insert(0, str(TRAINING))
    try:
        from extract_activations import main
    finally:
        sys.path.remove(str(TRAINING))
    return main


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
def test_two_processes_killed_by_one_launcher_continue_with_another(folders, main, tmp_path, capsys, one_thread):
    labelled(45).save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", str(folders["SiglipModel"]), "--dataset", str(tmp_path / "data"), "--disable_tqdm"]
    flags += ["--text_column", "caption", "--hook_point", "image_embeds", "text_embeds"]
    flags += ["--batch_size", "4", "--rows_per_shard", "8", "--output_dir"]
    main([*flags, str(tmp_path / "one")])
    flags, folder = [*flags, str(tmp_path / "two")], tmp_path / "two"
    (tmp_path / "killed.py").write_text(KILLED_SCRIPT.format(training=str(TRAINING)))
    assert launch(TORCHRUN, tmp_path / "killed.py", *flags).returncode != 0
    (second,) = folder.glob("part-000000024-000000045")
    assert json.loads((second / "activations.json").read_text())["num_rows"] == 8  # three batches, a shard of two
    with pytest.raises(SystemExit):
        main(flags)
    assert "part-0000000" in capsys.readouterr().err

    done = launch(ACCELERATE, TRAINING / "extract_activations.py", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1
    # 12 batches, 6 for each process: 24 rows in shards of 8, then 21.
    written = json.loads((folder / "activations.json").read_text())
    assert [shard["num_rows"] for shard in written["shards"]] == [8, 8, 8, 8, 8, 5] and written["complete"]
    one, two = datasets.load_from_disk(str(tmp_path / "one")), datasets.load_from_disk(str(folder))
    vectors = ["image_embeds", "text_embeds"]
    assert one.features == two.features
    assert one.remove_columns(vectors).to_dict() == two.remove_columns(vectors).to_dict()
    for name in vectors:  # on some processors a product's last bit depends on where in memory its factors lie
        np.testing.assert_allclose(column(folder, name), column(tmp_path / "one", name), rtol=0, atol=1e-6)
    assert load_embeddings(folder).provenance == load_embeddings(tmp_path / "one").provenance
    assert not list(folder.glob("part-*"))
    main(flags)  # finished for one process, too


def test_the_script_says_what_it_wrote_and_what_comes_next(folders, main, tmp_path, capsys):
    labelled(10).save_to_disk(str(tmp_path / "data"))
    arguments = ["--backbone", str(folders["SiglipModel"]), "--dataset", str(tmp_path / "data"), "--disable_tqdm"]
    arguments += ["--output_dir", str(tmp_path / "out")]
    main(arguments)
    said = capsys.readouterr().out
    assert "10 image_embeds of width 32" in said and "caption, label, is_red, score" in said
    assert f"hf-msae train --train_data {tmp_path / 'out'} --output_dir" in said
    assert load_embeddings(tmp_path / "out").provenance["dataset"] == str(tmp_path / "data")
    for extra, message in (
        (["--hook_point", "text_embeds"], "text_column"),
        (["--split", "test"], "'test'"),
        (["--dtype", "float16"], "dtype: "),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *extra])
        assert stopped.value.code == 1 and message in capsys.readouterr().err


def test_the_script_streams_and_says_what_it_left_out(folders, main, tmp_path, capsys):
    numbered(17, bad=[0, 5, 6]).save_to_disk(str(tmp_path / "data"))
    flags = ["--backbone", folders["SiglipModel"], "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out"]
    flags += ["--streaming", "--hook_point", "image_embeds", "vision.layers.1", "--tokens_per_row", "2"]
    main([*map(str, flags), "--on_unreadable", "skip", "--num_workers", "1", "--disable_tqdm", "--use_cpu"])
    said = capsys.readouterr().out
    assert "14 image_embeds of width 32" in said and "28 vision.layers.1 of width 32" in said
    assert "3 unreadable rows (0, 5, 6)" in said


def test_data_sets_are_opened_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    scenes = open_dataset("scenes:test:3:5")
    assert len(scenes) == 3 and str(scenes.split) == "test"
    assert scenes["caption"][:] != open_dataset("scenes:test:3")["caption"][:]

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

    for row, kind in enumerate(("cats", "dogs")):
        (tmp_path / "images" / kind).mkdir(parents=True)
        (tmp_path / "images" / kind / "0.png").write_bytes(encoded(row))
    images = open_dataset(str(tmp_path / "images"))
    assert images.features["label"].names == ["cats", "dogs"] and np.array_equal(images[1]["image"], picture(1))

    for error, message, source, split in (
        (ValueError, "train, test", tmp_path / "splits", None),
        (ValueError, "'val'.*train, test", tmp_path / "splits", "val"),
        (ValueError, "'test'", tmp_path / "saved", "test"),
        (FileNotFoundError, "no such file.*nothing", tmp_path / "nothing", None),
        (FileNotFoundError, "nobody/nothing.*Hub", "nobody/nothing", None),
        (ValueError, "scenes:train'.*scenes:SPLIT:N:SEED", "scenes:train", None),
        (ValueError, "'train'.*'test'", "scenes:train:5", "test"),
        (ValueError, "'tain'", "scenes:tain:5", None),
    ):
        with pytest.raises(error, match=message):
            open_dataset(str(source), split)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"data\.parquet"):
        open_dataset(str(tmp_path / "data.parquet"))
