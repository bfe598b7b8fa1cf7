"""What all tabs share: settings, the explorer itself, bars, and errors that become messages."""

import logging
import re

import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae.explorer import Explorer, ExplorerSettings, VisitorError
from hf_msae.explorer.bars import Bar, bars


def test_settings_come_from_the_environment():
    assert ExplorerSettings.from_environment({}) == ExplorerSettings()
    assert ExplorerSettings().patch_model == "scenes-patches"
    found = ExplorerSettings.from_environment({"MSAE_MODEL": "user/msae", "MSAE_MAX_IMAGES": "50", "MSAE_SPLIT": ""})
    assert (found.model, found.max_images, found.split, found.patch_model) == ("user/msae", 50, None, None)
    with pytest.raises(ValueError, match="MSAE_MAX_IMAGES='many' is no number"):
        ExplorerSettings.from_environment({"MSAE_MAX_IMAGES": "many"})


def test_concepts_are_the_best_latents_of_validated_names(explorer):
    table = explorer.model.concepts.validated()
    assert list(explorer.concepts) == sorted(set(table["name"]))
    for name, concept in explorer.concepts.items():
        assert concept.validated and concept.latent == table[table["name"] == name]["latent"].iloc[0]
        assert explorer.latent_of(name) == concept.latent == explorer.latent_of(f"latent {concept.latent}")


@pytest.mark.parametrize("bad", ["no such concept", "", "9" * 5000, "latent 99999", "latent -1", None, 5, ["star"]])
def test_a_concept_that_is_none_is_refused(explorer, bad):
    with pytest.raises(VisitorError, match="no such concept"):
        explorer.latent_of(bad)


def test_codes_are_the_models_and_the_strongest_rows_are(explorer):
    latent = explorer.latent_of("star")
    expected = explorer.msae.encode(explorer.acts[:]).detach()[:, latent].numpy()
    np.testing.assert_allclose(explorer.codes[:, latent], expected, rtol=1e-5, atol=1e-6)
    rows = explorer.strongest(latent, 5)
    assert [expected[row] for row in rows] == sorted(expected, reverse=True)[:5]
    silent = int(np.flatnonzero((explorer.codes == 0).all(axis=0))[0])
    assert explorer.strongest(silent, 5) == []


def test_a_picture_of_the_collection_has_the_embedding_that_it_has_there(explorer):
    torch.testing.assert_close(explorer.embed_picture(explorer.picture(7)), explorer.acts[7], rtol=1e-4, atol=1e-4)


def test_thumbnails_lie_in_its_own_folder_and_are_made_once(explorer):
    path = explorer.thumbnail(3)
    assert path == explorer.thumbnail(3) and path.startswith(str(explorer.folder)) and explorer.caption(3)


def test_a_model_of_tokens_and_other_numbers_of_pictures_are_refused(explorer):
    with pytest.raises(ValueError, match=r"shows MSAEs of image_embeds, but this one is of vision\.layers\.2"):
        Explorer(explorer.patch_model, explorer.images, explorer.acts[:])
    with pytest.raises(ValueError, match="200 pictures, but 199 embeddings"):
        Explorer(explorer.model, explorer.images, explorer.acts[:199])


def test_without_names_latents_are_chosen_by_number(explorer):
    torch.manual_seed(0)
    msae = MSAEModel(MSAEConfig(d_in=128, num_latents=64, base_model_name_or_path="hf_msae/scenes-siglip"))
    found = Explorer(VisionTextMSAE(explorer.model.backbone, msae), explorer.images, explorer.acts[:])
    name, concept = next(iter(found.concepts.items()))
    assert name == f"latent {concept.latent}" and not concept.validated


def test_bars_are_escaped_and_as_long_as_their_values():
    text = bars([Bar("<b>x</b>", 2), Bar("y", 1, "one", "no'te", muted=True)], "a & b")
    assert "<b>" not in text and "&lt;b&gt;x" in text and "a &amp; b" in text and "no&#x27;te" in text
    assert re.findall(r"width:([\d.]+)%", text) == ["100.00", "50.00"]
    signed = bars([Bar("a", -2), Bar("b", 1)], "signed")
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", signed) == [("0.00", "50.00"), ("50.00", "25.00")]
    assert "nothing to show" in bars([], "empty") and bars([Bar("zero", 0)], "zeros")


def test_errors_become_messages_and_the_log_keeps_to_kind_and_place(caplog):
    gradio = pytest.importorskip("gradio")
    from hf_msae.explorer.app import answering

    @answering
    def fails(kind, text):
        raise kind(text)

    with caplog.at_level(logging.DEBUG):
        with pytest.raises(gradio.Error, match="Choose a star"):
            fails(VisitorError, "Choose a star")
        assert not caplog.records
        with pytest.raises(gradio.Error, match="Something went wrong") as caught:
            fails(RuntimeError, "a secret")
    assert "secret" not in str(caught.value) and "secret" not in caplog.text
    assert re.search(r"RuntimeError at test_explorer_core\.py:\d+", caplog.text)


def test_loading_that_fails_is_told_to_whoever_asks():
    pytest.importorskip("gradio")
    from hf_msae.explorer.app import Loading

    def load():
        raise OSError("there is no such model")

    loading = Loading(load)
    for _ in range(2):
        with pytest.raises(VisitorError, match="could not be loaded") as caught:
            loading.get()
        assert "no such model" in str(caught.value.__cause__)
    assert not loading.is_done


def test_no_more_answers_are_computed_at_a_time_than_there_are_slots():
    pytest.importorskip("gradio")
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    from hf_msae.explorer.app import CONCURRENCY, answering

    running, most, lock = 0, 0, threading.Lock()

    def ask():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    questions = [answering(ask) for _ in range(8)]  # of different kinds
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda question: question(), questions * 3))
    assert most == CONCURRENCY


def test_embeddings_of_another_number_of_pictures_are_refused(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((61, 128), dtype=np.float32))
    settings = ExplorerSettings(dataset="scenes:test:60:7", embeddings=str(tmp_path / "e.npy"))
    with pytest.raises(ValueError, match="has 61 embeddings, but scenes:test:60:7 has 60 pictures"):
        Explorer.load(settings)
