"""VisionTextMSAE: reading latents of real transformers models, and what belongs together."""

import json
import shutil

import datasets
import numpy as np
import pytest
import torch

from hf_msae import VisionTextMSAE, evaluate_msae
from hf_msae.backbones import Backbone
from hf_msae.concepts import explain_embedding
from hf_msae.concepts.editing import LatentEdit
from tests.tiny_backbones import pictures
from tests.vision_text_models import TEXTS, N, an_msae, table


@pytest.fixture
def clip(backbones):
    return VisionTextMSAE(backbones["CLIPModel"], an_msae(backbones["CLIPModel"]))


def test_embeds_and_latents_are_those_of_the_parts(clip):
    embeds = clip.image_embeds(pictures())
    assert torch.equal(embeds, clip.backbone.image_embeds(pictures()))
    with torch.no_grad():
        assert torch.equal(clip.image_latents(pictures()), clip.msae.encode(embeds))
        assert torch.equal(clip.image_latents(pictures(), k=3), clip.msae.encode(embeds, 3))
        values, latents = clip.image_latents(pictures(), top=5)
        expected = clip.msae.encode_topk(embeds, 5)
        assert torch.equal(values, expected[0]) and torch.equal(latents, expected[1])
        assert torch.equal(clip.text_latents(TEXTS), clip.msae.encode(clip.backbone.text_embeds(TEXTS)))
    torch.testing.assert_close(clip.image_latents(pictures(), batch_size=2), clip.image_latents(pictures()))
    assert clip.image_latents([]).shape == (0, N) and clip.image_latents(pictures()[0]).shape == (1, N)


def test_a_model_in_place_of_its_msae_is_named(clip):
    for call in (lambda: clip.config, lambda: evaluate_msae(clip, torch.randn(30, 8)), lambda: clip.encode(None)):
        with pytest.raises(AttributeError, match=r"VisionTextMSAE has no '\w+', but its MSAE has: pass model\.msae"):
            call()
    with pytest.raises(AttributeError, match=r"VisionTextMSAE has no 'image_embed'$"):
        clip.image_embed(pictures())
    with pytest.raises(TypeError, match="concepts must be a ConceptTable, got DataFrame"):
        VisionTextMSAE(clip.backbone, clip.msae, table(*"ab").frame)


def test_a_progress_bar_on_many_batches(clip, capsys):
    clip.image_embeds(pictures(12), batch_size=1)
    assert "embedding: 100%" in capsys.readouterr().err
    clip.image_embeds(pictures(12), batch_size=1, progress=False)
    clip.image_embeds(pictures(3))
    assert capsys.readouterr().err == ""


def test_other_integers_and_batch_sizes(clip):
    assert LatentEdit.of({np.int64(3): 0.0, torch.tensor(5): 1.0}, N).latents == (3, 5)
    many = pictures(3) * 30
    torch.testing.assert_close(clip.image_embeds(many, batch_size=80), clip.image_embeds(many))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size.*{size}"):
            clip.image_latents(pictures(), batch_size=size)
    with pytest.raises(ValueError, match=r"k=2.*top=5"):
        clip.image_latents(pictures(), k=2, top=5)
    with pytest.raises(TypeError, match=r"column.*image, label"):
        clip.image_embeds(datasets.Dataset.from_dict({"image": [1], "label": [2]}))
    assert clip.text_embeds(dict.fromkeys(TEXTS).keys()).shape == (2, 24)
    with pytest.raises(ValueError, match=r"80.*64"):
        VisionTextMSAE(clip.backbone, clip.msae, table(*(["red"] * 80)))


def test_a_string_that_names_a_picture_is_the_picture(clip, tmp_path, monkeypatch):
    pictures()[0].save(tmp_path / "photo.png")
    pictures()[0].save(tmp_path / "plain", format="png")
    monkeypatch.chdir(tmp_path)
    expected = clip.explain(tmp_path / "photo.png").frame
    for name in ("photo.png", str(tmp_path / "photo.png"), "plain"):
        assert clip.explain(name).frame.equals(expected)
        assert clip.explain_similarity(name, pictures()[0]).similarity == pytest.approx(1)
    with pytest.raises(FileNotFoundError, match=r"gone\.JPG"):
        clip.explain("gone.JPG")
    clip.center_texts(["a", "b"])
    assert clip.explain("photo.png").frame.equals(expected)
    clip.center_texts(None)
    for text in ("a red circle", "photo", "x" * 5000, "~nobody", "a\0b", tmp_path.name):
        assert clip.explain(text).frame.equals(
            explain_embedding(clip.msae, clip.text_embeds(text)[0], clip.concepts, 10).frame
        )


def test_texts_can_be_centered(clip):
    texts = ["a red circle", "blue", "a photo of a circle", "red on the left"]
    gap = clip.text_embeds(texts).mean(0)
    clip.center_texts(texts)
    with torch.no_grad():
        moved = clip.text_embeds(texts) - gap + clip.msae.input_mean
        torch.testing.assert_close(clip.text_latents(texts), clip.msae.encode(moved), rtol=1e-4, atol=1e-5)
    clip.center_texts(gap)
    shift = clip.text_shift
    clip.center_texts(gap.numpy())
    assert torch.equal(clip.text_shift, shift)
    with pytest.raises(ValueError, match="NaN"):
        clip.center_texts(gap * torch.nan)
    torch.testing.assert_close(clip.text_shift, clip.msae.input_mean - gap)
    clip.center_texts(None)
    assert clip.text_shift is None
    with pytest.raises(ValueError, match=r"\(3,\).*\(24,\)"):
        clip.center_texts(torch.zeros(3))
    with pytest.raises(ValueError, match=r"several.*'a red star'"):
        clip.center_texts(["a red star", "a red star"])


def test_messages_count_items_through_all_batches(clip, tmp_path):
    images = [*pictures(5), str(tmp_path / "missing.png")]
    with pytest.raises(FileNotFoundError, match=r"image 5 .*missing\.png"):
        clip.image_embeds(images, batch_size=2)
    with pytest.raises(FileNotFoundError, match="image 5 "):
        clip.image_latents(images, batch_size=2)
    for function in (clip.text_embeds, clip.text_latents):
        with pytest.raises(TypeError, match=r"text 4 .*7"):
            function(["red"] * 4 + [7], batch_size=3)


def test_a_folder_is_the_same_by_any_path(folders, backbones, monkeypatch):
    msae = an_msae(backbones["CLIPModel"], base_model_name_or_path=str(folders["CLIPModel"]))
    monkeypatch.chdir(folders["CLIPModel"].parent)
    model = VisionTextMSAE.from_pretrained(msae, Backbone.from_pretrained(folders["CLIPModel"].name))
    assert model.backbone.name_or_path == folders["CLIPModel"].name
    with pytest.raises(TypeError, match="dtype"):
        VisionTextMSAE.from_pretrained(msae, backbones["CLIPModel"], dtype="bfloat16")


def test_from_pretrained_finds_backbone_and_concepts(folders, backbones, tmp_path):
    msae = an_msae(backbones["CLIPModel"], base_model_name_or_path=str(folders["CLIPModel"]))
    msae.save_pretrained(tmp_path / "msae")
    table(*(["red"] * N)).save(tmp_path / "msae" / "concepts" / "words.parquet")
    model = VisionTextMSAE.from_pretrained(tmp_path / "msae")
    assert type(model.backbone.model).__name__ == "CLIPModel" and model.concepts["red"].shape[0] == N
    assert torch.equal(model.image_embeds(pictures()), backbones["CLIPModel"].image_embeds(pictures()))
    assert "64 latents of image_embeds, 1 names" in repr(model)
    assert VisionTextMSAE.from_pretrained(msae, backbones["CLIPModel"]).concepts is None
    with pytest.raises(ValueError, match="backbone="):
        VisionTextMSAE.from_pretrained(an_msae(backbones["CLIPModel"]))


def test_parts_that_do_not_belong_together_are_refused(backbones):
    clip, dinov2 = backbones["CLIPModel"], backbones["Dinov2Model"]
    of_other = an_msae(clip, base_model_name_or_path="openai/clip-vit-base-patch16", base_model_revision="abc")
    with pytest.raises(ValueError, match=r"openai/clip-vit-base-patch16.*abc.*strict=False"):
        VisionTextMSAE(clip, of_other)
    VisionTextMSAE(clip, of_other, strict=False)
    with pytest.raises(ValueError, match=r"24.*32"):
        VisionTextMSAE(dinov2, an_msae(clip), strict=False)
    with pytest.raises(ValueError, match=r"text_embeds.*no text tower"):
        VisionTextMSAE(dinov2, an_msae(clip, "text_embeds"))
    with pytest.raises(ValueError, match="text_embeds"):
        VisionTextMSAE(clip, an_msae(clip, "text_embeds")).image_latents(pictures())


@pytest.fixture
def known_by_hash(backbones):
    """An MSAE as training leaves it: with the hashes that the embeddings' provenance has."""
    known = backbones["CLIPModel"].provenance()
    hashes = {name: known[name] for name in ("base_model_weights_sha256", "base_model_processor_sha256")}
    return an_msae(backbones["CLIPModel"], base_model_name_or_path="../clip", **hashes)


def test_a_backbone_is_known_by_its_hash_wherever_it_lies(known_by_hash, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'\.\./clip'.*backbone= \(--backbone\)"):
        VisionTextMSAE.from_pretrained(known_by_hash)
    moved = shutil.copytree(folders["CLIPModel"], tmp_path / "moved")
    assert VisionTextMSAE.from_pretrained(known_by_hash, moved).image_embeds(pictures()).shape == (3, 24)
    half = VisionTextMSAE.from_pretrained(known_by_hash, "moved", dtype="bfloat16")  # the files are the same
    assert half.backbone.model.dtype == torch.bfloat16

    processor = moved / "processor_config.json"
    settings = json.loads(processor.read_text())
    settings["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    processor.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"moved.*another image processor.*strict=False.*--allow_other_backbone"):
        VisionTextMSAE.from_pretrained(known_by_hash, moved)
    shutil.copy(folders["CLIPModel"] / "processor_config.json", moved)
    other = Backbone.from_pretrained(moved)
    with torch.no_grad():
        other.model.visual_projection.weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"\.\./clip.*moved.*other weights.*strict=False.*--allow_other_backbone"):
        VisionTextMSAE(other, known_by_hash)
    VisionTextMSAE(other, known_by_hash, strict=False)
    other.name_or_path = "../clip"  # another folder at the same path
    with pytest.raises(ValueError, match="other weights"):
        VisionTextMSAE(other, known_by_hash)
