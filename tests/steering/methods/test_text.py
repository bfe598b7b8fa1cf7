"""Directions of names, without labels."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_msae.steering import METHODS, NotDefinedError, load_edit
from tests.identity_msae import identity_msae


@pytest.fixture(scope="module")
def backbone(backbones):
    return backbones["CLIPModel"]


@pytest.fixture(scope="module")
def embeddings(backbone):
    return np.random.default_rng(0).standard_normal((50, backbone.width())).astype(np.float32)


@pytest.fixture(scope="module")
def edit(backbone, embeddings):
    return METHODS["text"](neutral=["a photo", "the photo"]).fit_by_name("red circle", backbone, embeddings)


def test_the_direction_is_that_of_the_text_less_neutral_ones(backbone, embeddings, edit):
    texts = F.normalize(backbone.text_embeds(["a photo of red circle", "a photo", "the photo"]), dim=-1)
    expected = F.normalize(texts[0] - texts[1:].mean(dim=0), dim=0)
    torch.testing.assert_close(edit.direction, expected, atol=1e-5, rtol=0)
    along = embeddings @ expected.numpy()
    levels = [along.mean() - along.std(), along.mean() + along.std()]
    np.testing.assert_allclose(edit.parameters["levels"], levels, atol=1e-4)


def test_it_applies_on_its_backbone_and_on_no_other(backbones, backbone, edit, tmp_path):
    from PIL import Image

    edit.save_pretrained(tmp_path)
    loaded = load_edit(tmp_path)
    assert loaded.settings() == edit.settings() and loaded.provenance["concept"] == "red circle"
    image = Image.new("RGB", (16, 16), "red")
    plain = backbone.image_embeds(image)
    with loaded.attached(backbone):
        torch.testing.assert_close(backbone.image_embeds(image), edit.remove(plain), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="weights"), loaded.attached(backbones["SiglipModel"]):
        pass


def test_it_cannot_be_fitted_to_labels_or_without_a_backbone(embeddings):
    with pytest.raises(NotDefinedError, match="fit_by_name"):
        METHODS["text"]().fit(embeddings, np.arange(50) % 2)
    with pytest.raises(ValueError, match="backbone"):
        METHODS["text"]().fit_by_name("red", None, embeddings)


def test_what_does_not_fit_is_refused(backbone, embeddings):
    for method, options in (("text", {}), ("sem", {"msae": identity_msae(embeddings.shape[1], [4])})):
        with pytest.raises(ValueError, match=f"{method} needs a name.* ' '"):
            METHODS[method](**options).fit_by_name(" ", backbone, embeddings)
    with pytest.raises(ValueError, match=f"{embeddings.shape[1] + 1} columns"):
        METHODS["text"]().fit_by_name("red", backbone, np.ones((3, embeddings.shape[1] + 1)))
    with pytest.raises(NotDefinedError, match="'red'"):
        METHODS["text"](neutral=["a photo of red"]).fit_by_name("red", backbone, embeddings)
    for options in ({"neutral": "a photo"}, {"neutral": []}, {"template": "a photo"}):
        with pytest.raises(ValueError, match=r"neutral|template"):
            METHODS["text"](**options)
