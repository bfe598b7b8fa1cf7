"""What all tabs share: settings, the explorer itself, and bars."""

import json
import re
import urllib.request

import datasets
import numpy as np
import pytest
import torch

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae._utils.cache import cache_folder
from hf_msae._utils.images import to_rgb
from hf_msae.cli.demo import ServerArguments
from hf_msae.cli.extract import main as extract_main
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import EmbeddingWriter
from hf_msae.explorer import Explorer, ExplorerSettings, VisitorError
from hf_msae.explorer.components.bars import Bar, bars
from hf_msae.explorer.sources import open_sources
from hf_msae.hub.reading.opening import concept_files
from tests.explorer.serving import QUIET_DEMO, serving


def test_settings_come_from_the_environment():
    assert ExplorerSettings.from_environment({}) == ExplorerSettings()
    assert ExplorerSettings().patch_model == "scenes-patches"
    assert ExplorerSettings(model="clipart-image").dataset == "clipart:sample"
    assert ExplorerSettings(model="clipart-image", dataset="clipart:test").dataset == "clipart:test"
    assert ExplorerSettings().chosen() == {}
    given = {"edits": "outputs/edits", "swordbench": "outputs/swordbench"}
    variables = {f"MSAE_{name.upper()}": value for name, value in given.items()}
    assert ExplorerSettings(**given).chosen() == ExplorerSettings.from_environment(variables).chosen() == given
    found = ExplorerSettings.from_environment({"MSAE_MODEL": "user/msae", "MSAE_MAX_IMAGES": "50", "MSAE_SPLIT": ""})
    assert (found.model, found.max_images, found.split, found.patch_model) == ("user/msae", 50, None, None)
    found = ExplorerSettings.from_environment({"MSAE_VERIFY": "False", "MSAE_ALLOW_OTHER_BACKBONE": "1"})
    assert (found.verify, found.allow_other_backbone) == (False, True)
    assert ExplorerSettings().verify and not ExplorerSettings().allow_other_backbone
    with pytest.raises(ValueError, match=r"MSAE_VERIFY.*off"):
        ExplorerSettings.from_environment({"MSAE_VERIFY": "off"})
    with pytest.raises(ValueError, match=r"MSAE_MAX_IMAGES.*many"):
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
    expected = explorer.msae.encode(explorer.embeddings[:]).detach()[:, latent].numpy()
    np.testing.assert_allclose(explorer.codes[:, latent], expected, rtol=1e-5, atol=1e-6)
    rows = explorer.strongest(latent, 5)
    assert [expected[row] for row in rows] == sorted(expected, reverse=True)[:5]
    silent = int(np.flatnonzero((explorer.codes == 0).all(axis=0))[0])
    assert explorer.strongest(silent, 5) == []


def test_a_picture_of_the_collection_has_the_embedding_that_it_has_there(explorer):
    torch.testing.assert_close(
        explorer.embed_picture(explorer.picture(7)), explorer.embeddings[7], rtol=1e-4, atol=1e-4
    )


def test_other_columns_of_pictures_are_not_decoded(explorer, tmp_path):
    damaged = [{"bytes": b"no picture", "path": None}] * 2
    images = explorer.images.select(range(2)).select_columns(["image"]).add_column("mask", damaged)
    images.cast_column("mask", datasets.Image()).save_to_disk(tmp_path / "pictures")
    found = Explorer.load(ExplorerSettings(dataset=str(tmp_path / "pictures")))
    assert found.picture(1).tobytes() == explorer.picture(1).tobytes()


def test_thumbnails_lie_in_its_own_folder_and_are_made_once(explorer):
    path = explorer.thumbnail(3)
    assert path == explorer.thumbnail(3) and path.startswith(str(explorer.folder)) and explorer.caption(3)


def test_a_model_of_tokens_and_other_numbers_of_pictures_are_refused(explorer):
    with pytest.raises(ValueError, match=r"image_embeds.*vision\.layers\.2"):
        Explorer(explorer.patch_model, explorer.images, explorer.embeddings[:])
    with pytest.raises(ValueError, match=r"200.*199"):
        Explorer(explorer.model, explorer.images, explorer.embeddings[:199])
    with pytest.raises(ValueError, match=r"have 64 columns .* trained on 128"):
        Explorer(explorer.model, explorer.images, np.zeros((200, 64)))


def test_embeddings_are_anything_that_can_be_opened(explorer, tmp_path):
    np.save(tmp_path / "embeddings.npy", explorer.embeddings[:3].numpy())
    for given in (np.load(tmp_path / "embeddings.npy"), tmp_path / "embeddings.npy"):
        found = Explorer(explorer.model, explorer.images.select(range(3)), given)
        assert (
            found.embeddings[:].equal(explorer.embeddings[:3])
            and found.index.by_embedding(found.embeddings[2]).row[0] == 2
        )


def test_without_names_latents_are_chosen_by_number(explorer):
    torch.manual_seed(0)
    msae = MSAEModel(MSAEConfig(d_in=128, num_latents=64, base_model_name_or_path="hf_msae/scenes-siglip"))
    found = Explorer(VisionTextMSAE(explorer.model.backbone, msae), explorer.images, explorer.embeddings[:])
    name, concept = next(iter(found.concepts.items()))
    assert name == f"latent {concept.latent}" and not concept.validated


def test_bars_are_escaped_and_as_long_as_their_values():
    text = bars([Bar("<b>x</b>", 2), Bar("y", 1, "one", "no'te", muted=True)], "a & b")
    assert "<b>" not in text and "&lt;b&gt;x" in text and "a &amp; b" in text and "no&#39;te" in text
    assert re.findall(r"width:([\d.]+)%", text) == ["100.00", "50.00"]
    signed = bars([Bar("a", -2), Bar("b", 1)], "signed")
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", signed) == [("0.00", "66.67"), ("66.67", "33.33")]
    assert "<table" not in bars([], "empty") and "<table" in bars([Bar("zero", 0)], "zeros")


def test_damaged_embeddings_are_refused_unless_they_are_wanted(tmp_path):
    with EmbeddingWriter(tmp_path / "embeddings", {"image_embeds": 128}) as writer:
        writer.write({"image_embeds": np.random.default_rng(0).normal(size=(60, 128)).astype(np.float32)})
    shard = tmp_path / "embeddings" / "data-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    given = {
        "dataset": "scenes:test:60:7",
        "embeddings": str(tmp_path / "embeddings"),
        "patch_model": "scenes-patches",
    }
    with pytest.raises(ValueError, match=r"data-00000\.arrow has changed.*--no_verify"):
        open_sources(ExplorerSettings(**given), lambda *_: None)
    assert open_sources(ExplorerSettings(**given, verify=False), lambda *_: None)["embeddings"].shape == (60, 128)


def test_embeddings_name_their_pictures_and_which_rows_of_them(explorer, tmp_path):
    folder = tmp_path / "trial"
    extract_main(["--backbone", "scenes", "--dataset", "scenes:test:50:7", "--max_rows", "20", "--output_dir",
                  str(folder), "--disable_tqdm", "--use_cpu"])  # fmt: skip
    rows = [50 * place // 20 for place in range(20)]
    for dataset in (None, "scenes:test:50:7"):
        settings = ExplorerSettings(dataset=dataset, embeddings=str(folder))
        sources = open_sources(settings, lambda *_: None)
        images, embeddings = sources["images"], sources["embeddings"]
        assert images["caption"][:] == [explorer.images["caption"][row] for row in rows]
        torch.testing.assert_close(embeddings, explorer.embeddings[rows], rtol=1e-4, atol=1e-4)
        assert sources["index_folder"].is_relative_to(cache_folder("indexes"))
    some = open_sources(ExplorerSettings(embeddings=str(folder), max_images=10), lambda *_: None)
    assert len(some["images"]) == 10 and some["index_folder"] is None  # the one of all rows is another


def test_embeddings_name_the_column_of_their_pictures(explorer, tmp_path):
    scenes = explorer.images.select(range(6)).select_columns("image")
    both = scenes.add_column("jpg", scenes.select([3, 4, 5, 0, 1, 2])["image"][:], feature=scenes.features["image"])
    for name, images in {"both": both, "one": both.remove_columns("image")}.items():
        images.save_to_disk(tmp_path / name)
        metadata = {"dataset": str(tmp_path / name), "image_column": "jpg"}
        with EmbeddingWriter(tmp_path / f"of {name}", {"image_embeds": 128}, metadata=metadata) as writer:
            writer.write({"image_embeds": explorer.embeddings[[3, 4, 5, 0, 1, 2]]})
        given = {"embeddings": str(tmp_path / f"of {name}")}
        shown = open_sources(ExplorerSettings(**given), lambda *_: None)
        picture = to_rgb(shown["images"][0][shown["image_column"]])
        assert picture.tobytes() == explorer.picture(3).tobytes()
    with pytest.raises(ValueError, match=r"no column 'image', only jpg.*--image_column"):
        open_sources(ExplorerSettings(**given, image_column="image"), lambda *_: None)


def test_an_index_is_kept_until_the_embeddings_are_others(explorer, tmp_path, monkeypatch, caplog):
    model, images, embeddings, kept = explorer.model, explorer.images, explorer.embeddings[:], tmp_path / "index"
    first = Explorer(model, images, embeddings, index_folder=kept)
    assert first.index.folder == kept and len(first.index) == len(images)
    monkeypatch.setattr("hf_msae.search.index.collect_codes", None)  # which encodes rows
    second = Explorer(model, images, embeddings, index_folder=kept)
    assert second.index.folder == kept and second.index.code(7).equals(explorer.index.code(7))
    monkeypatch.undo()
    other = Explorer(model, images, embeddings.flip(0), index_folder=kept)
    assert other.index.folder == kept and str(kept) in caplog.text
    assert other.index.code(0)["latent"].tolist() == explorer.index.code(len(images) - 1)["latent"].tolist()


def test_a_folder_of_something_else_is_not_replaced_by_an_index(explorer, tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("mine")
    other = Explorer(explorer.model, explorer.images, explorer.embeddings[:], index_folder=tmp_path)
    assert other.index.folder.parent == other.folder and str(tmp_path) in caplog.text
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_pictures_have_to_be_named_unless_the_package_has_some(tmp_path):
    config = {"d_in": 192, "num_latents": 64, "base_model_name_or_path": "hf_msae/clipart-siglip"}
    MSAEModel(MSAEConfig(**config)).save_pretrained(tmp_path / "msae")
    with pytest.raises(ValueError, match=rf"{tmp_path / 'msae'}.*--dataset.*--embeddings"):
        open_sources(ExplorerSettings(model=str(tmp_path / "msae")), lambda *_: None)


def test_embeddings_of_another_number_of_pictures_are_refused(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((61, 128), dtype=np.float32))
    settings = ExplorerSettings(dataset="scenes:test:60:7", embeddings=str(tmp_path / "e.npy"))
    with pytest.raises(ValueError, match=r"scenes:test:60:7.*60.*61"):
        Explorer.load(settings)


def test_another_table_of_names(tmp_path):
    model = MSAEModel.from_released("scenes-image")
    model.save_pretrained(tmp_path / "msae")
    (tmp_path / "msae" / "concepts").mkdir()
    for name in ("first", "second"):
        names = [f"{name} {latent}" for latent in range(model.config.num_latents)]
        frame = ConceptTable.load(concept_files("scenes-image")[0]).frame.assign(name=names)
        ConceptTable(frame).save(tmp_path / "msae" / "concepts" / f"{name}.parquet")
    given = {"model": str(tmp_path / "msae"), "dataset": "scenes:test:20:7"}
    found = Explorer.load(ExplorerSettings(**given, concepts="second")).model.concepts
    assert found.frame["name"][3] == "second 3"
    with pytest.raises(FileNotFoundError, match=r"third.*first, second"):
        Explorer.load(ExplorerSettings(**given, concepts="third"))


def test_columns_are_explained_before_anybody_asks_while_nobody_does(explorer, monkeypatch):
    app = pytest.importorskip("hf_msae.explorer.app")
    from hf_msae.explorer.answers import answering, idle_seconds
    from hf_msae.explorer.tabs.bias import answer as driving

    asked = []

    def bias(explorer, target):
        assert not asked or idle_seconds() >= app._PAUSE
        asked.append(target.column)
        if len(asked) % 10 == 1:
            answering(len)("")  # somebody asks about the first one already
            assert idle_seconds() < app._PAUSE
        if target.column == "red":
            raise VisitorError("there is nothing to explain")

    monkeypatch.setattr(app, "bias", bias)
    monkeypatch.setattr(app, "MAX_WARM", 30)
    monkeypatch.setattr(app, "_PAUSE", 0.2)
    app.warm_up(explorer)
    assert asked[0] == driving.first_to_ask(explorer) and "red" in asked[:-1]
    assert len(asked) == len(set(asked)) == 30 and set(asked) <= set(driving.usable_columns(explorer))


def must_not_embed(monkeypatch):
    def image_embeds(*_, **__):
        pytest.fail("pictures were embedded before all was looked at")

    monkeypatch.setattr(VisionTextMSAE, "image_embeds", image_embeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "scenes-patches"}, r"image_embeds.*vision\.layers"),
        ({"patch_model": "scenes-image"}, r"patch_model.*vision\.layers.*image_embeds"),
        ({"patch_model": "no/such"}, "no/such"),
        ({"image_column": "pictures"}, "pictures.*image.*--image_column"),
        ({"image_column": "caption"}, "caption.*scenes:test:20:7"),
        ({"dataset": "scenes:test:1:7"}, "scenes:test:1:7.* 1 "),
    ],
)
def test_what_does_not_fit_is_found_before_pictures_are_embedded(monkeypatch, settings, message):
    must_not_embed(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ValueError, OSError), match=message):
        Explorer.load(ExplorerSettings(**{"dataset": "scenes:test:20:7", **settings}))


def test_an_msae_of_another_width_is_refused_before_pictures_are_embedded(monkeypatch, tmp_path):
    must_not_embed(monkeypatch)
    base = VisionTextMSAE.from_pretrained("scenes-image").msae.config
    config = MSAEConfig(d_in=8, num_latents=16, base_model_name_or_path=base.base_model_name_or_path)
    MSAEModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"8.*128|128.*8"):
        Explorer.load(ExplorerSettings(model=str(tmp_path), dataset="scenes:test:20:7"))


def test_a_table_without_pictures_is_refused_with_what_it_has(monkeypatch, tmp_path):
    must_not_embed(monkeypatch)
    (tmp_path / "table.csv").write_text("caption,number\na,1\nb,2\n")
    with pytest.raises(ValueError, match=r"image.*caption, number"):
        Explorer.load(ExplorerSettings(dataset=str(tmp_path)))


def test_a_root_path_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match=r"root_path.*'concepts'"):
        ServerArguments(root_path="concepts")


@pytest.mark.slow
def test_behind_a_proxy_the_page_asks_under_its_root_path(tmp_path):
    pytest.importorskip("gradio")
    with serving(tmp_path, "scenes:test:60:7", "--root_path", "/concepts", program=QUIET_DEMO) as served:
        asked = urllib.request.Request(f"{served.url}/config", headers={"X-Forwarded-Host": "example.org"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["root"] == "http://example.org/concepts"


def test_an_address_that_cannot_be_listened_on_is_refused_at_once():
    import socket

    from hf_msae.cli.demo import check_address

    check_address("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1.*{port}.*--port 0"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        check_address("192.0.2.1", 0)


def test_tools_without_their_package_are_refused_with_the_way_out(monkeypatch):
    pytest.importorskip("gradio")
    from hf_msae.explorer import page

    monkeypatch.setattr(page, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"hf_msae\[mcp\]"):
        page.Page().launch(mcp_server=True)
