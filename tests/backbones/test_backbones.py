"""Backbone: its embeddings are transformers' own, for every family, and bad input is named."""

import json
import shutil
import struct

import datasets  # noqa: F401  (first, so that its import time is nobody's test)
import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from hf_msae._utils import built_in
from hf_msae._utils.images import to_rgb
from hf_msae.backbones import Backbone, loading
from tests.tiny_backbones import CAPTIONS, FAMILIES, TEXT, TWO_TOWERS, VISION, crop_processor, pictures


@pytest.fixture(scope="module")
def clip(folders):
    return Backbone.from_pretrained(folders["CLIPModel"])


@pytest.fixture(scope="module")
def siglip(folders):
    return Backbone.from_pretrained(folders["SiglipModel"])


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
def test_text_embeddings_are_those_of_transformers(folders, name, captions):
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

    backbone = Backbone.from_pretrained(folders[name])
    embeddings = backbone.text_embeds(captions)
    assert torch.equal(embeddings, by_hand)
    assert embeddings.shape == (len(captions), backbone.width("text_embeds")) and embeddings.dtype == torch.float32
    assert ((embeddings.norm(dim=-1) - 1).abs() > 0.01).all()
    assert {"image_embeds", "text_embeds"} <= set(backbone.hook_points)
    with torch.no_grad():  # and what a full forward normalises is this
        pixels = backbone.image_processor(images=pictures(), return_tensors="pt")
        normalised = model(**tokens, **pixels).text_embeds
    torch.testing.assert_close(normalised, torch.nn.functional.normalize(embeddings, dim=-1))


def test_a_siglip_text_does_not_depend_on_the_texts_beside_it(siglip):
    """SigLIP masks nothing, so padding to the longest text of a batch would change the shorter ones."""
    padded = {"padding": "max_length", "truncation": True, "max_length": 10, "padding_side": "right"}
    assert siglip.text_settings == {**padded, "return_attention_mask": False, "lower_case": False}
    alone = siglip.text_embeds("a red circle")
    torch.testing.assert_close(siglip.text_embeds(CAPTIONS)[:1], alone)
    tokens = siglip.tokenizer(["a red circle"], return_tensors="pt", return_attention_mask=False)
    with torch.no_grad():
        unpadded = siglip.model.get_text_features(**tokens).pooler_output
    assert not torch.allclose(unpadded, alone, atol=1e-3), "padding makes no difference: this test shows nothing"


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_the_files_of_a_tokenizer_do_not_change_a_text(folders, tmp_path, name):
    """Tokenizers saved by another version or after fine-tuning return masks that SigLIP was not trained with."""
    shutil.copytree(folders[name], tmp_path / name)
    path = tmp_path / name / "tokenizer_config.json"
    for inputs in (["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]):
        settings = {"padding_side": "left", "model_input_names": inputs}
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
        backbone = Backbone.from_pretrained(tmp_path / name)
        assert backbone.tokenizer.padding_side == "left" and backbone.tokenizer.model_input_names == inputs
        expected = Backbone.from_pretrained(folders[name]).text_embeds(CAPTIONS)
        assert torch.equal(backbone.text_embeds(CAPTIONS), expected)
        blocks = backbone.read("text.layers.1", CAPTIONS)
        assert torch.equal(blocks, Backbone.from_pretrained(folders[name]).read("text.layers.1", CAPTIONS))


def test_a_model_that_was_trained_with_a_mask_can_say_so(folders, siglip):
    masked = Backbone.from_pretrained(folders["SiglipModel"], text_mask=True)
    tokens = masked.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=10, return_tensors="pt",
                              return_attention_mask=True)  # fmt: skip
    with torch.no_grad():
        assert torch.equal(masked.text_embeds(CAPTIONS), masked.model.get_text_features(**tokens).pooler_output)
    assert (masked.text_embeds("blue") - siglip.text_embeds("blue")).norm() > 0.1
    assert masked.provenance()["text_settings"]["return_attention_mask"] is True


def test_siglip_2_reads_texts_in_lower_case(folders, tmp_path):
    """Fixed-size checkpoints have the model type of SigLIP 1, and Gemma's tokenizer ignores do_lower_case."""
    symbols = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOP"]
    tokenizer = transformers.GemmaTokenizer(vocab={each: i for i, each in enumerate(symbols)}, merges=[])
    text = {**TEXT, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "vocab_size": len(symbols)}
    config = transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=VISION)
    model = transformers.SiglipModel(config).eval()
    backbone = Backbone(model, transformers.SiglipProcessor(image_processor=crop_processor(), tokenizer=tokenizer))
    ids = tokenizer(["fog mile"], padding="max_length", max_length=10, padding_side="right", return_tensors="pt")
    cased = tokenizer(["Fog Mile"], padding="max_length", max_length=10, padding_side="right", return_tensors="pt")
    assert not torch.equal(ids["input_ids"], cased["input_ids"]), "the tokenizer drops the case: this shows nothing"
    with torch.no_grad():
        by_hand = model.get_text_features(input_ids=ids["input_ids"]).pooler_output
    for text in ("fog mile", "Fog Mile"):
        assert torch.equal(backbone.text_embeds(text), by_hand)
    assert backbone.provenance()["text_settings"]["lower_case"] is True

    path = shutil.copytree(folders["SiglipModel"], tmp_path / "siglip") / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": True}))
    for folder, same in (
        (tmp_path / "siglip", True),
        (folders["SiglipModel"], False),
        (folders["Siglip2Model"], True),
    ):
        backbone = Backbone.from_pretrained(folder)
        assert torch.equal(backbone.text_embeds("a red circle"), backbone.text_embeds("a Red Circle")) is same, folder


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


def test_hook_points_and_texts_are_checked(folders, clip):
    vision = Backbone.from_pretrained(folders["Dinov2Model"])
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


def test_images_of_every_kind_are_embedded_like_their_rgb_form(clip, tmp_path):
    grey = Image.fromarray(np.linspace(0, 255, 20 * 24).reshape(20, 24).astype(np.uint8))
    pictures()[0].save(tmp_path / "a.png")
    kinds = [pictures()[0], tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(pictures()[0])]
    embeddings = clip.image_embeds([*kinds, grey, np.asarray(grey)])
    for row in embeddings[1:4]:
        torch.testing.assert_close(row, embeddings[0])
    torch.testing.assert_close(embeddings[5], embeddings[4])
    assert clip.image_embeds(tmp_path / "a.png").shape == (1, 24)


def test_the_rule_by_which_images_become_rgb(tmp_path):
    grey = np.linspace(0, 255, 256).round().astype(np.uint8).reshape(16, 16)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    for image in (Image.fromarray(grey), deep, Image.fromarray(grey.astype(np.int32) * 257), grey[..., None]):
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), as_rgb)

    colour = pictures(1)[0]
    # What lies under transparency is arbitrary and must not be seen: white is.
    hidden = colour.copy()
    hidden.putalpha(Image.new("L", colour.size, 0))
    np.testing.assert_array_equal(np.asarray(to_rgb(hidden)), 255)
    np.testing.assert_array_equal(np.asarray(to_rgb(np.asarray(hidden))), 255)
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert to_rgb(half).getpixel((0, 0)) == (255, 127, 127)
    assert to_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0)).convert("RGBa")).getpixel((0, 0)) == (255, 255, 255)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert np.asarray(to_rgb(palette)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    palette.save(tmp_path / "transparent.png", transparency=1)
    assert np.asarray(to_rgb(tmp_path / "transparent.png")).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "keyed.png", transparency=(1, 2, 3))
    assert to_rgb(tmp_path / "keyed.png").getpixel((0, 0)) == (255, 255, 255)

    assert to_rgb(Image.new("CMYK", (2, 2), (0, 255, 255, 0))).getpixel((0, 0)) == (255, 0, 0)
    assert to_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees
    colour.save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(to_rgb(tmp_path / "turned.png"))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(colour), -1))
    np.testing.assert_array_equal(np.asarray(to_rgb(colour)), np.asarray(colour))


def exif_with(tag, kind, value):
    """EXIF data with orientation 6 and another entry of a type that Pillow reads, but cannot write."""
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (tag, kind, value)]
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + body + struct.pack("<I", 0) + struct.pack("<ii", -5, 1)


@pytest.mark.parametrize("odd", [(0x0100, 8, struct.pack("<hh", -5, 0)), (0x011A, 10, struct.pack("<I", 38))])
def test_odd_entries_of_exif_do_not_matter(clip, tmp_path, odd):
    """A width stored as a signed number, a resolution as a negative fraction: the orientation is applied."""
    picture = pictures(1)[0]
    picture.save(tmp_path / "odd.jpg", exif=exif_with(*odd), quality=95)
    with Image.open(tmp_path / "odd.jpg") as plain:
        expected = np.rot90(np.asarray(plain), -1)
        with pytest.raises(struct.error):
            ImageOps.exif_transpose(plain)
    turned = to_rgb(tmp_path / "odd.jpg")
    np.testing.assert_array_equal(np.asarray(turned), expected)
    np.testing.assert_array_equal(np.asarray(to_rgb(turned)), expected)  # only once
    assert torch.equal(clip.image_embeds(tmp_path / "odd.jpg"), clip.image_embeds(Image.fromarray(expected)))


def test_an_orientation_that_cannot_be_read_is_ignored_with_a_warning(tmp_path, caplog):
    picture = pictures(1)[0]
    picture.save(tmp_path / "odd.png", exif=b"Exif\0\0no tiff")
    np.testing.assert_array_equal(np.asarray(to_rgb(tmp_path / "odd.png")), np.asarray(picture))
    assert "odd.png" in caplog.text and "orientation" in caplog.text


def test_a_picture_is_never_handed_to_ghostscript(tmp_path):
    pictures(1)[0].save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    with pytest.raises(ValueError, match=r"drawing\.png.*UnidentifiedImageError"):
        to_rgb(tmp_path / "drawing.png")


def test_images_that_cannot_be_read_are_named(clip, tmp_path):
    good, broken, truncated = tmp_path / "good.png", tmp_path / "broken.jpg", tmp_path / "cut.png"
    pictures(1, (200, 200))[0].save(good)
    broken.write_bytes(b"no image")
    truncated.write_bytes(good.read_bytes()[:5000])
    for path, error, message in (
        (broken, ValueError, "image 1 .*broken.jpg"),
        (truncated, ValueError, "image 1 .*cut.png"),
        (tmp_path / "none.png", FileNotFoundError, "image 1 .*none.png"),
        (np.zeros((4, 4, 3)), ValueError, r"image 1 .*float64.*\(4, 4, 3\).*uint8"),
        (np.zeros((3, 9, 9), np.uint8), ValueError, r"image 1 .*\(3, 9, 9\)"),
        (Image.new("F", (4, 4)), ValueError, "image 1 .*32-bit.*F"),
        (Image.new("I", (4, 4), 70000), ValueError, "image 1 .*32-bit.*I"),
        (None, TypeError, "image 1 .*NoneType"),
    ):
        with pytest.raises(error, match=message):
            clip.image_embeds([good, path])
    lazy = Image.open(truncated)  # opened, but not decoded yet
    with pytest.raises(ValueError, match="image 0 "):
        clip.image_embeds([lazy])


@pytest.fixture
def adapted(folders, tmp_path):
    """A CLIP with an adapter in its folder, as peft saves it."""
    folder = shutil.copytree(folders["CLIPModel"], tmp_path / "adapted")
    target = "vision_model.encoder.layers.1.self_attn.q_proj"
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [target], "task_type": None}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    names = {f"base_model.model.{target}.lora_{part}.weight": size for part, size in (("A", (2, 32)), ("B", (32, 2)))}
    save_file({name: torch.randn(size) for name, size in names.items()}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_merged(adapted, clip):
    pytest.importorskip("peft")
    backbone = Backbone.from_pretrained(adapted)
    known = backbone.provenance()
    assert known["base_model_adapter"] == "LORA, merged"
    assert known["base_model_weights_sha256"] != clip.provenance()["base_model_weights_sha256"]
    weights = load_file(adapted / "adapter_model.safetensors")
    a, b = (next(value for name, value in weights.items() if f"lora_{part}" in name) for part in "AB")
    with torch.no_grad():
        expected = Backbone.from_pretrained(clip.name_or_path)
        expected.model.vision_model.encoder.layers[1].self_attn.q_proj.weight += b @ a * 2
    torch.testing.assert_close(backbone.image_embeds(pictures()), expected.image_embeds(pictures()))
    assert (backbone.image_embeds(pictures()) - clip.image_embeds(pictures())).norm() > 0.01
    assert not [name for name in backbone.model.state_dict() if "lora" in name]

    save_file({f"other.{name}": value for name, value in weights.items()}, adapted / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter of .*adapted"):
        Backbone.from_pretrained(adapted)


def test_an_adapter_that_cannot_be_merged_is_refused(adapted, monkeypatch):
    monkeypatch.setattr("hf_msae.backbones.loading.is_peft_available", lambda: False)
    with pytest.raises(ValueError, match=r"adapted .*adapter_config\.json.*pip install peft"):
        Backbone.from_pretrained(adapted)
    (adapted / "config.json").rename(adapted / "other.json")
    with pytest.raises(ValueError, match=r"adapted .*without the model"):
        Backbone.from_pretrained(adapted)
    (adapted / "other.json").rename(adapted / "config.json")
    (adapted / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapted .*adapter_model\.safetensors.*adapter_config\.json"):
        Backbone.from_pretrained(adapted)
    (adapted / "adapter_model.safetensors").unlink()
    assert "base_model_adapter" not in Backbone.from_pretrained(adapted).provenance()
