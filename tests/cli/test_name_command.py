"""`hf-msae name`."""

import shutil

import pandas as pd
import pytest

from hf_msae.cli.name import NameArguments, main, read_vocabulary
from hf_msae.concepts import ConceptTable, Vocabulary, name_by_activations, name_latents
from hf_msae.embeddings import load_embeddings
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
    expected = name_latents(place.msae, vocabulary, embeds).with_activation_names(
        name_by_activations(place.msae, load_embeddings(place.test), vocabulary, embeds, progress=False)
    )
    pd.testing.assert_frame_equal(table.frame, expected.frame, rtol=1e-4)
    agree = table.frame["name"] == table.frame["activation_name"]
    assert table.frame["agrees"].tolist() == agree.tolist() and agree[: len(NAMED)].any()
    assert table.provenance["templates"] == templates and table.provenance["order"] == "as in words.txt"
    assert table.provenance["backbone"] == place.backbone.name_or_path and table.provenance["null"] == "vocabulary"
    valid = table.validated()
    assert f"{len(valid)} of 160 latents have a name that is more than chance (q <= 0.05)" in printed
    assert f"{int(valid['agrees'].sum())} of these latents are called the same" in printed


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


def test_what_is_refused(place, refused, tmp_path):
    assert "there is no vocabulary file typo.txt" in refused(main, place.model, "--vocabulary", "typo.txt")
    assert "--vocabulary" in refused(main, place.model)
    assert "no MSAE could be loaded from" in refused(
        main, "./typo", "--vocabulary", "scenes", "--output", tmp_path / "x.parquet"
    )
    assert "is no folder to write names beside" in refused(main, "user/name", "--vocabulary", "scenes")
    assert "q is a share" in refused(main, place.model, "--vocabulary", "scenes", "--q", "5")
    for file in ("x.csv", "x"):
        assert "has to end in .parquet" in refused(main, place.model, "--vocabulary", "scenes", "--output", file)
    assert "one {} where the word goes" in refused(main, place.model, "--vocabulary", "scenes", "--templates", "a")
