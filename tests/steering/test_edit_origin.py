"""Whose embeddings an edit is of: what is recorded, what is refused, and where it applies."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.backbones import Backbone
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.steering import METHODS, Edit, load_edit
from hf_msae.steering.provenance import refuse_other
from tests.identity_msae import identity_msae

ONE = {
    "base_model_name_or_path": "one/clip",
    "base_model_weights_sha256": "1" * 64,
    "base_model_processor_sha256": "a" * 64,
    "hook_point": "image_embeds",
}
OTHER = {**ONE, "base_model_name_or_path": "other/siglip", "base_model_weights_sha256": "2" * 64}
USES = {"score": lambda e, x: e.score(x), "remove": lambda e, x: e.remove(x), "add": lambda e, x: e.add(x, 0.5)}
IMAGES = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "green", "white")]


def opened(rows, provenance):
    found = load_embeddings(np.asarray(rows))
    found.provenance = dict(provenance)
    return found


@pytest.fixture(scope="module")
def clip(backbones):
    return backbones["CLIPModel"]


@pytest.fixture(scope="module")
def tokens(clip):
    """Tokens of a block (n, width) and whether they are of an image with red in it."""
    found = clip.read("vision.layers.0", IMAGES)
    return found.reshape(-1, found.shape[-1]), np.repeat([True, False, False, True], found.shape[1])


@pytest.fixture(scope="module")
def rows(clip):
    """(embeddings (n, width) that nobody read, which have a concept)."""
    rng = np.random.default_rng(0)
    concept = np.arange(40) % 2 == 0
    return (rng.standard_normal((40, clip.width())) + 2 * concept[:, None]).astype(np.float32), concept


@pytest.fixture
def of_one(train):
    return METHODS["mean_difference"]().fit(opened(train[0], ONE), train[1])


@pytest.mark.parametrize(
    ("theirs", "differs"),
    [
        ({}, ""),
        (ONE, ""),
        ({**ONE, "base_model_name_or_path": "/moved/clip"}, ""),
        ({**ONE, "hook_point": None}, ""),
        (OTHER, "weights"),
        ({**ONE, "base_model_processor_sha256": "b" * 64}, "processor"),
        ({**ONE, "hook_point": "vision.layers.1"}, "hook point"),
        ({"base_model_name_or_path": "other/siglip"}, "backbone"),
        ({"base_model_name_or_path": "one/clip"}, ""),
        ({"hook_point": "vision.layers.1"}, ""),  # nobody said of what
    ],
)
def test_what_is_known_of_both_is_compared(theirs, differs):
    for pair in ((ONE, theirs), (theirs, ONE)):
        if not differs:
            refuse_other(*pair, "the MSAE", "the embeddings are")
            continue
        with pytest.raises(ValueError, match=differs) as refused:
            refuse_other(*pair, "the MSAE", "the embeddings are")
        assert all(each["base_model_name_or_path"] in str(refused.value) for each in pair)


def test_one_commit_on_the_hub_is_one_backbone_and_another_is_not():
    first, half = {**ONE, "base_model_revision": "c0"}, {**ONE, "base_model_revision": "c0"}
    half["base_model_weights_sha256"] = "3" * 64
    refuse_other(first, half, "a", "b is")
    named = {"base_model_name_or_path": "one/clip", "base_model_revision": "c1"}
    with pytest.raises(ValueError, match="c0 is not c1"):
        refuse_other(first, named, "a", "b is")


@pytest.mark.parametrize("use", USES)
def test_embeddings_of_another_backbone_are_refused_by_an_edit(of_one, task, use):
    x = task.features[task.test][:5]
    found = USES[use](of_one, opened(x, ONE))
    np.testing.assert_array_equal(found, USES[use](of_one, x))
    with pytest.raises(ValueError, match=r"one/clip.*other/siglip"):
        USES[use](of_one, opened(x, OTHER))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_counted(of_one, task, use, value):
    x = task.features[task.test][:6].copy()
    x[2, 3] = x[4, 0] = value
    for given in (x, torch.from_numpy(x).reshape(2, 3, -1), torch.from_numpy(x).bfloat16()):
        with pytest.raises(ValueError, match=r"2 of 6.*row 2"):
            USES[use](of_one, given)
    with pytest.raises(ValueError, match="amount"):
        of_one.add(task.features[:2], value)


@pytest.mark.parametrize("method", ["msae", "sem"])
def test_an_msae_of_another_backbone_or_width_is_refused(method, make, train, clip):
    X, concept, _ = train
    model = make("msae").model
    of_one = identity_msae(model.config.d_in, [model.config.d_in])
    of_one.config.update({key: value for key, value in ONE.items()})
    edit = METHODS[method](msae=of_one)
    with pytest.raises(ValueError, match=r"one/clip.*other/siglip"):
        edit.check_embeddings(OTHER, X.shape[1])
    with pytest.raises(ValueError, match=r"12 columns.*13"):
        edit.check_embeddings({}, 13)
    if method == "msae":
        assert edit.fit(opened(X, ONE), concept).provenance["base_model_name_or_path"] == "one/clip"
        for use in (lambda x: edit.fit(x, concept), lambda x: edit.fit_by_name("latent:1", None, x)):
            with pytest.raises(ValueError, match=r"one/clip.*other/siglip"):
                use(opened(X, OTHER))


def test_embeddings_in_an_array_are_attached_to_the_backbone_that_is_named(clip, rows, tmp_path):
    X, concept = rows
    METHODS["lda"]().fit(X, concept, backbone=clip).save_pretrained(tmp_path)
    edit = load_edit(tmp_path)
    assert edit.provenance["hook_point"] == "image_embeds"
    plain = clip.image_embeds(IMAGES)
    with edit.attached(clip):
        torch.testing.assert_close(clip.image_embeds(IMAGES), edit.remove(plain), atol=1e-5, rtol=1e-5)
    assert torch.equal(clip.image_embeds(IMAGES), plain)


def test_a_backbone_that_embeddings_cannot_be_of_is_refused(clip, backbones, rows):
    X, concept = rows
    fit = METHODS["mean_difference"]().fit
    with pytest.raises(ValueError, match=f"{X.shape[1]} columns.*vision.layers.0"):
        fit(X, concept, backbone=clip, hook_point="vision.layers.0")
    with pytest.raises(ValueError, match=r"vision\.layers\.9"):
        fit(X, concept, backbone=clip, hook_point="vision.layers.9")
    with pytest.raises(ValueError, match="hook_point='image_embeds'"):
        fit(X, concept, hook_point="image_embeds")
    with pytest.raises(ValueError, match=r"one/clip.*weights"):
        fit(opened(X, ONE), concept, backbone=clip)
    with pytest.raises(TypeError, match="'scenes'"):
        fit(X, concept, backbone="scenes")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["leace", "msae"])
def test_tokens_of_a_block_are_edited_also_in_half_precision(method, dtype, clip, tokens, folders):
    X, concept = tokens
    options = {"msae": identity_msae(X.shape[1], [X.shape[1]])} if method == "msae" else {}
    edit = METHODS[method](**options).fit(X, concept, backbone=clip, hook_point="vision.layers.0")
    loaded = Backbone.from_pretrained(folders["CLIPModel"], dtype=dtype)
    plain, embeds = loaded.read("vision.layers.0", IMAGES), loaded.image_embeds(IMAGES)
    with edit.attached(loaded):
        changed = loaded.read("vision.layers.0", IMAGES)
        assert not torch.equal(loaded.image_embeds(IMAGES), embeds)
    tolerance = 1e-4 if dtype == "float32" else 0.05
    torch.testing.assert_close(changed, edit.remove(plain), atol=tolerance, rtol=tolerance)
    with pytest.raises(ValueError, match=r"reshape\(-1"):
        METHODS["leace"]().fit(plain, concept)


def test_weights_that_were_rounded_in_memory_are_others(clip, rows, folders):
    edit = METHODS["mean_difference"]().fit(*rows, backbone=clip)
    rounded = Backbone.from_pretrained(folders["CLIPModel"])
    rounded.model.half()
    with pytest.raises(ValueError, match=r"weights.*dtype="), edit.attached(rounded):
        pass


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:torch.quantize_per:UserWarning")
def test_edits_of_a_quantized_backbone_are_its_own(clip, rows, folders):
    quantized = Backbone.from_pretrained(folders["CLIPModel"])
    quantized.model = torch.ao.quantization.quantize_dynamic(quantized.model, {torch.nn.Linear}, dtype=torch.qint8)
    edit = METHODS["mean_difference"]().fit(*rows, backbone=quantized)
    plain = quantized.image_embeds(IMAGES)
    with edit.attached(quantized):
        torch.testing.assert_close(quantized.image_embeds(IMAGES), edit.remove(plain), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="weights"), edit.attached(clip):
        pass
    with pytest.raises(ValueError, match="weights"), METHODS["lda"]().fit(*rows, backbone=clip).attached(quantized):
        pass


@pytest.fixture(scope="module")
def held(clip):
    """A `VisionTextMSAE` with names."""
    msae = identity_msae(clip.width(), [clip.width()])
    known = clip.provenance()
    msae.config.update({f"base_model_{x}": known[f"base_model_{x}"] for x in ("name_or_path", "weights_sha256")})
    frame = pd.DataFrame({"latent": range(clip.width()), "name": [f"word {j}" for j in range(clip.width())]})
    return VisionTextMSAE(clip, msae, ConceptTable(frame.assign(similarity=0.5)))


def test_a_vision_text_msae_stands_for_its_backbone(held, clip, rows):
    plain = held.image_embeds(IMAGES)
    edit = METHODS["mean_difference"]().fit(*rows, backbone=held)
    with edit.attached(held, "add", 2.0):
        torch.testing.assert_close(held.image_embeds(IMAGES), edit.add(plain, 2.0), atol=1e-5, rtol=1e-5)
    by_name = METHODS["text"]().fit_by_name("red circle", held, rows[0])
    assert torch.equal(by_name.direction, METHODS["text"]().fit_by_name("red circle", clip, rows[0]).direction)
    with pytest.raises(TypeError, match="namespace"), edit.attached(SimpleNamespace(backbone=3)):
        pass


def test_latents_are_named_by_the_model_that_is_held(held, backbones, rows):
    edit = METHODS["msae"](msae=held.msae).fit_by_name("word 5", held, rows[0])
    assert edit.latents == (5,)
    with edit.attached(held):
        changed = held.image_embeds(IMAGES)
    torch.testing.assert_close(changed, edit.remove(held.image_embeds(IMAGES)), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="'word 5'"):  # the backbone has no names
        METHODS["msae"](msae=held.msae).fit_by_name("word 5", held.backbone, rows[0])
    with pytest.raises(ValueError, match=r"weights|columns"):
        METHODS["msae"](msae=held.msae).fit_by_name("latent:5", backbones["SiglipModel"], rows[0])


@pytest.mark.parametrize("change", ["method", "settings", "provenance", "format_version"])
def test_a_changed_description_is_refused(of_one, tmp_path, change):
    of_one.save_pretrained(tmp_path)
    path = tmp_path / "edit.json"
    content = json.loads(path.read_text())
    others = {"method": "lda", "settings": {"folds": 3}, "format_version": 1}
    others["provenance"] = {**content["provenance"], "hook_point": "vision.layers.1"}
    path.write_text(json.dumps({**content, change: others[change]}))
    with pytest.raises(ValueError, match=r"edit\.json was changed"):
        load_edit(tmp_path)
    path.write_text(json.dumps(dict(reversed(content.items()))))  # the order of keys says nothing
    assert load_edit(tmp_path).provenance == of_one.provenance
    del content["description_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="description_sha256"):
        load_edit(tmp_path)
    path.write_text(json.dumps({**content, "format_version": 1}))  # as earlier versions wrote it
    assert load_edit(tmp_path).provenance == of_one.provenance


def test_options_that_json_cannot_hold_are_refused_before_anything_is_written(train, tmp_path):
    edit = METHODS["ridge"](folds=np.int64(3)).fit(*train[:2])
    with pytest.raises(ValueError, match="folds of ridge"):
        edit.save_pretrained(tmp_path / "edit")
    assert not (tmp_path / "edit").exists()


def test_methods_get_rows_whatever_the_shape_of_the_embeddings(train):
    class Rows(Edit):
        method = "rows"

        def _fit(self, X, concept, seed, others):
            return {"mean": X.mean(axis=0)}

        def _score(self, x):
            return torch.cdist(x, self._get("mean", x)[None])[:, 0]  # takes matrices alone

        def _remove(self, x):
            assert x.ndim == 2
            return x

        def _add(self, x, amount):
            return x

    X, concept, _ = train
    edit = Rows().fit(X, concept)
    assert np.ndim(edit.score(X[0])) == 0 and edit.remove(X[0]).shape == X[0].shape
    assert edit.score(X[:6].reshape(2, 3, -1)).shape == (2, 3) and edit.remove(X[:0]).shape == X[:0].shape
    assert edit.add([X[0].tolist()]).shape == (1, X.shape[1])
