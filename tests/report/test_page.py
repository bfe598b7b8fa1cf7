"""The page as a whole: it escapes, needs nothing from outside, is the same twice, and says what it refuses."""

import base64
import datetime
import hashlib
import io
import itertools
import re
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from hf_msae import MSAEModel, VisionTextMSAE
from hf_msae.embeddings import load_embeddings
from hf_msae.report import page as page_module
from hf_msae.report import write_report
from tests.identity_msae import identity_msae
from tests.report.conftest import QUICK, ROWS, WIDTH, K, names
from tests.report.page_reader import Page, tiles_of

HOSTILE = "<script>alert(1)</script>\"'&"


def test_nothing_is_asked_of_the_network(page):
    root = page.root
    every = root.all()
    for element in every:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{element.tag} has the handler {name}"
            if name in ("src", "srcset", "poster", "data", "action", "formaction", "background"):
                assert value.startswith("data:"), f"{element.tag} {name}={value[:60]}"
            if name in ("href", "xlink:href"):
                assert value.startswith("#")
    assert not root.all("link") and not root.all("iframe") and not root.all("base") and not root.all("object")
    styles = "".join(style.text for style in root.all("style")) + "".join(
        element.attributes.get("style", "") for element in every
    )
    assert "@import" not in styles and set(re.findall(r"url\((.{5})", styles)) == {"data:"}
    assert not re.search(r"https?://|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.source), re.IGNORECASE)


def test_only_the_pages_own_script_may_run(page):
    (script,) = page.root.all("script")
    policy = page.root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    digest = base64.b64encode(hashlib.sha256("".join(script.children).encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    assert f"script-src 'sha256-{digest}'" in policy


def test_headings_anchors_and_names_for_who_cannot_see(page):
    root = page.root
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    assert len(root.all("h1")) == 1 and root.one("html").attributes["lang"] == "en"
    links = [link.attributes["href"] for link in root.one("nav").all("a")]
    assert links == [f"#{section.attributes['id']}" for section in root.one("main").all("section")] and len(links) == 8
    assert {link.attributes["href"][1:] for link in root.all("a")} <= set(ids)
    levels = [int(element.tag[1]) for element in root.all() if re.fullmatch("h[1-6]", element.tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), "no level is skipped"
    for image in root.all("img") + [e for e in root.all() if e.attributes.get("role") == "img"]:
        assert len(image.attributes.get("alt") or image.attributes["aria-label"]) > 10
    for label in (e.attributes.get("aria-labelledby") for e in root.all()):
        assert label is None or label in ids
    scrolling = [e for e in root.all() if {"scroll", "drawing"} & set(e.classes)]
    assert scrolling and all(e.attributes["tabindex"] == "0" for e in scrolling), "reached by the keyboard"


def test_the_head_says_what_it_is_about(page, world, write):
    facts = page.root.one("dl", of_class="facts").definitions
    assert facts["Backbone"] == world.model.backbone.name_or_path
    assert facts["Hook point"] == f"image_embeds, {WIDTH} numbers each"
    assert facts["Embeddings"] == f"{world.embeddings.source}, {ROWS} rows"
    assert datetime.date.today().isoformat() in facts["Made"] and "torch 2" in facts["Made"]
    assert page.root.one("h1").text == f"MSAE of {world.model.backbone.name_or_path}"
    saved = identity_msae(WIDTH, [4, WIDTH])
    saved.config._name_or_path = saved.name_or_path = "some/folder/my-msae"
    assert write(VisionTextMSAE(world.model.backbone, saved)).root.one("h1").text == "my-msae"


def test_each_picture_is_there_once_and_small(page, written):
    pictures = page.pictures  # asserts that no class is there twice
    used = {name for e in page.root.all("span", of_class="pic") for name in e.classes if name != "pic"}
    assert used == set(pictures) and len(page.root.all("li", of_class="tile")) > len(used) > 60
    assert {picture.size for picture in pictures.values()} == {(160, 80)}
    assert written.stat().st_size < 1_000_000


def test_markup_in_names_paths_and_columns_is_text(world, tmp_path, no_figure):
    table = names()
    table.frame.loc[:, "name"] = HOSTILE
    table.frame.loc[:, "runner_up"] = HOSTILE
    rows = datasets.Dataset.from_dict(
        {"image_embeds": world.values.tolist(), HOSTILE: [i % 2 == 0 for i in range(ROWS)]}
    )
    rows.save_to_disk(tmp_path / "<img src=x onerror=alert(1)>")
    embeddings = load_embeddings(tmp_path / "<img src=x onerror=alert(1)>", "image_embeds")
    report = world.bias[0]
    report = replace(report, target=HOSTILE, frame=report.frame.assign(name=HOSTILE))
    path = write_report(
        tmp_path / "report.html", VisionTextMSAE(world.model.backbone, world.model.msae, table), embeddings,
        world.images.rename_column("image", HOSTILE), HOSTILE, [report], command=HOSTILE,
        **{**QUICK, "num_concepts": 2, "num_searches": 1, "num_explained": 1, "metrics": world.metrics},
    )  # fmt: skip
    page = Page(path)
    assert len(page.root.all("script")) == 1 and page.source.count("<script") == 1
    assert not [e for e in page.root.all("img") if not e.attributes["src"].startswith("data:")]
    card = page.root.one("article", of_class="card")
    assert card.one("h3").text == HOSTILE and card.attributes["data-name"] == f"{HOSTILE} 0"
    assert f"next: {HOSTILE}" in card.text and page.root.one("pre").text == HOSTILE
    assert "<img src=x onerror=alert(1)>" in page.root.one("dl", of_class="facts").text
    assert page.section("bias").one("h3").text == HOSTILE and HOSTILE in page.section("bias").one("tbody").text


@pytest.mark.slow
def test_the_same_arguments_give_the_same_bytes(world, written, tmp_path):
    again = write_report(
        tmp_path / "again.html", world.model, world.embeddings, world.images, bias=world.bias[0], k=K, progress=False
    )
    assert again.read_bytes() == written.read_bytes()


def test_the_date_is_told_the_seed_counts_and_a_page_is_replaced(world, no_figure, tmp_path, monkeypatch):
    class Tomorrow(datetime.date):
        @classmethod
        def today(cls):
            return cls(2031, 2, 3)

    monkeypatch.setattr(page_module.datetime, "date", Tomorrow)
    path = tmp_path / "new" / "folder" / "page.HTM"
    quick = {**QUICK, "num_concepts": 3, "num_explained": 2, "num_searches": 2, "metrics": world.metrics}
    pages = []
    for seed in (0, 1):
        assert write_report(str(path), world.model, world.embeddings, **quick, seed=seed) == path
        pages.append(Page(path))
    assert [each.name for each in path.parent.iterdir()] == ["page.HTM"]
    one, other = pages
    assert "2031-02-03" in one.source
    for section in ("explained", "searches"):
        assert tiles_of(one.section(section)) != tiles_of(other.section(section)), section
    (top, middle), (same_top, other_middle) = (map(tiles_of, each.card(0).all("ul")) for each in pages)
    assert middle != other_middle and top == same_top, "the strongest do not depend on the seed"


def test_rows_are_encoded_once(write, monkeypatch):
    encoded = []
    full_code = MSAEModel.full_code

    def counting(msae, x, *args, **kwargs):
        encoded.append(len(x))
        return full_code(msae, x, *args, **kwargs)

    monkeypatch.setattr(MSAEModel, "full_code", counting)
    write(metrics=None, num_concepts=3, num_searches=2, num_explained=1)
    # The examples, and the rows by which an index is checked to be that of the embeddings, are encoded on their own.
    assert ROWS <= sum(encoded) < 1.5 * ROWS


def test_how_to_make_it_again(write, world):
    text = write(seed=7).root.one("pre").text
    for setting in ("num_concepts=0", "seed=7", f"k={K}", str(world.embeddings.source)):
        assert setting in text


def test_a_page_without_pictures_or_sections(write, world):
    page = write(num_concepts=3, num_searches=1, num_explained=1)
    assert not page.pictures and page.root.all("span", of_class="none")
    assert list(tiles_of(page.card(0)))[:2] == np.argsort(-world.values[:, 0], kind="stable")[:2].tolist()
    page = write()
    for section in ("concepts", "explained", "searches"):
        assert page.section(section).all("p") and not page.section(section).all("article")
    assert not page.root.all("form") and not page.root.all("li", of_class="tile")
    page = write(num_concepts=2, images_per_concept=0)
    assert len(page.root.all(of_class="card")) == 2 and not page.root.all("li", of_class="tile")


def encoded(picture):
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    return stored.getvalue()


@pytest.mark.parametrize("stored", ["bytes", "path", "record", "view"])
def test_pictures_may_be_bytes_or_paths(write, tmp_path, stored):
    picture, path = Image.new("RGB", (30, 30), (10, 200, 30)), tmp_path / "one.png"
    picture.save(path)
    one = {"path": str(path), "record": {"bytes": encoded(picture)}}.get(stored, encoded(picture))
    column = pa.array([one] * ROWS, pa.binary_view() if stored == "view" else None)
    images = datasets.Dataset(pa.table({"seen": column}))
    page = write(images=images, image_column="seen", num_explained=1)
    (thumbnail,) = page.pictures.values()
    assert thumbnail.size == (150, 150) and np.abs(np.asarray(thumbnail).mean(axis=(0, 1)) - (10, 200, 30)).max() < 8


@pytest.mark.parametrize("broken", [b"no picture", None])
def test_a_bad_picture_is_named_and_the_old_page_stays(world, write, tmp_path, broken):
    path = tmp_path / "report.html"
    path.write_text("the page before")
    stored = [{"bytes": encoded(Image.new("RGB", (8, 8))), "path": None}] * ROWS
    row = int(np.argmax(world.values[:, 0]))
    stored[row] = None if broken is None else {"bytes": broken, "path": None}
    images = datasets.Dataset.from_dict({"image": stored}).cast_column("image", datasets.Image())
    with pytest.raises(ValueError, match=f"row {row} .*'image'"):
        write(images=images, num_concepts=1)
    assert path.read_text() == "the page before" and [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_what_is_refused_before_any_work(world, tmp_path, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("work was done first")

    for name in ("survey", "findings_of", "render_page"):
        monkeypatch.setattr(page_module, name, work)
    layer = identity_msae(32, [32])
    layer.config.hook_point = "vision.layers.1"
    texts = load_embeddings(np.ones((3, WIDTH), np.float32))
    texts.provenance["hook_point"] = "text_embeds"
    images = world.images
    for wrong, error, named in (
        ({"path": tmp_path}, ValueError, f"{tmp_path}.*report.html"),
        ({"path": tmp_path / "report.pdf"}, ValueError, r"report\.pdf .*report\.html"),
        ({"model": VisionTextMSAE(world.model.backbone, layer)}, ValueError, r"vision\.layers\.1.*image_embeds"),
        ({"embeddings": world.values}, TypeError, "load_embeddings.*ndarray"),
        ({"embeddings": load_embeddings(np.ones((4, 9), np.float32))}, ValueError, f"9 columns.*{WIDTH}"),
        ({"embeddings": texts}, ValueError, "text_embeds.*image_embeds"),
        ({"images": images.select(range(5))}, ValueError, f"5 rows.* {ROWS} embeddings"),
        ({"images": [1] * ROWS}, TypeError, "images.*Dataset.*list"),
        ({"bias": [1]}, TypeError, "bias.*BiasReport.*int"),
        ({"steering": {}}, TypeError, "steering.*SwordBenchResult.*dict"),
        ({"images": images, "image_column": "img"}, ValueError, "'img'.*image"),
        ({"images": images, "image_column": "n0"}, ValueError, "'n0'.*bool"),
        ({"metrics": {"fvu": 0.1}}, ValueError, "metrics.*by_k"),
        ({"metrics": "metrics.json"}, ValueError, "metrics.*by_k.*to_dict of an EvaluationResult"),
        ({"metrics": {**world.metrics, "model_sha256": "0" * 64}}, ValueError, "metrics.*000000"),
        ({"k": 0}, ValueError, f"k .*{WIDTH}.*0"),
        ({"k": WIDTH + 1}, ValueError, f"k .*{WIDTH}.*{WIDTH + 1}"),
        *(
            ({name: -1}, ValueError, f"{name}.*-1")
            for name in ("num_concepts", "images_per_concept", "num_searches", "num_explained", "seed")
        ),
    ):
        given = {"path": tmp_path / "report.html", "model": world.model, "embeddings": world.embeddings, **QUICK}
        with pytest.raises(error, match=named):
            write_report(**given | wrong)
    assert not list(tmp_path.iterdir())
