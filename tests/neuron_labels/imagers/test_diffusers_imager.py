import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hf_msae.neuron_labels.imagers.base import CannotDrawError, image_sha256
from hf_msae.neuron_labels.imagers.diffusion import DiffusersImager

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(diffusers, tmp_path_factory):
    """A saved StableDiffusionPipeline with small random weights and a tokenizer of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    root = tmp_path_factory.mktemp("diffusion")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (root / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=77)
    torch.manual_seed(0)
    n = len(words)
    config = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": n - 2, "eos_token_id": n - 1, "pad_token_id": n - 1}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=n, **config, **special))
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def imager(folder):
    return DiffusersImager(str(folder), num_inference_steps=2, device="cpu")


def values(picture):
    return np.asarray(picture, int)


def test_draws_rgb_pictures_of_the_model_s_size(imager):
    (picture,) = imager.draw("star", [0])
    assert (picture.mode, picture.size) == ("RGB", (16, 16))
    assert values(picture).std() > 1


def test_a_picture_depends_on_its_seed_and_not_on_the_batch(folder, imager):
    together = imager.draw("star", [3, 1, 4, 1, 5])
    assert image_sha256(together[1]) == image_sha256(together[3])
    assert len({image_sha256(picture) for picture in together}) == 4
    alone = DiffusersImager(str(folder), num_inference_steps=2, device="cpu", batch_size=1)
    for seed, picture in zip([3, 1, 4, 1, 5], together, strict=True):
        assert np.abs(values(alone.draw("star", [seed])[0]) - values(picture)).max() <= 1  # rounding


def test_equals_what_diffusers_makes_with_a_generator(diffusers, folder, imager):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a picture of star", num_inference_steps=2, generator=torch.Generator("cpu").manual_seed(9)
    ).images[0]
    assert np.abs(values(imager.draw("star", [9])[0]) - values(expected)).max() <= 1


def test_the_options_reach_the_pipeline(folder, imager):
    options = {"num_inference_steps": 3, "guidance_scale": 1.0, "height": 32, "width": 24, "negative_prompt": "cloud"}
    changed = DiffusersImager(str(folder), device="cpu", dtype="bfloat16", **options)
    assert changed.draw("star", [0, 1])[1].size == (24, 32)
    assert changed.pipeline.unet.dtype == torch.bfloat16
    assert imager.pipeline.unet.dtype == torch.float32


def test_prompts_reach_the_pipeline(imager, monkeypatch):
    prompts = []
    call = type(imager.pipeline).__call__
    monkeypatch.setattr(
        type(imager.pipeline),
        "__call__",
        lambda self, **options: prompts.extend(options["prompt"]) or call(self, **options),
    )
    DiffusersImager(imager.pipeline, "{} on the moon", num_inference_steps=1).draw("{0} %s star", [0, 1])
    assert prompts == ["{0} %s star on the moon"] * 2


def test_takes_a_loaded_pipeline(imager):
    again = DiffusersImager(imager.pipeline, num_inference_steps=2)
    assert image_sha256(again.draw("star", [7])[0]) == image_sha256(imager.draw("star", [7])[0])
    assert again.settings == imager.settings


def test_no_progress_bars(imager, capfd):
    imager.draw("star", [0])
    assert capfd.readouterr().err == ""


def test_settings_tell_what_pictures_depend_on(diffusers, folder, imager):
    assert json.loads(json.dumps(imager.settings)) == imager.settings
    assert str(folder) not in json.dumps(imager.settings)
    other = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    with torch.no_grad():
        other.unet.conv_in.weight += 1
    schedule = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    schedule.scheduler = diffusers.EulerDiscreteScheduler.from_config(schedule.scheduler.config)
    different = [
        imager.settings,
        DiffusersImager(other, num_inference_steps=2).settings,
        DiffusersImager(schedule, num_inference_steps=2).settings,
        DiffusersImager(imager.pipeline, num_inference_steps=3).settings,
        DiffusersImager(imager.pipeline, "photo", num_inference_steps=2).settings,
    ]
    assert len({json.dumps(each) for each in different}) == 5


class Checked:
    """A pipeline whose pictures of some generators' seeds are black."""

    def __init__(self, black, flagged=True):
        self.black, self.flagged, self.components = black, flagged, {}

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, prompt, generator):
        bad = [each.initial_seed() in self.black for each in generator]
        images = [Image.new("RGB", (4, 4), "black" if each else "red") for each in bad]
        return type("Output", (), {"images": images, "nsfw_content_detected": bad if self.flagged else None})


@pytest.mark.parametrize("flagged", [True, False])
def test_black_pictures_are_made_again(flagged, caplog):
    imager = DiffusersImager(Checked({1, 2, 1 + 2**32}, flagged), batch_size=2)
    assert [picture.getpixel((0, 0)) for picture in imager.draw("star", range(4))] == [(255, 0, 0)] * 4
    with pytest.raises(CannotDrawError, match="safety checker" if flagged else "float32") as caught:
        DiffusersImager(Checked({5 + n * 2**32 for n in range(3)}, flagged)).draw("star", [4, 5])
    assert "star" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "0"),
        ({"num_inference_steps": -1}, "-1"),
        ({"offload": "disk"}, "disk"),
        ({"offload": "model", "device": "cpu"}, "CPU"),
        ({"style": "cartoon"}, "cartoon"),
    ],
)
def test_refuses_options_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        DiffusersImager(Checked(set()), **options)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_goes_to_the_device(offload, monkeypatch):
    moved = []
    pipeline = Checked(set())
    pipeline.enable_model_cpu_offload = lambda device: moved.append(("model", device.type))
    pipeline.enable_sequential_cpu_offload = lambda device: moved.append(("sequential", device.type))
    DiffusersImager(pipeline, offload=offload, device="cuda")
    assert moved == [(offload, "cuda")]


def test_says_which_package_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"hf_msae\[label\]"):
        DiffusersImager(str(folder), device="cpu")
