"""Backbone: its embeddings are transformers' own, for every family, and bad input is named."""

import json
import shutil

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import pytest
import torch
import transformers

from hf_msae._utils import built_in
from hf_msae.backbones import Backbone, loading
from tests.tiny_backbones import CAPTIONS, FAMILIES, TEXT, TWO_TOWERS, VISION, crop_processor, pictures


@pytest.mark.parametrize("name", FAMILIES)
def test_image_embeddings_are_those_of_transformers(folders, name):
    model = getattr(transformers, name).from_pretrained(folders[name])
    inputs = transformers.AutoImageProcessor.from_pretrained(folders[name], backend="pil")(
        images=pictures(), return_tensors="pt"
    )
    with torch.no_grad():
        if name in TWO_TOWERS:
            by_hand = model.get_image_features(**inputs).pooler_output
        elif name == "CLIPVisionModelWithProjection":
            by_hand = model(**inputs).image_embeds
        else:
            by_hand = model(**inputs).pooler_output

    backbone = Backbone.from_pretrained(folders[name])
    embeddings = backbone.image_embeds(pictures())
    assert type(backbone.model) is type(model)
    assert torch.equal(embeddings, by_hand)
    assert embeddings.shape == (3, backbone.width("image_embeds")) and embeddings.dtype == torch.float32
    assert backbone.width() == (24 if name in ("CLIPModel", "MetaClip2Model", "CLIPVisionModelWithProjection") else 32)
    norms = embeddings.norm(dim=-1)
    assert ((norms - 1).abs() > 0.01).all(), "embeddings must not be L2-normalised"
    assert backbone.image_processor.backend == "pil"


@pytest.mark.parametrize("captions", [CAPTIONS, CAPTIONS[:2]], ids=["one is too long", "all are short"])
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_text_embeddings_are_those_of_transformers(folders, backbones, name, captions):
    model = getattr(transformers, name).from_pretrained(folders[name])
    tokenizer = transformers.AutoProcessor.from_pretrained(folders[name], backend="pil").tokenizer
    of_siglip = name.startswith("Siglip")
    tokens = tokenizer(
        captions,
        padding="max_length" if of_siglip else True,
        padding_side="right",
        truncation=True,
        max_length=10,
        return_attention_mask=not of_siglip,
        return_tensors="pt",
    )
    assert tokens.keys() == ({"input_ids"} if of_siglip else {"input_ids", "attention_mask"})
    with torch.no_grad():
        by_hand = model.get_text_features(**tokens).pooler_output

    backbone = backbones[name]
    embeddings = backbone.text_embeds(captions)
    assert torch.equal(embeddings, by_hand)
    assert embeddings.shape == (len(captions), backbone.width("text_embeds")) and embeddings.dtype == torch.float32
    assert ((embeddings.norm(dim=-1) - 1).abs() > 0.01).all()
    assert {"image_embeds", "text_embeds"} <= set(backbone.hook_points)
    with torch.no_grad():  # and what a full forward normalises is this
        pixels = backbone.image_processor(images=pictures(), return_tensors="pt")
        normalised = model(**tokens, **pixels).text_embeds
    torch.testing.assert_close(normalised, torch.nn.functional.normalize(embeddings, dim=-1))


def test_batches_change_nothing_and_none_gives_an_empty_matrix(clip):
    whole = clip.image_embeds(pictures(5))
    torch.testing.assert_close(clip.image_embeds(pictures(5), batch_size=2), whole)
    torch.testing.assert_close(clip.text_embeds(CAPTIONS, batch_size=1), clip.text_embeds(CAPTIONS))
    assert clip.image_embeds([]).shape == (0, 24) and clip.text_embeds([]).shape == (0, 24)
    with pytest.raises(ValueError, match=r"batch_size.*-1"):
        clip.image_embeds(pictures(), batch_size=-1)


def test_a_loaded_model_serves_with_its_processor(folders, clip):
    model = transformers.CLIPModel.from_pretrained(folders["CLIPModel"]).train()
    backbone = Backbone.from_pretrained(model)
    assert backbone.model is model and not model.training
    assert backbone.name_or_path == str(folders["CLIPModel"])
    assert torch.equal(backbone.image_embeds(pictures()), clip.image_embeds(pictures()))

    fresh = transformers.CLIPModel(transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24))
    with pytest.raises(ValueError, match=r"CLIPModel.*processor="):
        Backbone.from_pretrained(fresh)
    only_images = Backbone.from_pretrained(fresh, processor=clip.image_processor)
    assert only_images.image_embeds(pictures()).shape == (3, 24)
    with pytest.raises(ValueError, match="no tokenizer"):
        only_images.text_embeds("a red circle")


def test_dtype_is_that_of_the_computation_and_float32_comes_back(folders, siglip):
    half = Backbone.from_pretrained(folders["SiglipModel"], dtype="bfloat16", device="cpu")
    assert half.model.dtype == torch.bfloat16
    embeddings = half.image_embeds(pictures())
    assert embeddings.dtype == torch.float32
    difference = (embeddings - siglip.image_embeds(pictures())).abs().max()
    assert 0 < difference < 0.1
    half.model.save_pretrained(folders["SiglipModel"].parent / "half")
    shutil.copytree(
        folders["SiglipModel"], folders["SiglipModel"].parent / "half", dirs_exist_ok=True, ignore=_weights
    )
    assert Backbone.from_pretrained(folders["SiglipModel"].parent / "half").model.dtype == torch.float32


def _weights(folder, names):
    return [name for name in names if name in ("model.safetensors", "config.json")]


def test_provenance_identifies_the_model(folders, clip):
    known = clip.provenance()
    assert json.loads(json.dumps(known)) == known
    assert known["base_model_name_or_path"] == str(folders["CLIPModel"]) and known["base_model_revision"] is None
    assert known["base_model_class"] == "CLIPModel" and known["base_model_dtype"] == "float32"
    assert known["image_processor"] == "CLIPImageProcessorPil" and known["image_processor_backend"] == "pil"
    assert known["image_processor_settings"]["size"] == {"shortest_edge": 16}
    assert known["text_settings"]["padding"] == "longest" and known["text_settings"]["return_attention_mask"] is True

    other = Backbone.from_pretrained(folders["CLIPModel"])
    assert other.provenance() == known
    with torch.no_grad():
        other.model.visual_projection.weight[3, 5] += 1e-3
    assert other.provenance()["base_model_weights_sha256"] != known["base_model_weights_sha256"]


def test_a_model_of_the_hub_is_loaded_by_its_commit(folders, tmp_path, monkeypatch):
    commit, branch_commit = "0" * 39 + "1", "0" * 39 + "2"
    repository = tmp_path / "models--tester--clip"
    shutil.copytree(folders["CLIPModel"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "v2").write_text(branch_commit)
    shutil.copytree(folders["CLIPModel"], repository / "snapshots" / branch_commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    backbone = Backbone.from_pretrained("tester/clip")
    assert (backbone.name_or_path, backbone.revision) == ("tester/clip", commit)
    assert backbone.image_embeds(pictures()).shape == (3, 24) and backbone.text_embeds("red").shape == (1, 24)
    known = backbone.provenance()
    assert known["base_model_revision"] == commit and len(known["base_model_weights_sha256"]) == 64
    assert Backbone.from_pretrained("tester/clip", revision="v2").revision == branch_commit
    for name, revision in (("tester/clip", "v3"), ("tester/nothing", None)):
        with pytest.raises(FileNotFoundError, match=f"{name}.*Hub"):
            Backbone.from_pretrained(name, revision=revision)


def test_scenes_is_the_backbone_of_the_package(folders, tmp_path, monkeypatch):
    from hf_msae.scenes.backbone import BACKBONE_DIR, BACKBONE_NAME

    for name in ("scenes", BACKBONE_NAME):
        assert built_in.find_built_in(name) == BACKBONE_NAME
    assert built_in.built_in_folder(BACKBONE_NAME) == BACKBONE_DIR
    assert built_in.find_built_in("scenery") is None
    monkeypatch.setitem(built_in.BUILT_IN, "hf_msae/nowhere-siglip", "nothing")
    with pytest.raises(FileNotFoundError, match=r"nowhere.*reinstall"):
        Backbone.from_pretrained("nowhere")
    monkeypatch.setattr(loading, "built_in_folder", lambda name: folders["SiglipModel"])
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'scenes'.*\./scenes"):
        Backbone.from_pretrained("scenes")
    (tmp_path / "scenes" / "config.json").unlink()
    for name in ("scenes", "hf_msae/scenes-siglip"):
        backbone = Backbone.from_pretrained(name)
        assert backbone.name_or_path == "hf_msae/scenes-siglip" and backbone.revision is None
    assert backbone.text_embeds("a red circle").shape == (1, 32)


@pytest.mark.parametrize("typo, meant", [("clipartt", "clipart"), ("hf_msae/scene-siglip", "hf_msae/scenes-siglip")])
def test_a_similar_backbone_of_the_package_is_suggested(typo, meant, monkeypatch, tmp_path):
    def unknown(*args, **kwargs):
        raise loading.HFValidationError("nothing there")

    monkeypatch.setattr(loading, "resolve_revision", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"did you mean '{meant}'"):
        Backbone.from_pretrained(typo)
    with pytest.raises(FileNotFoundError, match="resnet") as error:
        Backbone.from_pretrained("resnet")
    assert "did you mean" not in str(error.value)


def test_what_cannot_serve_is_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\./nowhere"):
        Backbone.from_pretrained("./nowhere")
    with pytest.raises(ValueError, match=r"revision='main' was given, but .* is a folder"):
        Backbone.from_pretrained(folders["CLIPModel"], revision="main")
    with pytest.raises(ValueError, match=str(tmp_path)):
        Backbone.from_pretrained(tmp_path)

    transformers.BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"bert.*BertModel.*CLIPModel"):
        Backbone.from_pretrained(tmp_path / "bert")
    from hf_msae import MSAEConfig

    MSAEConfig(d_in=8, num_latents=16, base_model_name_or_path="google/siglip").save_pretrained(tmp_path / "msae")
    with pytest.raises(ValueError, match="google/siglip"):
        Backbone.from_pretrained(tmp_path / "msae")

    classifier = transformers.CLIPForImageClassification(
        transformers.CLIPConfig(vision_config=VISION, text_config=TEXT)
    )
    classifier.save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"CLIPForImageClassification.*lacks"):
        Backbone.from_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"CLIPForImageClassification.*CLIPModel"):
        Backbone(classifier, crop_processor())
    headless = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION, vision_use_head=False))
    with pytest.raises(ValueError, match="vision_use_head"):
        Backbone(headless, crop_processor())

    bare = tmp_path / "bare"
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).save_pretrained(bare)
    with pytest.raises(ValueError, match=r"bare.*processor="):
        Backbone.from_pretrained(bare)


def test_hook_points_and_texts_are_checked(backbones, clip):
    vision = backbones["Dinov2Model"]
    assert vision.hook_points == ("image_embeds", "vision.layers.0", "vision.layers.1")
    for use in (lambda: vision.text_embeds("red"), lambda: vision.width("text_embeds")):
        with pytest.raises(ValueError, match=r"text_embeds.*Dinov2Model.*no text tower"):
            use()
    with pytest.raises(ValueError, match=r"'logits'.*CLIPModel.*vision.layers.0 to 1.*text.layers.0 to 1"):
        clip.width("logits")
    with pytest.raises(TypeError, match=r"text 1 .*None"):
        clip.text_embeds(["red", None])


def test_a_tokenizer_that_cannot_be_loaded_leaves_the_images(folders, tmp_path):
    """The tokenizer of SigLIP 1 needs sentencepiece, which is not among the dependencies."""
    if transformers.utils.is_sentencepiece_available():
        pytest.skip("sentencepiece is installed")
    shutil.copytree(folders["SiglipModel"], tmp_path / "siglip")
    settings = tmp_path / "siglip" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    backbone = Backbone.from_pretrained(tmp_path / "siglip")
    assert backbone.image_embeds(pictures()).shape == (3, 32)
    with pytest.raises(ValueError, match=r"siglip.*pip install sentencepiece"):
        backbone.text_embeds("a red circle")
