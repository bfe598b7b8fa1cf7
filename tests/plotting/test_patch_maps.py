"""Patch maps: of the right patches, and drawn where these are in the image."""

import numpy as np
import pytest
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.backbones import prepare_images
from tests.test_vision_text import N, an_msae, table
from tests.tiny_backbones import pictures


def test_patch_maps(backbones):
    backbone = backbones["SiglipModel"]
    model = VisionTextMSAE(backbone, an_msae(backbone, "vision.layers.1"), table(*(["red"] + ["blue"] * (N - 1))))
    found = model.patch_map(pictures()[0], "red")
    assert found.shape == (2, 2)
    assert found.flatten().tolist() == pytest.approx(model.image_latents(pictures()[:1])[0, :, 0].tolist(), rel=1e-5)
    naflex, wide = backbones["Siglip2Model"], pictures(1, (20, 60))[0]  # keeps the picture's shape
    model = VisionTextMSAE(naflex, an_msae(naflex, "vision.layers.1"))
    codes = model.image_latents(wide)[0]
    latent = int(codes.std(dim=0).argmax())  # not the same everywhere
    found = model.patch_map(wide, latent)
    rows, columns = found.shape
    assert rows < columns
    assert found[1].tolist() == pytest.approx(codes[columns : 2 * columns, latent].tolist(), rel=1e-4, abs=1e-5)
    pooled = VisionTextMSAE(backbone, an_msae(backbone))
    with pytest.raises(ValueError, match=r"vision\.layers.*image_embeds"):
        pooled.patch_map(pictures()[0], 3)


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Siglip2Model", "Dinov2Model"])
@pytest.mark.parametrize("size", [(96, 32), (32, 96), (64, 64)], ids=str)
def test_patches_lie_where_the_region_says(backbones, name, size):
    backbone = backbones[name]
    blank = Image.new("RGB", size, "black")
    rows, columns = backbone.read_patches("vision.layers.0", blank)[1]
    left, upper, right, lower = backbone.patch_region(blank)
    for row, column in ((0, 0), (rows - 1, columns - 1), (0, columns - 1)):
        picture = blank.copy()
        step_x, step_y = (right - left) / columns, (lower - upper) / rows
        corner = (left + column * step_x, upper + row * step_y)
        picture.paste((255, 255, 255), tuple(map(round, (*corner, corner[0] + step_x, corner[1] + step_y))))
        changed = (
            backbone.read_patches("vision.layers.0", picture)[0] - backbone.read_patches("vision.layers.0", blank)[0]
        )
        pixels = prepare_images(backbone.image_processor, [picture])["pixel_values"][0]
        if pixels.ndim == 2:  # SigLIP 2: patches already
            brightness = pixels[: rows * columns].mean(dim=1).reshape(rows, columns)
        else:
            side = pixels.shape[-1] // columns
            brightness = pixels.mean(dim=0).unfold(0, side, side).unfold(1, side, side).mean(dim=(2, 3))
        assert brightness.argmax() == row * columns + column
        assert changed.norm() > 0


def test_patch_maps_are_drawn_where_the_patches_are(backbones):
    model = VisionTextMSAE(backbones["CLIPModel"], an_msae(backbones["CLIPModel"], "vision.layers.1"))
    wide = Image.new("RGB", (96, 32), "black")
    figure = model.plot_patch_map(wide, 3)
    picture, heat = figure.axes[1].images
    assert picture.get_extent() == [0, 96, 32, 0] and figure.axes[1].get_xlim() == (0, 96)
    left, right, lower, upper = heat.get_extent()
    assert (left, upper, right, lower) == backbones["CLIPModel"].patch_region(wide)
    assert heat.get_array().shape == model.patch_map(wide, 3).shape and right - left < 96
    assert figure.get_suptitle() == "latent 3"
    model.plot_patch_map(np.asarray(wide), 3)
