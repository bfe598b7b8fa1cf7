"""`hf-msae explain`."""

import json

import pytest
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.cli.explain import coarse_to_fine, main, read_texts
from hf_msae.concepts import ActivationPercentiles
from hf_msae.embeddings import load_embeddings


def test_an_image_from_coarse_to_fine(place, tmp_path, capsys):
    main([str(place.model), "--image", str(place.picture), "--ks", "20", "8", "--top", "5", "--disable_tqdm",
          "--percentile_data", str(place.test), "--figure", str(tmp_path / "new" / "seen.png"),
          "--output", str(tmp_path / "seen.json")])  # fmt: skip
    printed = capsys.readouterr().out
    coarse, fine = json.loads((tmp_path / "seen.json").read_text())["explanations"]
    model = VisionTextMSAE.from_pretrained(place.model)
    model.percentiles = ActivationPercentiles.of(model.msae, load_embeddings(place.test), progress=False)
    expected = model.explain(place.picture, top=20, k=20).frame
    assert [row["latent"] for row in coarse["concepts"]] == expected["latent"][:5].tolist()
    assert [row["latent"] for row in fine["concepts"]] == expected["latent"][8:13].tolist()
    found = [row["percentile"] for row in fine["concepts"]]
    assert found == pytest.approx(expected["percentile"][8:13].tolist(), rel=1e-4)
    assert (coarse["k"], fine["k"]) == (8, 20)
    assert fine["explained"] == pytest.approx(model.explain(place.picture, k=20).explained)
    assert f"k = 8: {coarse['explained']:.1%} explained" in printed and "k = 20 adds, to" in printed
    assert Image.open(tmp_path / "new" / "seen.png").width > 1000


def test_a_text_at_the_whole_code(place, capsys):
    main([str(place.model), "--text", "a red star", "--top", "3"])
    model = VisionTextMSAE.from_pretrained(place.model)
    assert str(model.explain("a red star", 3)) in capsys.readouterr().out
    assert list(coarse_to_fine(model, "a red star", [4, 4], 3)) == list(coarse_to_fine(model, "a red star", [4], 3))


def test_a_text_around_the_mean_of_texts(place, tmp_path, capsys):
    captions = place.scenes["test"]["caption"][:]
    (tmp_path / "captions.txt").write_text("\n\n".join(captions))
    model = VisionTextMSAE.from_pretrained(place.model)
    model.center_texts(captions)
    expected = str(model.explain("a red star", 3))
    for source in (tmp_path / "captions.txt", place.test):
        main([str(place.model), "--text", "a red star", "--top", "3", "--center_texts", str(source)])
        printed = capsys.readouterr().out
        assert expected in printed and "modality gap" not in printed
    assert read_texts(str(place.test), "caption", most=60) == captions[::4]


@pytest.mark.parametrize("both", [False, True])
def test_a_match_adds_up(place, tmp_path, capsys, both):
    flags = ["--both"] if both else []
    main([str(place.model), "--image", str(place.picture), "--against_text", "a red star", "--ks", "32", *flags,
          "--output", str(tmp_path / "match.json"), "--figure", str(tmp_path / "match.png")])  # fmt: skip
    match = json.loads((tmp_path / "match.json").read_text())
    parts = sum(row["contribution"] for row in match["concepts"]) + match["bias"] + match["not_reconstructed"]
    assert parts == pytest.approx(match["similarity"], abs=1e-5)
    model = VisionTextMSAE.from_pretrained(place.model)
    expected = model.explain_similarity(place.picture, "a red star", both, 32)
    assert match["similarity"] == pytest.approx(expected.similarity) and len(match["concepts"]) == len(expected.frame)
    assert ("other_name" in match["concepts"][0]) is both
    assert f"cosine {expected.similarity:.4f} = concepts" in capsys.readouterr().out


def test_what_is_refused(place, refused, tmp_path):
    for arguments, message in (
        ([], "give an --image or a --text"),
        (["--image", place.picture, "--text", "red"], "one of them"),
        (["--image", tmp_path / "typo.png"], "typo.png): there is no such file"),
        (["--text", "red", "--both"], "--both is about a match"),
        (["--text", "red", "--against_text", "a", "--against_image", place.picture], "not both"),
        (["--text", "red", "--against_text", "a", "--ks", "8", "16"], "a single number"),
        (["--image", place.picture, "--center_texts", place.test], "--center_texts is about"),
        (["--text", "red", "--center_texts", place.test, "--caption_column", "title"], "has no column 'title'"),
        (["--text", "red", "--top", "0"], "top must be positive"),
        (["--text", "red", "--ks", "1000"], "1000"),
        (["--text", "red", "--ks", "0", "8"], "ks are numbers of activations from 1 on, got 0"),
        (["--text", "red", "--figure", "x.xyz"], "xyz"),
        (["--text", "red", "--output", tmp_path], "is a folder; name a file in it"),
        (["--text", "red", "--typ", "3"], "unknown argument --typ; did you mean --top?"),
    ):
        assert message in refused(main, place.model, *arguments)
