"""Vision models predict from patches, and the layout of the published HYPERVIEW transformer is the one we have."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from hf_msae.hyperspectral import (
    HYPERVIEW_SCALE,
    HyperviewTransformer,
    PatchError,
    VisionRegressor,
    make_patches,
    predict_out_of_fold,
)

SIZES = {"image_size": 32, "patch_size": 16, "width": 128, "num_layers": 2, "embedding_size": 24}


class PublishedBlock(nn.Module):
    """A block as in OpenAI's CLIP, with its names."""

    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.Identity(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x):
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False)[0]
        hidden = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))


def published(sizes) -> nn.Module:
    """Modules with the names of the published checkpoint, and random weights."""
    width, size = sizes["width"], sizes["embedding_size"]
    model, visual, blocks = nn.Module(), nn.Module(), nn.Module()
    visual.conv1 = nn.Conv2d(3, width, sizes["patch_size"], sizes["patch_size"], bias=False)
    visual.class_embedding = nn.Parameter(torch.randn(width))
    visual.positional_embedding = nn.Parameter(torch.randn(5, width))
    visual.ln_pre, visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
    blocks.resblocks = nn.Sequential(*(PublishedBlock(width) for _ in range(sizes["num_layers"])))
    visual.transformer, visual.proj = blocks, nn.Parameter(torch.randn(width, size))
    model.visual = visual
    model.external_dim_reduction, model.external_image_mlp_header = nn.Module(), nn.Module()
    model.external_dim_reduction.dim1, model.external_dim_reduction.dim2 = nn.Conv2d(150, 64, 1), nn.Conv2d(64, 3, 1)
    header = model.external_image_mlp_header
    header.hidden1, header.hidden2, header.hidden3 = (
        nn.Linear(size, size),
        nn.Linear(size, size // 2),
        nn.Linear(size // 2, 4),
    )
    model.token_embedding = nn.Embedding(7, 5)  # of the text tower
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def published_forward(model, images):
    act = nn.functional.hardswish
    x = act(model.external_dim_reduction.dim2(act(model.external_dim_reduction.dim1(images))))
    visual = model.visual
    x = visual.conv1(x).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.transformer.resblocks(visual.ln_pre(x).transpose(0, 1)).transpose(0, 1)
    x = visual.ln_post(x[:, 0]) @ visual.proj
    x = x / x.norm(dim=1, keepdim=True)
    head = model.external_image_mlp_header
    return nn.functional.hardsigmoid(head.hidden3(act(head.hidden2(act(head.hidden1(x))))))


@pytest.fixture(scope="module")
def patches():
    return make_patches(5, seed=14, edges=(14, 18), small_share=0.4)


def test_weights_with_the_published_names_compute_the_same(relative_error):
    torch.manual_seed(0)
    theirs = published(SIZES)
    ours = HyperviewTransformer(**SIZES).load_checkpoint(theirs.state_dict()).eval()
    images = torch.rand(3, 150, 32, 32)
    with torch.inference_mode():
        expected = published_forward(theirs, images)
        assert relative_error(ours(images), expected) < 1e-5
    assert expected.std() > 1e-4, "random weights tell inputs apart"


def test_the_published_sizes_are_the_defaults():
    with torch.device("meta"):
        model = HyperviewTransformer()
    shapes = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    assert shapes["dimension_reduction.0.weight"] == (64, 150, 1, 1)
    assert shapes["visual.visual_projection.weight"] == (768, 1024)
    assert len({name.split(".")[4] for name in shapes if ".encoder.layers." in name}) == 24
    assert shapes["head.4.weight"] == (4, 384)


def test_checkpoints_that_do_not_fit_are_refused():
    state = published(SIZES).state_dict()
    model = HyperviewTransformer(**SIZES)
    with pytest.raises(ValueError, match=r"position_embedding.*\(10, 128\)"):
        model.load_checkpoint({**state, "visual.positional_embedding": torch.zeros(10, 128)})
    with pytest.raises(ValueError, match=r"lacks 2 weights, such as head\.4"):
        model.load_checkpoint({name: each for name, each in state.items() if "hidden3" not in name})


class Corners(nn.Module):
    """Returns the mean of four corners of the first band."""

    def forward(self, images):
        first = images[:, 0]
        return torch.stack([first[:, :2, :2], first[:, :2, -2:], first[:, -2:, :2], first[:, -2:, -2:]], 1).mean(
            (2, 3)
        )


def test_patches_are_padded_to_a_square_and_scaled(patches):
    data = np.full((150, 8, 4), 5419.0)
    mask = np.zeros((8, 4), dtype=bool)
    mask[6:] = True
    (found,) = VisionRegressor(Corners(), image_size=8).predict([(data, mask)])
    assert found == pytest.approx([1, 0, 0, 0], abs=1e-6)
    (found,) = VisionRegressor(Corners(), image_size=8, divisor=54190, target_scale=[1, 2, 3, 4]).predict(
        [(data, ~mask)]
    )
    assert found == pytest.approx([0, 0, 0.3, 0], abs=1e-6)


def test_models_of_torch_and_transformers_predict(patches):
    torch.manual_seed(0)
    model = HyperviewTransformer(**SIZES).train()
    regressor = VisionRegressor(model, image_size=32, target_scale=HYPERVIEW_SCALE, batch_size=2)
    predictions = regressor.predict(patches)
    assert predictions.shape == (5, 4) and model.training, "its mode is left as it was"
    assert (predictions >= 0).all() and (predictions <= HYPERVIEW_SCALE).all()
    assert np.allclose(regressor.fit(patches).set_params(batch_size=5).predict(patches), predictions, rtol=1e-4)
    assert clone(regressor).image_size == 32
    images = regressor.images(patches)
    assert images.shape == (5, 150, 32, 32) and torch.equal(regressor.images(patches, [3])[0], images[3])
    with torch.inference_mode():
        trained_on = model.eval()(images).numpy() * HYPERVIEW_SCALE
    assert np.allclose(trained_on, predictions, rtol=1e-4), "what it is trained on is what it predicts from"
    with pytest.raises(ValueError, match=r"VisionRegressor is not fitted again"):
        predict_out_of_fold(regressor, patches)
    config = ViTConfig(
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
        **{"image_size": 16, "patch_size": 8, "num_channels": 150, "num_labels": 3},
    )
    found = VisionRegressor(ViTForImageClassification(config), image_size=16).predict(patches)
    assert found.shape == (5, 3) and np.isfinite(found).all()


def test_what_does_not_fit_is_named(patches):
    data, mask = patches[0]
    with pytest.raises(PatchError) as error:
        VisionRegressor(Corners()).predict([(data, np.ones_like(mask))])
    assert (error.value.file, error.value.field) == ("patch 0", "mask")
    with pytest.raises(ValueError, match="3 numbers"):
        VisionRegressor(Corners(), image_size=8, target_scale=[1, 2, 3]).predict(patches)
    with pytest.raises(ValueError, match=r"\(5, 150, 8, 8\)"):
        VisionRegressor(nn.Identity(), image_size=8).predict(patches)
