"""Latents scaled by what the text of a name says of them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_msae.steering import METHODS, NotDefinedError, load_edit
from tests.identity_msae import identity_msae

DIVERSE = ["blue circle", "red square", "left", "circle on the right", "right square"]


@pytest.fixture(scope="module")
def backbone(backbones):
    return backbones["SiglipModel"]


@pytest.fixture(scope="module")
def msae(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("msae")
    identity_msae(backbone.width(), [backbone.width()]).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def X(backbone):
    return np.random.default_rng(0).standard_normal((60, backbone.width())).astype(np.float32) + 1


@pytest.fixture(scope="module")
def edit(backbone, msae, X):
    return METHODS["sem"](msae=msae, diverse=DIVERSE).fit_by_name("red circle", backbone, X)


def shares(backbone, msae, X, names, diverse):
    """How many diverse texts have less of each latent than each name."""
    texts = [f"a photo of {name}" for name in (*names, *diverse)]
    moved = F.normalize(backbone.text_embeds(texts).double(), dim=-1)
    moved -= moved.mean(dim=0)
    of_images = torch.from_numpy(X).double()
    center = of_images.mean(dim=0)
    moved *= (of_images - center).norm(dim=1).mean() / moved.norm(dim=1).mean()
    with torch.no_grad():
        codes = METHODS["sem"](msae=msae).model.encode((center + moved).float())
    return [(codes[len(names) :] < code).double().mean(dim=0) for code in codes[: len(names)]]


def test_scales_and_removal_are_their_formula(backbone, msae, X, edit):
    (share,) = shares(backbone, msae, X, ["red circle"], DIVERSE)
    scales = (1 - share) ** 2
    torch.testing.assert_close(edit.parameters["scales"].double(), scales, atol=1e-6, rtol=0)
    assert (scales == 1).any() and (scales < 0.5).any()
    with torch.no_grad():
        codes = edit.model.encode(torch.from_numpy(X))
        medians = torch.from_numpy(np.median(codes.numpy(), axis=0))
        changed = scales * codes + (1 - scales) * medians
        expected = torch.from_numpy(X) + edit.model.decode(changed.float()) - edit.model.decode(codes)
    np.testing.assert_allclose(edit.remove(X), expected, atol=1e-4)
    np.testing.assert_allclose(edit.score(X), (codes * (1 - scales)).sum(dim=1), atol=1e-4)


def test_codes_of_many_rows_are_measured_block_by_block(backbone, msae, X, edit, monkeypatch):
    monkeypatch.setattr("hf_msae.steering.msae_edit.MOST_ENTRIES", 5 * len(X))
    parts = METHODS["sem"](msae=msae, diverse=DIVERSE).fit_by_name("red circle", backbone, X)
    for name in ("medians", "means"):
        torch.testing.assert_close(parts.parameters[name], edit.parameters[name])


def test_latents_of_names_to_keep_stay_as_they_are(backbone, msae, X):
    keep = METHODS["sem"](msae=msae, diverse=DIVERSE, keep=["blue square"]).fit_by_name("red circle", backbone, X)
    of_name, of_keep = shares(backbone, msae, X, ["red circle", "blue square"], DIVERSE)
    expected = ((1 + of_keep - of_name) ** 2).clamp(max=1)
    torch.testing.assert_close(keep.parameters["scales"].double(), expected, atol=1e-6, rtol=0)


def test_it_is_saved_and_belongs_to_its_backbone(backbone, backbones, X, edit, tmp_path):
    edit.save_pretrained(tmp_path)
    loaded = load_edit(tmp_path)
    assert loaded.settings() == edit.settings() and loaded.provenance["concept"] == "red circle"
    np.testing.assert_array_equal(loaded.add(X, 0.5), edit.add(X, 0.5))
    with pytest.raises(ValueError, match="weights"), loaded.attached(backbones["CLIPModel"]):
        pass


def test_what_does_not_fit_is_refused(backbone, msae, X):
    make = METHODS["sem"]
    with pytest.raises(NotDefinedError, match="fit_by_name"):
        make(msae=msae).fit(X, np.arange(60) % 2)
    with pytest.raises(ValueError, match="backbone"):
        make(msae=msae).fit_by_name("red", None, X)
    with pytest.raises(NotDefinedError, match="'red red'"):
        make(msae=msae, diverse=["red red", "red red "]).fit_by_name("red red", backbone, X)
    with pytest.raises(ValueError, match=f"{X.shape[1] + 1} columns"):
        make(msae=msae).fit_by_name("red", backbone, np.ones((3, X.shape[1] + 1)))
    for options in ({"keep": "cat"}, {"diverse": ["cat"]}, {"template": "a photo"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(msae=msae, **options)
