"""`hf-msae search`."""

import json
import sys

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.cli.search import main
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.search import ConceptIndex
from hf_msae.search.files import default_folder


@pytest.fixture
def search(place, tmp_path, capsys):
    """The rows that a search writes, and what it prints."""

    def search(*arguments):
        file = tmp_path / "found.json"
        given = ["--data", place.test, "--index_dir", tmp_path / "index", "--output", file, "--disable_tqdm"]
        main([str(each) for each in [place.model, *given, *arguments]])
        return json.loads(file.read_text())["found"], capsys.readouterr().out

    return search


@pytest.fixture
def index(place, tmp_path):
    return ConceptIndex.build(tmp_path / "other", place.msae, place.test, concepts=place.table, progress=False)


def rows(found):
    return [each["row"] for each in found]


def test_by_image_text_and_row(place, search, index):
    model = VisionTextMSAE.from_pretrained(place.model, place.backbone)
    found, printed = search("--image", place.picture, "--top", "4")
    assert rows(found)[0] == 4 and found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert str(place.test) in printed
    assert rows(found) == rows(search("--row", "4", "--top", "4")[0])
    found, _ = search("--text", "a red star at night", "--top", "4")
    expected = index.by_embedding(model.text_embeds("a red star at night")[0], 4)
    assert rows(found) == expected["row"].tolist()
    code = index.code(rows(found)[0]).head(5)
    assert code["name"].is_unique
    shown = [
        name if sure else f"{name} (unvalidated)" for name, sure in zip(code["name"], code["validated"], strict=True)
    ]
    assert found[0]["concepts"] == ", ".join(shown) and 0 < code["validated"].sum() < 5
    assert found[0]["caption"] == place.scenes["test"]["caption"][rows(found)[0]]


def test_what_cannot_be_searched_for_is_refused_before_the_index_is_built(place, refused, tmp_path):
    given = ["--data", place.test, "--index_dir", tmp_path / "index"]
    refused(main, given, [
        (["--find", "red=nan"], "'red'.*nan"),
        (["--find", "dark"], "'dark'"),
        (["--find", "red", "latent:0"], "latent 0.*'latent:0'"),
        (["--row", "1", "--edits", "dark=2"], "'dark'"),
    ])  # fmt: skip
    assert not (tmp_path / "index").exists()


def test_by_concepts_and_by_edit(place, search, index):
    found, _ = search("--find", "red", "star=2", "night=-1", "--top", "5")
    expected = index.by_concepts({"red": 1, "star": 2, "night": -1}, 5)
    assert rows(found) == expected["row"].tolist()
    found, _ = search("--row", "7", "--edits", "red=3", "--edit_mode", "set", "--top", "5")
    expected = index.by_edit(load_embeddings(place.test)[7], {"red": 3}, "set", 5)
    assert rows(found) == expected["row"].tolist()
    assert [each["rank_change"] for each in found] == expected["rank_change"].tolist()


def test_only_rows_that_show_a_concept_are_found(search, index):
    active = {each: len(index.by_concepts({each: 1.0}, 10**6).query("score > 0")) for each in range(64)}
    rarest = min(active, key=lambda each: active[each] or 10**6)
    assert 0 < active[rarest] < len(index)
    found, _ = search("--find", f"latent:{rarest}", "--top", str(len(index)))
    assert len(found) == active[rarest]
    without, _ = search("--find", f"latent:{rarest}=-1", "--top", "5")
    assert [each["score"] for each in without] == [0] * 5, "which is all that was asked for"


def test_what_two_rows_share(search, index):
    found, _ = search("--row", "4", "--shared_with", "7")
    assert [each["latent"] for each in found] == index.shared(4, 7)["latent"].tolist()


def test_pictures_are_drawn(search, tmp_path):
    heights = {}
    for name, arguments in (
        ("find", ["--find", "red"]),
        ("edit", ["--row", "4", "--edits", "red=0"]),
        ("shared", ["--row", "4", "--shared_with", "7"]),
    ):
        search(*arguments, "--top", "3", "--figure", tmp_path / f"{name}.png")
        heights[name] = Image.open(tmp_path / f"{name}.png").height
    assert heights["find"] < heights["shared"] < heights["edit"]


def test_the_index_is_kept_and_found_again(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path))
    monkeypatch.chdir(place.folder)
    embeddings = load_embeddings("test")
    folder = default_folder(place.msae, embeddings, 32)
    assert folder == default_folder(place.msae, load_embeddings(place.test), 32), "by whatever path"
    others = [default_folder(place.msae, embeddings, 16), default_folder(place.msae, load_embeddings("train"), 32)]
    assert len({folder, *others}) == 3
    flags = ["model", "--data", "test", "--find", "red", "--disable_tqdm"]
    main(flags)
    written = (folder / "segment-00000" / "latents.npy").stat().st_mtime_ns
    first = capsys.readouterr().out
    main(flags)
    assert (folder / "segment-00000" / "latents.npy").stat().st_mtime_ns == written
    assert capsys.readouterr().out == first


def test_splits_of_a_dataset_have_indexes_of_their_own(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path))
    rows = load_embeddings(place.test)[:].tolist()
    parts = {"train": rows[:50], "test": rows[50:]}
    splits = {name: Dataset.from_dict({"image_embeds": part}) for name, part in parts.items()}
    DatasetDict(splits).save_to_disk(tmp_path / "both")
    for split in ("train", "test", "train"):
        main([str(place.model), "--data", str(tmp_path / "both"), "--split", split, "--row", "4", "--disable_tqdm"])
    assert len(list((tmp_path / "indexes").iterdir())) == 2


def test_approximately_the_same_is_found(search):
    pytest.importorskip("faiss")
    exact, _ = search("--row", "4", "--edits", "red=3", "--top", "3")
    found, _ = search("--row", "4", "--edits", "red=3", "--top", "3", "--approximate")
    assert rows(found) == rows(exact)


def test_what_is_refused(place, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = ["--index_dir", tmp_path / "i"]
    refused(main, ["--data", place.test, *index], [
        ([], "--image, --text, --row and --find"),
        (["--row", "1", "--find", "red"], "--row and --find"),
        (["--find", "red", "--edits", "red=0"], "--edits.*--row"),
        (["--row", "240"], "240.*0 to 239"),
        (["--row", "-1"], "-1.*0 to 239"),
        (["--row", "1", "--shared_with", "500"], "500.*0 to 239"),
        (["--text", "a", "--shared_with", "5"], "--shared_with.*--row"),
        (["--text", "gone.jpg"], r"--text.*gone\.jpg.*--image"),
        (["--find", "red", "--approximate"], "--approximate"),
        (["--row", "4", "--approximate"], r"hf_msae\[ann\]"),
        (["--find", "rad"], "'rad'.*'red'"),
        (["--find", "qqqq"], "'qqqq'.*red, .*hf-msae demo.*160"),
        (["--find", "red=x"], "'red=x'"),
        (["--row", "1", "--top", "0"], "top.*0"),
        (["--find", "red", "--figure", tmp_path / "a.png", "--images", "none"], "--figure.*--images"),
    ])  # fmt: skip


def test_a_name_of_several_latents_is_listed_once(place, search, tmp_path):
    names = ["red"] * 150 + [f"other {latent}" for latent in range(150, 160)]
    ConceptTable(place.table.frame.assign(name=names)).save(tmp_path / "names.parquet")
    found, _ = search("--row", "4", "--top", "4", "--concepts", tmp_path / "names.parquet")
    for row in found:
        listed = row["concepts"].split(", ")
        assert len(set(listed)) == len(listed) and {"red", "red (unvalidated)"} & set(listed)


@pytest.mark.parametrize("columns", [("concepts", "similarity"), ("row", "score")])
def test_columns_of_the_data_leave_those_of_the_results_alone(place, search, tmp_path, columns):
    embeddings = load_embeddings(place.test)[:40]
    texts = {name: [f"{name} {row}" for row in range(40)] for name in columns}
    Dataset.from_dict({"image_embeds": embeddings.tolist(), **texts}).save_to_disk(str(tmp_path / "data"))
    found, _ = search("--data", tmp_path / "data", "--row", "4", "--top", "2")
    assert rows(found)[0] == 4 and found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert [found[0][f"{name} of the data"] for name in columns] == [f"{name} 4" for name in columns]
    assert "concepts" not in columns or found[0]["concepts"] != "concepts 4"
