"""`hf-msae explain`."""

import json
import shutil
from functools import partial

import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.text import Text
from PIL import Image

from hf_msae import MSAEModel, VisionTextMSAE, plotting
from hf_msae.cli.explain import coarse_to_fine, main, read_texts
from hf_msae.concepts import ActivationPercentiles
from hf_msae.embeddings import load_embeddings
from hf_msae.plotting import save_figure
from hf_msae.scenes.backbone import BACKBONE_DIR


@pytest.fixture
def model(place):
    return VisionTextMSAE.from_pretrained(place.model, place.backbone)


def test_an_image_from_coarse_to_fine(place, model, tmp_path, capsys):
    main([str(place.model), "--image", str(place.picture), "--ks", "20", "8", "--top", "5", "--disable_tqdm",
          "--percentile_data", str(place.test), "--figure", str(tmp_path / "new" / "seen.png"),
          "--output", str(tmp_path / "seen.json")])  # fmt: skip
    printed = capsys.readouterr().out
    coarse, fine = json.loads((tmp_path / "seen.json").read_text())["explanations"]
    model.percentiles = ActivationPercentiles.of(model.msae, load_embeddings(place.test), progress=False)
    expected = model.explain(place.picture, top=20, k=20)
    assert [row["latent"] for row in coarse["concepts"]] == expected.frame["latent"][:5].tolist()
    assert [row["latent"] for row in fine["concepts"]] == expected.frame["latent"][8:13].tolist()
    found = [row["percentile"] for row in fine["concepts"]]
    assert found == pytest.approx(expected.frame["percentile"][8:13].tolist(), rel=1e-4)
    assert (coarse["k"], fine["k"]) == (8, 20) and fine["explained"] == pytest.approx(expected.explained)
    assert all(f"k = {part['k']}" in printed and f"{part['explained']:.1%}" in printed for part in (coarse, fine))
    assert Image.open(tmp_path / "new" / "seen.png").width > 1000


def test_a_text_by_itself_and_around_the_mean_of_texts(place, model, tmp_path, capsys):
    flags = [str(place.model), "--text", "a red star", "--top", "3"]
    main(flags)
    printed = capsys.readouterr().out
    assert str(model.explain("a red star", 3)) in printed and "--center_texts" in printed
    explain = partial(model.explain, "a red star")
    assert list(coarse_to_fine(explain, [4, 4], 3)) == list(coarse_to_fine(explain, [4], 3))

    captions = place.scenes["test"]["caption"][:20]
    (tmp_path / "captions.txt").write_text("\n\n".join(captions))
    place.scenes["test"].select(range(20)).select_columns(["caption"]).to_parquet(tmp_path / "captions.parquet")
    model.center_texts(captions)
    for source in ("captions.txt", "captions.parquet"):
        main([*flags, "--center_texts", str(tmp_path / source)])
        printed = capsys.readouterr().out
        assert str(model.explain("a red star", 3)) in printed and "--center_texts" not in printed
    assert read_texts(str(tmp_path / "captions.txt"), "caption", most=5) == captions[::4]


def test_texts_are_read_from_files_and_columns_of_all_kinds(tmp_path):
    for name, encoding in {
        "marked.txt": "utf-8-sig",
        "wide.txt": "utf-16",
        "LOUD.TXT": "utf-8",
        "bare": "utf-8",
    }.items():
        (tmp_path / name).write_text("one\ntwo\n", encoding=encoding)
        assert read_texts(str(tmp_path / name), "caption") == ["one", "two"]
    several = Dataset.from_dict({"caption": [["one", "two"], [], ["three"]], "rows": [1, 2, 3]})
    several.save_to_disk(tmp_path / "several")
    assert read_texts(str(tmp_path / "several"), "caption") == ["one", "two", "three"]
    with pytest.raises(ValueError, match=r"'rows'.*1"):
        read_texts(str(tmp_path / "several"), "rows")


@pytest.fixture
def folder_of_pictures(place, tmp_path):
    """Two pictures, one in a subfolder, a damaged one, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    place.scenes["test"][1]["image"].save(folder / "=b.png")
    place.scenes["test"][2]["image"].save(folder / "sub" / "c.PNG")
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_many_pictures_are_explained_at_once(place, model, folder_of_pictures, tmp_path, capsys, monkeypatch):
    flags = [str(place.model), "--image", str(place.picture), str(folder_of_pictures), "--ks", "8", "16", "--top", "4"]
    monkeypatch.setattr("hf_msae.cli.explain_pictures._SHOWN", 2)
    main([*flags, "--output", str(tmp_path / "seen.csv")])
    shown = capsys.readouterr()
    assert "explaining" not in shown.err and "a.png" in shown.err and "notes" not in shown.out
    assert "c.PNG" not in shown.out and "3 pictures explained (the first 2 are shown)" in shown.out
    rows = pd.read_csv(tmp_path / "seen.csv")
    files = [place.picture, folder_of_pictures / "=b.png", folder_of_pictures / "sub" / "c.PNG"]
    assert list(rows["item"].unique()) == [str(file) for file in files]
    for file in files:
        coarse = model.explain(file, 8, 8).frame[:4]
        found = rows[(rows["item"] == str(file)) & (rows["k"] == 8)]
        assert found["latent"].tolist() == coarse["latent"].tolist()
        assert found["activation"].tolist() == pytest.approx(coarse["activation"].tolist(), rel=1e-3)
        assert len(rows[(rows["item"] == str(file)) & (rows["k"] == 16)]) == 4

    main([*flags, "--output", str(tmp_path / "seen.json"), "--disable_tqdm"])
    assert "explaining" not in capsys.readouterr().err
    parts = json.loads((tmp_path / "seen.json").read_text())["explanations"]
    assert [(part["item"], part["k"]) for part in parts] == [(str(file), k) for file in files for k in (8, 16)]
    assert parts[0]["concepts"][0]["name"] == model.explain(place.picture).frame["name"][0]


def test_a_spreadsheet_does_not_run_the_name_of_a_picture(place, folder_of_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_of_pictures)
    main([str(place.model), "--image", "=b.png", "--top", "2", "--output", str(tmp_path / "seen.csv")])
    assert pd.read_csv(tmp_path / "seen.csv")["item"].tolist() == ["'=b.png"] * 2


@pytest.mark.parametrize("both", [False, True])
def test_a_match_adds_up(place, model, tmp_path, capsys, monkeypatch, both):
    figures = []
    monkeypatch.setattr(
        plotting, "save_figure", lambda figure, path: figures.append(figure) or save_figure(figure, path)
    )
    flags = ["--both"] if both else ["--figure", str(tmp_path / "match.png")]
    main([str(place.model), "--image", str(place.picture), "--against_text", "a red star", "--ks", "32", *flags,
          "--output", str(tmp_path / "match.json")])  # fmt: skip
    match = json.loads((tmp_path / "match.json").read_text())
    parts = sum(row["contribution"] for row in match["concepts"]) + match["bias"] + match["not_reconstructed"]
    assert parts == pytest.approx(match["similarity"], abs=1e-5)
    expected = model.explain_similarity(place.picture, "a red star", both, 32)
    assert match["similarity"] == pytest.approx(expected.similarity) and len(match["concepts"]) == len(expected.frame)
    printed = capsys.readouterr().out
    assert ("other_name" in match["concepts"][0]) is both and expected.verdict() in printed
    titles = [" ".join(text.get_text() for text in figure.findobj(Text)) for figure in figures]
    assert len(titles) == (not both) == (tmp_path / "match.png").is_file()
    for said in (f"{match['similarity']:.3f}", place.picture.name, "“a red star”"):
        assert said in printed.splitlines()[0] and all(said in title for title in titles)


def test_damaged_embeddings_are_refused_unless_they_are_wanted(place, tmp_path, refused):
    damaged = shutil.copytree(place.test, tmp_path / "damaged")
    shard = damaged / "data-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    flags = ["--text", "a red star", "--percentile_data", damaged]
    refused(main, flags, [([], r"data-00000\.arrow has changed.*--no_verify")], model=place.model)
    main([str(place.model), *map(str, flags), "--no_verify"])


def test_a_backbone_elsewhere_and_another_one(place, tmp_path, refused, capsys):
    model = MSAEModel.from_pretrained(place.model)
    known = place.backbone.provenance()
    for name in ("base_model_weights_sha256", "base_model_processor_sha256"):
        setattr(model.config, name, known[name])
    model.config.base_model_name_or_path = "../siglip"
    model.save_pretrained(tmp_path / "msae")
    moved = shutil.copytree(BACKBONE_DIR, tmp_path / "moved")
    flags = [str(tmp_path / "msae"), "--text", "a red star"]
    refused(main, ["--text", "a red star"], [([], r"\.\./siglip.*--backbone")], model=tmp_path / "msae")
    main([*flags, "--backbone", str(moved)])
    processor = moved / "processor_config.json"
    processor.write_text(processor.read_text().replace("0.5", "0.4"))
    wrong = [(["--backbone", moved], "image processor.*--allow_other_backbone")]
    refused(main, ["--text", "a red star"], wrong, model=tmp_path / "msae")
    main([*flags, "--backbone", str(moved), "--allow_other_backbone"])


def test_what_is_refused(place, refused, tmp_path):
    table = tmp_path / "captions" / "metadata.csv"
    table.parent.mkdir()
    table.write_text("file_name,caption\na.png,red\n")
    refused(main, [], [
        ([], "--image.*--text"),
        (["--image", place.picture, "--text", "red"], "--image.*--text"),
        (["--image", tmp_path], f"{tmp_path}.*no picture"),
        (["--image", place.picture, place.picture, "--figure", tmp_path / "x.png"], "--figure.*2"),
        (["--image", place.picture, "--against_text", "red", "--output", "x.csv"], "--output.*x.csv"),
        (["--text", place.picture], r"--text.*picture\.png.*--image"),
        (["--text", "red", "--against_text", "gone.jpg"], r"--against_text.*gone\.jpg.*--against_image"),
        (["--text", "red", "--both"], "--both"),
        (["--text", "red", "--against_text", "a", "--against_image", place.picture], "--against_image"),
        (["--text", "red", "--against_text", "a", "--ks", "8", "16"], "--ks"),
        (["--text", "red", "--against_text", "a", "--percentile_data", place.test], "--percentile_data"),
        (["--image", place.picture, "--center_texts", place.test], "--center_texts"),
        (["--text", "red", "--center_texts", place.test, "--caption_column", "title"], "'title'.*caption"),
        (["--text", "red", "--center_texts", table], f"metadata.csv.*{tmp_path}/captions, the folder"),
        (["--text", "red", "--figure", "x.xyz"], "xyz"),
        (["--text", "red", "--typ", "3"], "--typ.*--top"),
    ])  # fmt: skip
