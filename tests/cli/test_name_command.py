"""`hf-msae name`."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hf_msae.cli.name import NameArguments, _print_other_tables, main, read_vocabulary
from hf_msae.concepts import ConceptTable, Vocabulary, name_by_labels, name_latents
from hf_msae.embeddings import load_embeddings
from hf_msae.hub.reading.opening import concepts_beside
from tests.cli.conftest import NAMED


@pytest.fixture
def model(place, tmp_path):
    shutil.copytree(place.model, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "concepts")
    return tmp_path / "model"


def test_names_are_written_beside_the_model_with_evidence(place, model, tmp_path, capsys):
    words = [*NAMED, "snow", "city", "yellow", "house"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    templates = ["{}", "a picture of something {}"]
    main([str(model), "--vocabulary", str(tmp_path / "words.txt"), "--data", str(place.test), "--disable_tqdm",
          "--templates", *templates])  # fmt: skip
    printed = capsys.readouterr().out
    table = ConceptTable.load(model / "concepts" / "words.parquet")
    vocabulary = Vocabulary(words, templates)
    embeds = vocabulary.embed(place.backbone.text_embeds)
    expected = name_latents(place.msae, vocabulary, embeds, load_embeddings(place.test))
    pd.testing.assert_frame_equal(table.frame, expected.frame, rtol=1e-4)
    agree = table.frame["name"] == table.frame["activation_name"]
    assert table.frame["agrees"].tolist() == agree.tolist() and agree[: len(NAMED)].any()
    assert table.provenance["templates"] == templates and table.provenance["order"] == "as in words.txt"
    assert table.provenance["backbone"] == place.backbone.name_or_path and table.provenance["null"] == "vocabulary"
    valid = table.validated()
    assert f"{len(valid)} of 160" in printed and "Empty" not in printed
    assert (f"{int(valid['agrees'].sum())} of these" in printed) == (len(valid) > 0)
    assert "zero_shot_auroc" in table.frame and "--data" not in printed


def test_names_without_pictures_are_suggestions(model, capsys):
    main([str(model), "--vocabulary", "scenes", "--max_words", "9", "--disable_tqdm", "--words_by_frequency"])
    table = ConceptTable.load(model / "concepts" / "scenes.parquet")
    assert "agreement" not in table.frame and table.provenance["order"] == "frequency"
    printed = capsys.readouterr().out
    assert "suggestions: --data" in printed
    assert not len(table.validated())  # so the nearest names are shown as guesses, with the reason
    name = table.best()["name"][0]
    assert f"{name} (unvalidated)" in printed and "None is validated: no q-value is at most 0.05" in printed


def test_labels_of_latents_stay_when_they_are_named_again(model):
    names = [str(model), "--vocabulary", "scenes", "--max_words", "9", "--disable_tqdm"]
    main(names)
    file = model / "concepts" / "scenes.parquet"
    table = ConceptTable.load(file)
    table.frame.loc[3, ["line_label", "line_score"]] = ["crimson", 0.9]
    table.provenance["line"] = {"seed": 5}
    table.save(file)
    main([*names, "--seed", "1"])
    found = ConceptTable.load(file)
    assert found.provenance["seed"] == 1 and found.provenance["line"] == {"seed": 5}
    assert found.frame["line_label"][3] == "crimson" and found.frame["line_label"].notna().sum() == 1
    table.provenance["model_sha256"] = "another model's"
    table.save(file)
    main(names)
    assert "line_label" not in ConceptTable.load(file).frame


def test_names_are_written_beside_a_model_in_a_subfolder(place, model):
    shutil.copytree(model, model / "small")
    main([str(model), "--subfolder", "small", "--vocabulary", "scenes", "--max_words", "9", "--disable_tqdm"])
    assert len(concepts_beside(model, subfolder="small")) == place.msae.config.num_latents
    assert concepts_beside(model) is None


def test_names_from_label_columns_need_no_backbone(place, model, capsys, monkeypatch):
    monkeypatch.setattr("hf_msae.vision_text.VisionTextMSAE.from_pretrained", None)
    with pytest.warns(UserWarning, match="of caption"):
        main([str(model), "--data", str(place.test), "--label_columns", "red", "large", "caption", "--disable_tqdm"])
    printed = capsys.readouterr()
    table = ConceptTable.load(model / "concepts" / "labels.parquet")
    expected = name_by_labels(place.msae, load_embeddings(place.test), ["red", "large"])
    pd.testing.assert_frame_equal(table.frame, expected.frame)
    assert table.latent_of("red") == NAMED.index("red")
    assert table.provenance["labels"] == ["red", "large"] and table.provenance["data"] == str(place.test)
    assert f"{len(table.validated())} of 160" in printed.out and "auroc_low" in printed.out


def test_names_that_are_better_than_chance_but_weak_are_counted(place, model, capsys, monkeypatch):
    monkeypatch.setattr("hf_msae.concepts.validation.MIN_AUROC", 1.01)  # no name is strong enough
    main([str(model), "--data", str(place.test), "--disable_tqdm", "--label_columns", "red", "large"])
    (file,) = (model / "concepts").glob("*.parquet")
    weak = int((ConceptTable.load(file).frame["q_value"] <= 0.05).sum())
    printed = capsys.readouterr().out
    assert weak > 0 and f"{weak} latent" in printed and "not strong enough" in printed
    assert "More pictures" in printed and "label" in printed.split("More pictures")[1]
    assert "0 of 160 latents" in printed and "at least 1.01" in printed


def test_vocabularies_of_all_kinds(place, tmp_path):
    assert read_vocabulary(NameArguments("scenes")).templates == Vocabulary.of_scenes().templates
    assert len(read_vocabulary(NameArguments("scenes", max_words=7))) == 7
    file = tmp_path / "words.txt"
    file.write_text("red\nth\nhowever\nstar\nvillain\n")
    (tmp_path / "bad.txt").write_text("villain")
    strict = NameArguments(str(file), min_letters=3, drop_stop_words=True, sensitive_words=str(tmp_path / "bad.txt"))
    assert read_vocabulary(strict).words == ("red", "star")
    place.scenes["test"].select_columns(["caption"]).to_parquet(tmp_path / "words.parquet")
    column = NameArguments(str(tmp_path / "words.parquet"), vocabulary_column="caption", max_words=5)
    found = read_vocabulary(column)
    assert found.words[0] in place.scenes["test"]["caption"] and found.order == "frequency" and len(found) == 5
    assert read_vocabulary(replace(column, vocabulary_split="train")).words == found.words
    with pytest.raises(ValueError, match=rf"--vocabulary_split .*{re.escape(str(file))} is not"):
        read_vocabulary(NameArguments(str(file), vocabulary_column="word", vocabulary_split="train"))


def test_what_is_refused(refused, place, tmp_path):
    refused(main, ["--output", tmp_path / "x.parquet"], [
        ([], "--vocabulary or --label_columns"),
        (["--vocabulary", "scenes", "--label_columns", "red"], "--vocabulary or --label_columns"),
        (["--label_columns", "red"], "--data"),
        (["--label_columns", "red", "--data", place.test, "--null", "isotropic"], "--null"),
        (["--label_columns", "caption", "--data", place.test], "10 rows.*caption"),
        (["--vocabulary", "scenes", "--q", "5"], "q.*5"),
        (["--vocabulary", "scenes", "--output", "x.csv"], r"\.parquet.*x\.csv"),
        (["--vocabulary", "scenes", "--output", "x"], r"\.parquet.*x"),
    ])  # fmt: skip
    refused(main, ["--vocabulary", "scenes", "--output", tmp_path / "x.parquet"], [([], "typo")], "./typo")
    refused(main, ["--vocabulary", "scenes"], [([], "user/name.*--output")], "user/name")


def test_the_table_that_other_commands_use_is_named(model, capsys):
    columns = [["a", "b"], np.ones(2), ["c", "c"], np.ones(2)]
    qs = ([0.01, 0.9], [0.9, 0.9], [0.01, 0.01])
    some, none, better = (ConceptTable.from_columns(*columns, q_value=np.array(q)) for q in qs)
    folder = model / "concepts"
    some.save(folder / "labels.parquet")
    (folder / "odd.parquet").write_text("no table")
    for words, used in ((none, "labels"), (some, "labels"), (better, "words")):
        words.save(folder / "words.parquet")
        _print_other_tables(folder / "words.parquet")
        printed = capsys.readouterr().out
        assert (
            f"use {used}.parquet, since no other has more validated names" in printed
            and "labels.parquet, odd.parquet" in printed
        )
        with pytest.warns(UserWarning, match=f"{used}.parquet is used"):
            assert concepts_beside(model).validated().equals((some if used == "labels" else words).validated())
