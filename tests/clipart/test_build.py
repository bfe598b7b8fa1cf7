import io
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.clipart import SPLITS, load_clipart
from hf_msae.clipart.build import assign_splits, build_clipart, distinct, download, main, same_hands
from hf_msae.clipart.drawing import read_drawing, render_drawing

pytest.importorskip("resvg_py")

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="100mm" viewBox="0 0 100 100">
<metadata><rdf:RDF xmlns:rdf="r#" xmlns:dc="d#" xmlns:cc="c#"><cc:Work><dc:title>{title}</dc:title>
<dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator>
<dc:subject><rdf:Bag>{tags}</rdf:Bag></dc:subject><cc:license rdf:resource="{license}"/>
</cc:Work></rdf:RDF></metadata>{shapes}</svg>"""
RED_BOX = '<rect x="10" y="20" width="10" height="20" fill="red"/>'


def svg(title="Box", author="Ann", tags=("box",), license="http://x/PublicDomain", shapes=RED_BOX, width=100) -> str:
    items = "".join(f"<rdf:li>{tag}</rdf:li>" for tag in tags)
    return SVG.format(title=title, author=author, tags=items, license=license, shapes=shapes, width=width)


def shape(seed: int) -> str:
    x, y, width, height = np.random.default_rng(seed).integers(5, 45, 4)
    color = ("red", "blue", "green")[seed % 3]
    other = f'<circle cx="{90 - x}" cy="{90 - y}" r="{height / 2}" fill="black"/>'
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{color}"/>' + other


@pytest.fixture
def collection(tmp_path):
    root = tmp_path / "svg"
    (root / "things").mkdir(parents=True)
    for i in range(30):
        content = svg(f"Thing {i}", f"Author {i % 12}", ("thing", "things"), shapes=shape(i))
        (root / "things" / f"{i:02}.svg").write_text(content)
    return root


def test_metadata_is_read(tmp_path):
    file = tmp_path / "animals" / "box.svg"
    file.parent.mkdir()
    file.write_text(svg("A  box", "Ann Lee [ann@example.org]", ("red", "box")))
    drawing = read_drawing(file, tmp_path)
    assert (drawing.title, drawing.author, drawing.tags) == ("A box", "Ann Lee", ("red", "box"))
    assert drawing.category == "animals" and drawing.public_domain


def test_the_drawing_is_cut_out_of_its_page_and_centered(tmp_path):
    (tmp_path / "box.svg").write_text(svg())
    picture = np.asarray(render_drawing(tmp_path / "box.svg", 40)).astype(int)
    assert picture.shape == (40, 40, 3)
    # The box is twice as high as wide, so it fills the middle half of the width; edges are soft.
    assert abs(picture[1:-1, 13:27] - [255, 0, 0]).max() < 20
    assert picture[:, :7].min() > 235 and picture[:, 33:].min() > 235


@pytest.mark.parametrize("content", [svg(shapes=""), svg(shapes="<text>hello</text>"), "<svg>", "no xml"])
def test_what_shows_nothing_is_no_picture(tmp_path, content):
    (tmp_path / "box.svg").write_text(content)
    assert render_drawing(tmp_path / "box.svg", 40) is None


def test_a_collection_is_built_and_loaded(collection, tmp_path, monkeypatch):
    (collection / "copy.svg").write_text(svg("Copy", "Somebody", shapes=shape(3), width=50))
    (collection / "zz.svg").write_text((collection / "copy.svg").read_text().replace("red", "#e80000"))
    (collection / "owned.svg").write_text(svg(license="GPL", shapes=shape(100)))
    (collection / "nobody.svg").write_text(svg(author="", shapes=shape(101)))
    (collection / "empty.svg").write_text(svg(shapes=""))
    build_clipart(tmp_path / "out", collection, size=48, num_proc=1)
    parts = {split: load_clipart(split, tmp_path / "out") for split in SPLITS}

    authors = [set(part["author"]) for part in parts.values()]
    assert sum(map(len, authors)) == len(set.union(*authors)) >= 12
    record = json.loads((tmp_path / "out" / "clipart.json").read_text())
    assert record["left_out"] == {
        "not in the public domain": 1,
        "no author": 1,
        "not rendered": 1,
        "duplicate": 31 + 1 - sum(map(len, parts.values())),
    }
    assert record["left_out"]["duplicate"] >= 1
    rows = [row for part in parts.values() for row in part]
    monkeypatch.setattr("hf_msae.clipart.loading.default_folder", lambda: tmp_path / "out")
    assert open_dataset("clipart:test")["title"] == parts["test"]["title"]
    with pytest.raises(ValueError, match=r"'clipart:test' already names.*'train'"):
        open_dataset("clipart:test", split="train")
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        open_dataset("clipart:tset")
    first = next(row for row in rows if row["title"] == "thing 0")
    assert first["image"].size == (48, 48) and first["image"].mode == "RGB"
    assert (first["tags"], first["author"], first["category"]) == (["thing"], "Author 0", "things")


def test_splits_depend_on_the_author_alone():
    authors = [f"Author {i}" for i in range(400)]
    splits = assign_splits(authors)
    assert assign_splits(authors[::-1]) == splits[::-1]
    assert assign_splits(["author  7", *authors])[0] == splits[7]
    assert 0.33 < np.mean(np.array(splits) == "test") < 0.47
    assert 0.09 < np.mean(np.array(splits) == "validation") < 0.21
    assert set(assign_splits(["Busy"] * 151)) == {"train"}


def test_variants_of_a_name_are_one_hand():
    names = ["Ann Lee", "Dr. Lee, Ann", "Ann", "Bob Lee", "ann  lee (home)"]
    assert same_hands(names) == ["ann lee", "ann lee", "ann", "bob lee", "ann lee"]
    splits = assign_splits([*names, *["Ann Lee"] * 150])
    assert splits[0] == splits[1] == splits[4] == "train"  # together they are prolific


def test_distinct_keeps_the_first_of_what_looks_the_same():
    noise = np.random.default_rng(0).integers(0, 255, (3, 48, 48, 3)).astype(np.uint8)
    pictures = [noise[0], noise[1], noise[0] // 2 + 20, noise[2]]

    def encoded(pixels):
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "PNG")
        return stored.getvalue()

    assert distinct([encoded(picture) for picture in pictures]) == [0, 1, 3]


def test_errors_name_what_is_wrong_before_any_work(collection, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"full.*--output"):
        build_clipart(tmp_path / "full", collection)
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "out"), "--svg_folder", str(tmp_path / "none")])
    assert "none holds no .svg" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"hf_msae\.clipart\.build --output"):
        load_clipart("test", tmp_path / "none")
    with pytest.raises(ValueError, match=r"'dev'.*validation"):
        load_clipart("dev")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(OSError, match="--svg_folder"):
        download(tmp_path)
    monkeypatch.undo()
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: failed)
    with pytest.raises(OSError, match=r"Unable to locate.*apt-get update.*--svg_folder"):
        download(tmp_path)


def test_the_command_builds_what_the_page_of_the_docs_loads(collection, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    main(["--svg_folder", str(collection), "--num_proc", "1"])
    assert (tmp_path / "home" / "hf_msae" / "clipart" / "test").is_dir()
    assert "test: " in capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "clipart.md").read_text()
    namespace = {}
    exec(re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1], namespace)
    assert namespace["drawings"].column_names == ["image", "title", "tags", "author", "category"]
