"""Tokens of blocks: several hook points in one forward pass, without padding, and only those asked for."""

import threading

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.extraction.embedding import TokenChoice
from hf_msae.backbones.hook_points import recording
from hf_msae.embeddings import load_embeddings
from tests.backbones.extraction.data import labelled, picture
from tests.tiny_backbones import CAPTIONS

ROWS = 11


def column(folder, name):
    return load_embeddings(folder, hook_point=name)


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Siglip2Model"])
def test_all_hook_points_are_those_of_the_backbone_read_by_hand(backbones, tmp_path, name):
    backbone = backbones[name]
    points = ["vision.layers.1", "text_embeds", "image_embeds", "text.layers.0", "vision.layers.0"]
    calls = []
    hook = backbone.model.vision_model.register_forward_hook(lambda *_: calls.append(1))
    extract_activations(
        backbone, labelled(ROWS), tmp_path, text_column="caption", hook_points=points, batch_size=4, progress=False
    )
    hook.remove()
    assert len(calls) == 3, "one forward pass a batch"
    saved = datasets.load_from_disk(str(tmp_path))
    assert saved.column_names[:7] == [*points, "vision.tokens", "text.tokens"]
    images, texts = [picture(row) for row in range(ROWS)], saved["caption"][:]
    np.testing.assert_allclose(column(tmp_path, "image_embeds")[:], backbone.image_embeds(images), atol=1e-5)
    np.testing.assert_allclose(column(tmp_path, "text_embeds")[:], backbone.text_embeds(texts), atol=1e-5)
    for point, items in (("vision.layers.0", images), ("vision.layers.1", images), ("text.layers.0", texts)):
        expected = backbone.read(point, items)
        positions = saved[f"{point.split('.')[0]}.tokens"][:]
        embeddings = column(tmp_path, point)
        assert len(embeddings) == sum(map(len, positions))
        np.testing.assert_array_equal(
            embeddings.dataset_rows(), np.repeat(np.arange(ROWS), [len(p) for p in positions])
        )
        by_hand = torch.cat([expected[row, place] for row, place in enumerate(positions)])
        np.testing.assert_allclose(embeddings[:], by_hand, atol=1e-5)


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Siglip2Model", "Dinov2Model"])
def test_padding_is_left_out_and_patches_are_patches(backbones, tmp_path, name):
    backbone = backbones[name]
    data = labelled(5).remove_columns("caption")
    for kind in ("all", "patches"):
        extract_activations(
            backbone, data, tmp_path / kind, hook_points="vision.layers.1", tokens=kind, progress=False
        )
    patches = [backbone.read_patches("vision.layers.1", picture(row)) for row in range(5)]
    np.testing.assert_allclose(
        column(tmp_path / "patches", "vision.layers.1")[:], torch.cat([each for each, _ in patches]), atol=1e-5
    )
    extra = {"CLIPModel": 1, "SiglipModel": 0, "Siglip2Model": 0, "Dinov2Model": 1}[name]
    counts = [len(each) for each in datasets.load_from_disk(str(tmp_path / "all"))["vision.tokens"]]
    assert counts == [rows * columns + extra for _, (rows, columns) in patches]


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Siglip2Model"])
def test_texts_keep_the_tokens_they_have(backbones, tmp_path, name):
    backbone = backbones[name]
    data = datasets.Dataset.from_dict({"caption": CAPTIONS})
    extract_activations(backbone, data, tmp_path, text_column="caption", hook_points="text.layers.1", progress=False)
    counts = [len(each) for each in datasets.load_from_disk(str(tmp_path))["text.tokens"]]
    longest = backbone.text_settings["max_length"]
    assert counts == [
        len(backbone.tokenizer(text, truncation=True, max_length=longest).input_ids) for text in CAPTIONS
    ]
    assert counts[1] < counts[0] <= counts[2] <= longest


def test_drawn_tokens_do_not_depend_on_interruptions(backbones, tmp_path):
    backbone = backbones["CLIPModel"]
    settings = {"hook_points": ["vision.layers.0", "vision.layers.1"], "tokens_per_row": 2, "progress": False}
    extract_activations(backbone, labelled(20), tmp_path / "a", batch_size=4, **settings)
    extract_activations(backbone, labelled(20), tmp_path / "b", batch_size=7, rows_per_shard=7, **settings)
    extract_activations(backbone, labelled(20), tmp_path / "c", batch_size=4, seed=1, **settings)
    a, b, c = (datasets.load_from_disk(str(tmp_path / each)) for each in "abc")
    assert a["vision.tokens"][:] == b["vision.tokens"][:] != c["vision.tokens"][:]
    assert all(len(each) == 2 and each == sorted(set(each)) for each in a["vision.tokens"])
    assert len({tuple(each) for each in a["vision.tokens"]}) > 3, "every row has its own"
    assert load_embeddings(tmp_path / "a", hook_point="vision.layers.1").provenance["tokens"]["per_row"] == 2


def test_every_token_is_drawn_equally_often():
    choice = TokenChoice(per_row=3, seed=5)
    drawn = np.concatenate([choice(row, torch.arange(10)) for row in range(1000)])
    share = np.bincount(drawn, minlength=10) / 1000
    assert share == pytest.approx(np.full(10, 0.3), abs=4 * np.sqrt(0.3 * 0.7 / 1000))


def test_no_patch_of_padding_is_kept(backbones, tmp_path):
    """SigLIP 2 takes as many patches as fit; of an odd picture fewer do."""
    backbone = backbones["Siglip2Model"]
    pictures = [Image.new("RGB", size, "red") for size in ((20, 60), (64, 64), (90, 10))]
    data = datasets.Dataset.from_dict({"image": pictures}, features=datasets.Features({"image": datasets.Image()}))
    extract_activations(backbone, data, tmp_path, hook_points="vision.layers.0", progress=False)
    expected = [backbone.read_patches("vision.layers.0", picture)[0] for picture in pictures]
    counts = [len(each) for each in datasets.load_from_disk(str(tmp_path))["vision.tokens"]]
    assert counts == [len(each) for each in expected] and min(counts) < 16
    np.testing.assert_allclose(column(tmp_path, "vision.layers.0")[:], torch.cat(expected), atol=1e-5)


def test_another_threads_forward_pass_is_not_recorded(backbones):
    backbone = backbones["CLIPModel"]
    with recording(backbone.model, ["vision.layers.0"]) as recorded:
        other = threading.Thread(target=backbone.image_embeds, args=([picture(0)],))
        other.start()
        other.join()
        backbone.image_embeds([picture(1), picture(2)])
    assert [len(each) for each in recorded["vision.layers.0"]] == [2]


def test_columns_that_are_written_are_not_overwritten(backbones, tmp_path):
    backbone = backbones["CLIPModel"]
    data = labelled(3).rename_column("label", "vision.tokens")
    with pytest.raises(ValueError, match=r"vision\.tokens.*keep_columns"):
        extract_activations(backbone, data, tmp_path, hook_points="vision.layers.0", progress=False)


def test_kept_columns_of_odd_types(backbones, tmp_path):
    backbone = backbones["CLIPModel"]
    data = labelled(3).add_column("feature", [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
    extract_activations(backbone, data, tmp_path / "a", keep_columns=["feature"], progress=False)
    kept = load_embeddings(tmp_path / "a", column="feature")
    assert kept.statistics().mean.tolist() == pytest.approx([4 / 3, 8 / 3])
    table = labelled(3).data.table.append_column("large", pa.array([1, 2**64 - 1, 3], pa.uint64()))
    large = datasets.Dataset(table)
    extract_activations(backbone, large, tmp_path / "b", keep_columns=["large"], progress=False)
    assert load_embeddings(tmp_path / "b").dataset["large"][:] == [1, 2**64 - 1, 3]
    several = datasets.Features({"image": datasets.Image(), "others": datasets.List(datasets.Image())})
    images = datasets.Dataset.from_dict({"image": [picture(0)], "others": [[picture(1)]]}, features=several)
    with pytest.raises(ValueError, match="'others'"):
        extract_activations(backbone, images, tmp_path / "c", keep_columns=["others"], progress=False)
