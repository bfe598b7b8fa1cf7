import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from hf_msae._utils.built_in import built_in_folder
from hf_msae.backbones import Backbone
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.concepts import ConceptTable
from hf_msae.hub.reading.opening import load_msae

FOLDER = built_in_folder("hf_msae/clipart-siglip")


@pytest.fixture(scope="module")
def training():
    """The folder of the training scripts on the path."""
    folder = str(Path(__file__).parents[2] / "training")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def backbone():
    return Backbone.from_pretrained("clipart")


def test_it_is_small_and_whole():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12e6
    _, info = AutoModel.from_pretrained(FOLDER, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_the_card_states_the_figures(training, tmp_path):
    from clipart_siglip import write_backbone_card

    write_backbone_card(tmp_path, json.loads((FOLDER / "backbone_metrics.json").read_text()))
    assert (FOLDER / "README.md").read_text() == (tmp_path / "README.md").read_text()


def test_a_new_model_has_the_shape_of_the_shipped_one(training, backbone):
    from small_siglip import build_model

    fresh = build_model(backbone.tokenizer, width=192, num_heads=6, vision_layers=6)
    shapes = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in backbone.model.named_parameters()}


def test_texts_have_no_mask_and_a_gap_separates_them_from_pictures(backbone):
    assert backbone.tokenizer.model_input_names == ["input_ids"]
    texts = backbone.text_embeds(["bird", "car", "flag", "A FLAG"])
    assert torch.allclose(texts[2:3], backbone.text_embeds(["flag"]), atol=1e-4) and texts.shape == (4, 192)
    pictures = np.random.default_rng(0).integers(0, 255, (3, 96, 96, 3)).astype(np.uint8)
    assert backbone.image_embeds(list(pictures)).shape == (3, 192)


def test_its_msae_has_validated_names():
    msae = load_msae("clipart-image")
    assert (msae.config.d_in, msae.config.base_model_name_or_path) == (192, "hf_msae/clipart-siglip")
    frame = ConceptTable.load(Path(msae.name_or_path) / "concepts" / "clipart.parquet").to_pandas()
    assert frame["validated"].sum() >= 50 and frame["name"][frame["validated"]].nunique() >= 20


def test_muon_orthogonalizes_matrices_of_one_shape(training):
    from small_siglip import Muon32

    torch.manual_seed(0)
    matrices = [torch.nn.Parameter(torch.zeros(8, 24)), torch.nn.Parameter(torch.zeros(24, 8))]
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    Muon32(matrices, lr=1.0, weight_decay=0.0).step()
    for matrix, scale in zip(matrices, (1, 3**0.5), strict=True):
        values = torch.linalg.svdvals(matrix.detach()) / scale
        assert 0.6 < values.min() and values.max() < 1.3  # near 1, as five steps reach


def test_a_sample_of_the_drawings_comes_with_the_package():
    sample = open_dataset("clipart:sample")
    assert len(sample) == 300 and Counter(sample["split"]) == {"train": 150, "test": 150}
    assert Counter(sample["author"]).most_common(1)[0][1] <= 12 and all(sample["author"]) and all(sample["tags"])
    assert {image.size for image in sample.select(range(0, 300, 10))["image"]} == {(96, 96)}
    authors = {split: {row["author"] for row in sample if row["split"] == split} for split in ("train", "test")}
    assert not authors["train"] & authors["test"]
