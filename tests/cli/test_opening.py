"""Which model, names, embeddings and pictures a command works on."""

import json
import logging
import shutil
import warnings

import datasets
import numpy as np
import pytest
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

from hf_msae._utils.images import to_rgb
from hf_msae._utils.quiet import hide_library_lines
from hf_msae.cli.evaluate import main as evaluate_main
from hf_msae.cli.explain import ExplainArguments
from hf_msae.cli.explain import main as explain
from hf_msae.cli.extract import main as extract_main
from hf_msae.cli.name import NameArguments
from hf_msae.cli.opening import (
    EmbeddingArguments,
    ImageArguments,
    NamedModelArguments,
    command_parser,
    described,
    strongest_rows,
    weighted_concepts,
)
from hf_msae.cli.search import main as search
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


def test_of_several_tables_the_one_with_the_most_validated_names_is_used(place, tmp_path):
    shutil.copytree(place.model, tmp_path / "model")
    names = place.table.frame.assign(name="other")
    for file, q_value in (("a_few", 0.9), ("words", 0.01)):
        ConceptTable(names.assign(q_value=q_value)).save(tmp_path / "model" / "concepts" / f"{file}.parquet")
    with pytest.warns(UserWarning, match=r"words\.parquet.*scenes\.parquet.*--concepts"):
        _, concepts = NamedModelArguments(str(tmp_path / "model")).open_msae()
    assert len(concepts.validated()) == len(names) and set(concepts.frame["name"]) == {"other"}
    _, concepts = NamedModelArguments(str(tmp_path / "model"), concepts="scenes").open_msae()
    assert concepts.frame["name"][0] == "red"


def test_where_no_name_is_validated_commands_say_why_and_how_to_see_pictures(place, tmp_path, capsys):
    assert NamedModelArguments("model").remark_on_names(place.table, 3) == ""
    assert NamedModelArguments("model").remark_on_names(None, 3) == ""
    guesses = ConceptTable(place.table.frame.assign(p_value=0.31, q_value=0.93))
    guesses.save(tmp_path / "guesses.parquet")
    flags = [str(place.model), "--concepts", str(tmp_path / "guesses.parquet")]
    for command, more, latent in (
        (explain, ["--image", str(place.picture), "--output", str(tmp_path / "seen.json")], None),
        (search, ["--data", str(place.test), "--find", "red", "--index_dir", str(tmp_path / "index")], 0),
    ):
        command([*flags, *more])
        printed = capsys.readouterr().out
        if latent is None:
            latent = json.loads((tmp_path / "seen.json").read_text())["explanations"][0]["concepts"][0]["latent"]
        assert "lowest p-value is 0.31" in printed and f"{place.model} --data" in printed
        assert f"--find latent:{latent} " in printed


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
        (NameArguments, ["--vocabulary", "scenes"], ["--no_centre"], "center", False),
        (NameArguments, ["--vocabulary", "scenes"], ["--centre", "no"], "center", False),
        (ExplainArguments, ["--text", "a"], ["--output_file", "a.json"], "output", "a.json"),
    ],
)
def test_old_flags_work_and_warn(kind, required, old, new, value):
    parser = command_parser("command", [NamedModelArguments, kind], "", "")
    with pytest.warns(DeprecationWarning, match=old[0]):
        model, args = parser.parse(["model", *required, *old])
    assert model.model == "model" and getattr(args, new) == value


@pytest.fixture
def libraries(monkeypatch):
    """What commands change about the libraries, put back afterwards."""
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DATASETS_VERBOSITY"):
        monkeypatch.delenv(name, raising=False)
    before = transformers_logging.get_verbosity(), hub_logging.get_verbosity(), datasets.logging.get_verbosity()
    yield
    for module, level in zip((transformers_logging, hub_logging, datasets.logging), before, strict=True):
        module.set_verbosity(level)


def test_nothing_but_the_answer_is_printed_to_a_file(place, libraries, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        place.scenes["test"][number]["image"].save(pictures / f"{number}.png")
    out = str(tmp_path / "out")
    extract_main(["--backbone", "scenes", "--dataset", str(pictures), "--output_dir", out, "--use_cpu"])
    evaluate_main([str(place.model), "--data", str(place.test), "--use_cpu", "--cknna_batch_size", "64"])
    printed = capsys.readouterr()
    assert printed.err == "" and "FVU" in printed.out and "other columns: file_name" in printed.out
    assert load_embeddings(out).dataset["file_name"][:] == ["0.png", "1.png", "2.png"]
    for module in (transformers_logging, hub_logging, datasets.logging):
        assert module.get_verbosity() == logging.ERROR


def test_the_environment_decides_what_libraries_log(libraries, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    transformers_logging.set_verbosity_info()
    hide_library_lines()
    assert transformers_logging.get_verbosity() == logging.INFO and hub_logging.get_verbosity() == logging.ERROR


def test_a_warning_is_one_line_without_code():
    parser, before = command_parser("name", [NamedModelArguments], "", ""), warnings.formatwarning
    with parser.reporting_errors():
        assert warnings.formatwarning("few rows", UserWarning, "x.py", 1) == "hf-msae name: warning: few rows\n"
    assert warnings.formatwarning is before


def test_rows_are_shown_by_what_is_known_of_them(place):
    data = load_embeddings(place.test)
    assert described(data, [3]) == {"caption": [data.dataset["caption"][3]]}
    other = load_embeddings(data.dataset.rename_column("caption", "what it shows"))
    assert described(other, [3, 5])["what it shows"] == [data.dataset["caption"][row] for row in (3, 5)]
    assert described(load_embeddings(data[:]), [3]) == {}
    lines = strongest_rows(place.msae, data, [0, 1]).splitlines()
    assert lines[0].split() == ["latent", "row", "caption"] and len(lines) == 9
    latent, row, start = lines[1].split()[:3]
    assert latent == "0" and int(row) == data[:].matmul(place.msae.encoder[:, 0]).argmax().item()
    assert data.dataset["caption"][int(row)].startswith(start)
    assert "caption" not in strongest_rows(place.msae, load_embeddings(data[:]), [0])


def test_help_says_what_a_flag_that_turns_off_does():
    parser = command_parser("name", [NamedModelArguments, NameArguments], "", "")
    shown = parser.format_help()
    assert "hf-msae name MODEL" in shown and "Turn off --center" in shown and "centre" not in shown
