"""Which model, names, embeddings and pictures a command works on."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from hf_msae.cli.bias import BiasArguments
from hf_msae.cli.explain import ExplainArguments
from hf_msae.cli.name import NameArguments
from hf_msae.cli.opening import (
    EmbeddingArguments,
    NamedModelArguments,
    command_parser,
    load_for,
    open_images,
    weighted_concepts,
)
from hf_msae.cli.search import SearchArguments
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings


def test_words_with_numbers_are_concepts_with_weights():
    found = weighted_concepts(["red", "star=2.5", "a=b=-1", "417=0", "night=1e-1"])
    assert found == {"red": 1.0, "star": 2.5, "a=b": -1.0, 417: 0.0, "night": 0.1}
    for words, message in (
        (["red=much"], "'red=much' is no concept with a number"),
        (["red", "red=2"], "given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            weighted_concepts(words)


def test_the_names_beside_the_model_or_others(place, tmp_path):
    _, table = NamedModelArguments(str(place.model)).open_msae()
    assert table.frame["name"][0] == "red"
    other = ConceptTable(place.table.frame.assign(name="other"))
    other.save(tmp_path / "other.parquet")
    model = NamedModelArguments(str(place.model), concepts=str(tmp_path / "other.parquet")).open()
    assert (
        set(model.concepts.frame["name"]) == {"other"} and model.backbone.name_or_path == place.backbone.name_or_path
    )
    few = ConceptTable(place.table.frame.head(3))
    few.save(tmp_path / "few.parquet")
    with pytest.raises(ValueError, match=r"names of 3 latents, but .* has 160"):
        NamedModelArguments(str(place.model), concepts=str(tmp_path / "few.parquet")).open_msae()
    with pytest.raises(FileNotFoundError, match=r"no file of names .*typo.parquet: `hf-msae name` writes one"):
        NamedModelArguments(str(place.model), concepts=str(tmp_path / "typo.parquet")).open_msae()


def test_several_tables_and_odd_devices_are_told_of(place, tmp_path):
    shutil.copytree(place.model, tmp_path / "model")
    place.table.save(tmp_path / "model" / "concepts" / "words.parquet")
    with pytest.raises(ValueError, match=r"several tables of names: choose one by --concepts .*scenes\.parquet"):
        NamedModelArguments(str(tmp_path / "model")).open_msae()
    with pytest.raises(ValueError, match="device 'abacus' cannot be used: "):
        NamedModelArguments(str(place.model), device="abacus").open_msae()


def test_embeddings_of_another_width_are_refused(place, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((5, 7), np.float32))
    with pytest.raises(ValueError, match="embeddings of 7 columns, but this MSAE was trained on 128"):
        load_for(place.msae, str(tmp_path / "wide.npy"))


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_pictures_are_those_that_were_embedded(place):
    images = open_images(load_embeddings(place.test), None, None, None)
    assert len(images) == len(place.scenes["test"]) and images["star"][:] == place.scenes["test"]["star"][:]
    assert same(images[17]["image"], place.scenes["test"][17]["image"])
    assert open_images(load_embeddings(place.test), "none", None, None) is None
    assert open_images(load_embeddings(np.ones((5, 7), np.float32)), None, None, None) is None


def test_pictures_of_another_column(place, tmp_path):
    scenes = place.scenes["test"]
    other = scenes.rename_columns({"image": "photo", "caption": "image"})
    other.save_to_disk(tmp_path / "other")
    images = open_images(load_embeddings(place.test), str(tmp_path / "other"), None, "photo")
    assert same(images[17]["image"], scenes[17]["image"]) and "photo" not in images.column_names


def test_pictures_of_rows_that_were_left_out_are_left_out(place, tmp_path):
    shutil.copytree(place.test, tmp_path / "test")
    file = tmp_path / "test" / "activations.json"
    content = json.loads(file.read_text())
    content["shards"][0]["skipped"] = [0, 2]
    file.write_text(json.dumps(content))
    images = open_images(load_embeddings(tmp_path / "test"), "scenes:test:242:3", None, None)
    again = [1, 3, 4]
    assert all(same(images[row]["image"], place.scenes["test"][of]["image"]) for row, of in enumerate(again))


def test_other_pictures_are_refused(place):
    acts = load_embeddings(place.test)
    for arguments, message in (
        (("scenes:test:30:3", None, None), "has 30 rows, but .* has embeddings of 240"),
        (("scenes:test:240:3", None, "photo"), "has no column 'photo', only image, caption"),
        (("./typo", None, None), "neither a folder nor .*; name it with --images, or 'none'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            open_images(acts, *arguments)


@pytest.mark.parametrize(
    ("kind", "required", "old", "new", "value"),
    [
        (EmbeddingArguments, ["--data", "a"], ["--data_split", "test"], "split", "test"),
        (NameArguments, ["--vocabulary", "scenes"], ["--data_split", "test"], "split", "test"),
        (NameArguments, ["--vocabulary", "scenes"], ["--output_file", "a.parquet"], "output", "a.parquet"),
        (NameArguments, ["--vocabulary", "scenes"], ["--no_centre"], "center", False),
        (NameArguments, ["--vocabulary", "scenes"], ["--centre", "no"], "center", False),
        (BiasArguments, ["--zero_shot", "a", "b"], ["--output_file", "a.json"], "output", "a.json"),
        (SearchArguments, ["--row", "1"], ["--output_file", "a.json"], "output", "a.json"),
        (ExplainArguments, ["--text", "a"], ["--output_file", "a.json"], "output", "a.json"),
    ],
)
def test_old_flags_work_and_warn(kind, required, old, new, value):
    parser = command_parser("command", [NamedModelArguments, kind], "", "")
    with pytest.warns(DeprecationWarning, match=old[0]):
        model, args = parser.parse(["model", *required, *old])
    assert model.model == "model" and getattr(args, new) == value


def test_help_says_what_a_flag_that_turns_off_does():
    parser = command_parser("name", [NamedModelArguments, NameArguments], "", "")
    shown = parser.format_help()
    assert "hf-msae name MODEL" in shown and "Turn off --center" in shown and "centre" not in shown
