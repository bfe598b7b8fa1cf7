"""Which model, names, embeddings and pictures a command works on."""

import json
import shutil

import numpy as np
import pytest

from hf_msae._utils.images import to_rgb
from hf_msae.cli.bias import BiasArguments
from hf_msae.cli.explain import ExplainArguments
from hf_msae.cli.name import NameArguments
from hf_msae.cli.opening import (
    EmbeddingArguments,
    ImageArguments,
    NamedModelArguments,
    command_parser,
    weighted_concepts,
)
from hf_msae.cli.search import SearchArguments
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings


def test_words_with_numbers_are_concepts_with_weights():
    names = ["red", "star", "a=b", "night", "7"]
    table = ConceptTable.from_columns(names, np.ones(5), [None] * 5, np.zeros(5))
    found = weighted_concepts(["red", "star=2.5", "a=b=-1", "417=0", "night=1e-1"], 500, table)
    assert found == {0: 1.0, 1: 2.5, 2: -1.0, 417: 0.0, 3: 0.1}
    assert weighted_concepts(["7", "latent:7=2", "a=b"], 500, table) == {4: 1.0, 7: 2.0, 2: 1.0}
    for words, named in ((["red=much"], "'red=much'"), (["red", "red=2"], "twice.*'red'"), (["blue"], "'blue'")):
        with pytest.raises(ValueError, match=named):
            weighted_concepts(words, 500, table)


def test_the_names_that_come_with_the_model_or_others(place, tmp_path):
    _, concepts = NamedModelArguments(str(place.model)).open_msae()
    assert concepts.frame["name"][0] == "red"
    other, few = tmp_path / "other.parquet", tmp_path / "few.parquet"
    ConceptTable(place.table.frame.assign(name="other")).save(other)
    ConceptTable(place.table.frame.head(3)).save(few)
    source = NamedModelArguments(str(place.model), concepts=str(other))
    model = source.add_backbone(*source.open_msae())
    assert set(model.concepts.frame["name"]) == {"other"}
    assert model.backbone.name_or_path == place.backbone.name_or_path
    for file, error, named in ((few, ValueError, "3 latents.*160"), ("typo", FileNotFoundError, "typo.*hf-msae name")):
        with pytest.raises(error, match=named):
            NamedModelArguments(str(place.model), concepts=str(file)).open_msae()


def test_several_tables_and_unknown_devices_are_refused(place, tmp_path):
    shutil.copytree(place.model, tmp_path / "model")
    place.table.save(tmp_path / "model" / "concepts" / "words.parquet")
    with pytest.raises(ValueError, match=r"--concepts .*scenes\.parquet"):
        NamedModelArguments(str(tmp_path / "model")).open_msae()
    with pytest.raises(ValueError, match="'abacus'"):
        NamedModelArguments(str(place.model), device="abacus").open_msae()


def test_embeddings_of_another_width_are_refused(place, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((5, 7), np.float32))
    with pytest.raises(ValueError, match=r"7 columns.*128"):
        EmbeddingArguments(str(tmp_path / "wide.npy")).load(place.msae)


def pictures(dataset, rows):
    return [np.asarray(to_rgb(dataset[row]["image"])).tolist() for row in rows]


def test_pictures_are_those_that_were_embedded(place, tmp_path):
    embeddings, scenes = load_embeddings(place.test), place.scenes["test"]
    images = ImageArguments().open_images(embeddings)
    assert len(images) == len(scenes) and images["star"][:] == scenes["star"][:]
    assert pictures(images, [17]) == pictures(scenes, [17])
    assert ImageArguments(images="none").open_images(embeddings) is None
    assert ImageArguments().open_images(load_embeddings(np.ones((5, 7), np.float32))) is None

    scenes.rename_columns({"image": "photo", "caption": "image"}).save_to_disk(tmp_path / "other")
    images = ImageArguments(images=str(tmp_path / "other"), image_column="photo").open_images(embeddings)
    assert pictures(images, [17]) == pictures(scenes, [17]) and "photo" not in images.column_names

    file = shutil.copytree(place.test, tmp_path / "test") / "activations.json"
    content = json.loads(file.read_text())
    content["shards"][0]["skipped"] = [0, 2]  # rows that the extraction left out
    file.write_text(json.dumps(content))
    images = ImageArguments(images="scenes:test:242:3").open_images(load_embeddings(tmp_path / "test"))
    assert len(images) == 240 and pictures(images, [0, 1, 2]) == pictures(scenes, [1, 3, 4])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"images": "scenes:test:30:3"}, "30 rows.*240.*--images"),
        ({"images": "scenes:test:240:3", "image_column": "photo"}, "'photo'.*image, caption"),
        ({"images": "./typo"}, "typo.*--images.*'none'"),
    ],
)
def test_other_pictures_are_refused(place, arguments, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        ImageArguments(**arguments).open_images(load_embeddings(place.test))


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
