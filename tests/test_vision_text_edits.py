"""VisionTextMSAE: editing latents of real transformers models, and of the scenes' SigLIP end to end."""

import asyncio
import copy
import pickle
import threading
from contextvars import copy_context

import pandas as pd
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae.backbones import Backbone
from hf_msae.concepts import Vocabulary
from hf_msae.concepts.editing import LatentEdit, edit_embeddings
from tests.tiny_backbones import FAMILIES, TWO_TOWERS, pictures
from tests.vision_text_models import TEXTS, N, an_msae, table


@pytest.fixture
def clip(backbones):
    return VisionTextMSAE(backbones["CLIPModel"], an_msae(backbones["CLIPModel"]))


@pytest.mark.parametrize("hook_point", ["image_embeds", "text_embeds", "vision.layers.0", "text.layers.0"])
@pytest.mark.parametrize("name", FAMILIES)
def test_edits_reach_the_embeddings_of_every_family(backbones, name, hook_point):
    backbone = backbones[name]
    if hook_point not in backbone.hook_points:
        assert hook_point.startswith("text") and name not in TWO_TOWERS
        return
    msae = an_msae(backbone, hook_point)
    model = VisionTextMSAE(backbone, msae)
    items = TEXTS if hook_point.startswith("text") else pictures()
    read_out = model.text_embeds if hook_point.startswith("text") else model.image_embeds
    latents = model.text_latents(items) if hook_point.startswith("text") else model.image_latents(items)
    strongest = int(latents.flatten(0, -2).sum(0).argmax())
    before = read_out(items)
    with model.edit({strongest: 1.0}):
        assert torch.equal(read_out(items), before)  # to the last bit
    with model.edit({strongest: 0.0}):
        after = read_out(items)
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(read_out(items), before)
    if hook_point.endswith("embeds"):
        with torch.no_grad():
            codes = msae.encode(before)
            without = codes.clone()
            without[:, strongest] = 0
            expected = before + msae.decode(without) - msae.decode(codes)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"tied": True}, {"soft_cap": 3.0}, {"activation": "topk", "k": 8, "nesting_ks": [4, 8]}], ids=str
)
@pytest.mark.parametrize(("mode", "value"), [("scale", 2.5), ("set", 3.0), ("add", -1.0)])
def test_every_mode_is_what_it_says(backbones, mode, value, settings):
    backbone = backbones["CLIPModel"]
    msae = an_msae(backbone, **settings)
    x = backbone.image_embeds(pictures())
    with torch.no_grad():
        z = msae.encode(x)
        chosen = [int(z.sum(0).argmax()), int(z.sum(0).argmin())]
        edited = z.clone()
        for latent in chosen:
            edited[:, latent] = {"scale": z[:, latent] * value, "set": value, "add": z[:, latent] + value}[mode]
        edit = LatentEdit.of(dict.fromkeys(chosen, value), N, mode=mode)
        expected = x + msae.decode(edited) - msae.decode(z)
        torch.testing.assert_close(edit_embeddings(msae, x, [edit]), expected, rtol=1e-4, atol=1e-5)
        edit = LatentEdit.of(dict.fromkeys(chosen, value), N, mode=mode, keep_residual=False)
        torch.testing.assert_close(edit_embeddings(msae, x, [edit]), msae.decode(edited))


def test_rows_that_an_edit_does_not_change_stay_to_the_last_bit(clip):
    x = clip.image_embeds(pictures(12))
    z = clip.image_latents(pictures(12))
    latent = int(((z > 0).float().mean(0) - 0.5).abs().argmin())  # active for about half of them
    silent = z[:, latent] == 0
    assert 0 < silent.sum() < 12
    changed = edit_embeddings(clip.msae, x, [LatentEdit.of({latent: 0.0}, N)])
    assert torch.equal(changed[silent], x[silent]) and (changed[~silent] != x[~silent]).any(dim=1).all()


def test_half_precision_backbones_are_edited_in_full_precision(folders):
    backbone = Backbone.from_pretrained(folders["CLIPModel"], dtype="bfloat16")
    model = VisionTextMSAE(backbone, an_msae(backbone, "vision.layers.0"))
    before = model.image_embeds(pictures())
    latent = int(model.image_latents(pictures()).flatten(0, 1).sum(0).argmax())
    with model.edit({latent: 1.0}):
        assert torch.equal(model.image_embeds(pictures()), before)
    with model.edit({latent: 5.0}):
        assert not torch.equal(model.image_embeds(pictures()), before)


def test_edits_nest_and_end_after_errors(clip):
    x, latent = clip.image_embeds(pictures()), int(clip.image_latents(pictures()).sum(0).argmax())
    with clip.edit({latent: 4.0}, mode="set"):
        outer = clip.image_embeds(pictures())
        with clip.edit({latent: 1.0}, mode="set"):
            inner = clip.image_embeds(pictures())
        assert torch.equal(clip.image_embeds(pictures()), outer)
    with clip.edit({latent: 1.0}, mode="set"):
        torch.testing.assert_close(clip.image_embeds(pictures()), inner)
    with pytest.raises(RuntimeError, match="inside"), clip.edit({latent: 0.0}):
        raise RuntimeError("inside")
    assert torch.equal(clip.image_embeds(pictures()), x)
    assert not clip._editor.site.module._forward_hooks


def test_words_are_edited_and_what_is_kept_of_them_is_not(backbones, tmp_path):
    backbone = backbones["CLIPModel"]
    model = VisionTextMSAE(backbone, an_msae(backbone, hook_point="text_embeds"))
    words = Vocabulary(["red", "blue"])
    with model.edit({3: 50.0}, mode="set"):
        edited = words.embed(backbone, tmp_path)
    kept = words.embed(backbone, tmp_path)
    torch.testing.assert_close(kept, words.embed(backbone.text_embeds))
    assert (edited - kept).abs().max() > 0.01
    with model.edit({3: 50.0}, mode="set"):
        torch.testing.assert_close(words.embed(backbone, tmp_path), edited)


def test_an_edit_of_one_thread_is_not_seen_by_another(clip):
    latent = int(clip.image_latents(pictures()).sum(0).argmax())
    plain = clip.image_embeds(pictures())
    with clip.edit({latent: 0.0}):
        edited = clip.image_embeds(pictures())
    wrong, barrier = [], threading.Barrier(4)

    def use(value, expected):
        barrier.wait()
        for _ in range(6):
            if value is None:
                found = clip.image_embeds(pictures())
            else:
                with clip.edit({latent: value}):
                    found = clip.image_embeds(pictures())
            if not torch.equal(found, expected):
                wrong.append(value)

    threads = [threading.Thread(target=use, args=each) for each in [(None, plain), (0.0, edited)] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not clip._editor.site.module._forward_hooks


def test_an_inner_edit_is_applied_to_what_an_outer_one_has_left(clip):
    x, latent = clip.image_embeds(pictures()), int(clip.image_latents(pictures()).sum(0).argmax())
    with clip.edit({latent: 2.0}, mode="add"), clip.edit({latent: 3.0}, mode="scale"):
        found = clip.image_embeds(pictures())
    z = clip.image_latents(pictures())[:, latent : latent + 1]
    expected = x + ((z + 2) * 3 - z) * clip.msae.dictionary[latent] / clip.msae.input_scale
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_two_models_of_one_backbone_edit_in_the_order_of_their_contexts(clip):
    other = VisionTextMSAE(clip.backbone, an_msae(clip.backbone))
    with torch.no_grad():
        other.msae.decoder.copy_(other.msae.decoder.flip(0))
    first, second = LatentEdit.of({0: 9.0}, N, mode="set"), LatentEdit.of({1: 9.0}, N, mode="set")
    x = clip.image_embeds(pictures())
    expected = edit_embeddings(other.msae, edit_embeddings(clip.msae, x, [first]), [second])
    with clip.edit({0: 9.0}, mode="set"), other.edit({1: 9.0}, mode="set"):
        assert torch.equal(clip.image_embeds(pictures()), expected)
    with other.edit({0: 1.0}):  # whoever came first
        with clip.edit({0: 9.0}, mode="set"), other.edit({1: 9.0}, mode="set"):
            torch.testing.assert_close(clip.image_embeds(pictures()), expected)


def test_edits_end_in_whatever_order_and_context(clip):
    plain = clip.image_embeds(pictures())

    def editing(value):
        with clip.edit({0: value}, mode="set"):
            yield

    one, two = editing(9.0), editing(5.0)
    next(one), next(two)
    one.close()
    with_two = clip.image_embeds(pictures())
    two.close()
    with clip.edit({0: 5.0}, mode="set"):
        assert torch.equal(clip.image_embeds(pictures()), with_two)
    assert torch.equal(clip.image_embeds(pictures()), plain)

    context, other = copy_context(), copy_context()
    edit = clip.edit({0: 9.0}, mode="set")
    context.run(edit.__enter__)
    other.run(edit.__exit__, None, None, None)  # as web servers do
    assert torch.equal(context.run(clip.image_embeds, pictures()), plain)
    assert not clip._editor.site.module._forward_hooks


def test_tasks_have_edits_of_their_own(clip):
    plain = clip.image_embeds(pictures())

    async def task(value):
        with clip.edit({0: value}, mode="set"):
            await asyncio.sleep(0.01)
            return clip.image_embeds(pictures())

    async def both():
        return await asyncio.gather(task(9.0), task(5.0))

    nine, five = asyncio.run(both())
    with clip.edit({0: 9.0}, mode="set"):
        assert torch.equal(clip.image_embeds(pictures()), nine)
    assert not torch.equal(nine, five) and torch.equal(clip.image_embeds(pictures()), plain)


@pytest.mark.parametrize("hook_point", ["image_embeds", "vision.layers.0"])
def test_gradients_pass_an_edit(backbones, hook_point):
    backbone = backbones["CLIPModel"]
    model = VisionTextMSAE(backbone, an_msae(backbone, hook_point))
    pixels = backbone.image_processor(images=pictures(), return_tensors="pt")["pixel_values"].requires_grad_()
    with model.edit({0: 9.0}, mode="set"):
        backbone.model.get_image_features(pixel_values=pixels).pooler_output.sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_concepts_are_edited_by_name(clip):
    clip.concepts = table(*(["blue", "red", "red"] + ["green"] * (N - 3)))
    assert LatentEdit.of({"red": 0.0, 5: 1.0}, N, clip.concepts).latents == (1, 5)
    with pytest.raises(ValueError, match=r"'rod'.*'red'"):
        with clip.edit({"rod": 0.0}):
            pass
    with pytest.raises(ValueError, match=r"latent 1 .*'red'"):
        LatentEdit.of({1: 0.0, "red": 0.0}, N, clip.concepts)


def test_edits_that_cannot_be_are_refused(clip):
    for edits, mode, message in (
        ({N: 0.0}, "scale", "numbers from 0 to 63, or names; got 64"),
        ({-1: 0.0}, "scale", "got -1"),
        ({True: 0.0}, "scale", "got True"),
        ({"red": 0.0}, "scale", "'red'.*have none"),
        ({0: float("nan")}, "set", "the value for 0 is nan"),
        ({0: 1e300}, "set", "the value for 0 is 1e.300.*finite"),
        ({0: 1.0}, "multiply", "multiply.*scale, set, add"),
        ({}, "scale", "nothing to edit"),
        (["red"], "scale", r"edits must map latents or names to values, as \{'red': 0.5\}; got \['red'\]"),
        ("red", "scale", "edits must map .*; got 'red'"),
        ({0: None}, "set", "the value for 0 is None"),
        ({0: torch.ones(2)}, "set", r"the value for 0 is tensor\(\[1., 1.\]\)"),
    ):
        with pytest.raises(ValueError, match=message), clip.edit(edits, mode):
            pass


def test_edits_may_be_a_series(clip):
    assert LatentEdit.of(pd.Series([0.5, 2], index=[3, "#4"]), N) == LatentEdit((3, 4), (0.5, 2.0))
    with pytest.raises(ValueError, match="latent 3 is given twice"):
        LatentEdit.of(pd.Series([0.5, 2], index=[3, 3]), N)


def test_a_copy_made_while_edited_is_edited_as_long(folders):
    backbone = Backbone.from_pretrained(folders["CLIPModel"])  # transformers' own hooks, once used, are not pickled
    clip = VisionTextMSAE(backbone, an_msae(backbone))
    embeds = clip.image_embeds(pictures())
    latent = int(clip.image_latents(pictures()).sum(0).argmax())
    with clip.edit({latent: 0.0}):
        edited, copied = clip.image_embeds(pictures()), copy.deepcopy(clip)
        torch.testing.assert_close(copied.image_embeds(pictures()), edited)
        assert not torch.allclose(edited, embeds, atol=1e-3)
        with pytest.raises(pickle.PicklingError, match=r"edited .*: pickle it outside of the `with` block"):
            pickle.dumps(clip.backbone.model)
    with clip.edit({latent: 0.0}):
        torch.testing.assert_close(copied.image_embeds(pictures()), embeds)
        with copied.edit({latent: 0.0}):
            torch.testing.assert_close(copied.image_embeds(pictures()), edited)
    pickle.dumps(clip.backbone.model)
    copied.backbone.model = pickle.loads(pickle.dumps(copied.backbone.model))
    torch.testing.assert_close(copied.image_embeds(pictures()), embeds)


def test_editing_red_down_makes_red_less_likely_and_nothing_else():
    """The scenes' SigLIP end to end: a dictionary of its own text directions, so that latent 0 is red."""
    from hf_msae.scenes import load_scenes

    backbone = Backbone.from_pretrained("scenes")
    colours = ["red", "yellow", "green", "blue", "white"]
    texts = torch.nn.functional.normalize(backbone.text_embeds([f"a {colour} shape" for colour in colours]), dim=-1)
    scenes = load_scenes("test", 120)
    red = [i for i in range(120) if scenes[i]["red"] and scenes[i]["one"]]
    assert len(red) >= 3
    pictures = [scenes[i]["image"] for i in red]
    embeds = backbone.image_embeds([scenes[i]["image"] for i in range(30)])
    # The part of each colour's text that the others do not share, as encoder and decoder.
    directions = torch.nn.functional.normalize(torch.linalg.pinv(texts - texts.mean(0)).T, dim=-1)
    msae = MSAEModel(MSAEConfig(d_in=texts.shape[1], num_latents=5, nesting_ks=[5]))
    with torch.no_grad():
        msae.decoder.copy_(directions)
        msae.encoder.copy_(directions.T)
    msae.set_input_statistics(embeds.mean(0), 1.0)
    model = VisionTextMSAE(backbone, msae, table(*colours))

    def likelihoods():
        images = torch.nn.functional.normalize(model.image_embeds(pictures), dim=-1)
        return images @ texts.T

    before = likelihoods()
    assert (before.argmax(1) == 0).float().mean() > 0.9
    with model.edit({"red": 0.0}):
        after = likelihoods()
    assert (after[:, 0] < before[:, 0] - 0.05).all()
    lost = before - after
    assert (lost[:, 1:].abs().mean(0) < 0.5 * lost[:, 0].mean()).all()
    assert torch.equal(likelihoods(), before)
