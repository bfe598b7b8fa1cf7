"""`hf-msae label`: labels beside names, and what is refused before anything is loaded."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from datasets import Dataset
from PIL import Image

from hf_msae.cli import label
from hf_msae.cli.opening import NamedModelArguments
from hf_msae.cli.pictures import KnownPictures
from hf_msae.concepts import ConceptTable
from hf_msae.neuron_labels import Control, FunctionNeuron, NeuronLabels, label_neuron
from hf_msae.neuron_labels.budget import Spent
from hf_msae.neuron_labels.evaluation import LabelChecks
from hf_msae.neuron_labels.services import ServiceError
from tests.neuron_labels.color_world import ColorImager, ListProposer, redness


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("red\nstar\nnight\nblurry\nsnow\nframe\n")
    return path


COMMON = ["--control", "scenes:test:40:5", "--imager", "scenes", "--iterations", "1", "--confirm_images", "5"]


def test_labels_history_figures_and_table_are_written(tmp_path, capsys):
    (words := tmp_path / "words.txt").write_text("red\nstar\nnight\n")
    arguments = ["scenes-image", "--latents", "3", "417", *COMMON, "--vocabulary", str(words), "--figures", "1"]
    arguments += ["--images_per_concept", "2", "--hard_negatives", "0"]
    label.main([*arguments, "--output", str(tmp_path / "out")])
    found = NeuronLabels.load(tmp_path / "out" / "labels.json")
    printed = capsys.readouterr().out
    (one,) = found.labels
    assert one.latent == 3 and one.verdict() in printed and list(found.problems) == ["latent 417"]  # it is dead
    checks = LabelChecks.load(tmp_path / "out" / "checks.json")
    assert checks.verdict() in printed and checks.labels["num_images"].tolist() == [20]
    assert "No language model was asked" in printed
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 1
    table = ConceptTable.load(tmp_path / "out" / "concepts.parquet")
    row = table[one.latent].iloc[0]
    shown = (one.label, one.confirmed) if one.label else (None, None)
    assert (row["line_label"] or None, row["line_confirmed"]) == shown
    assert isinstance(row["name"], str)  # the released names are still there
    assert row["line_unchecked"] == checks.labels.set_index("neuron").loc[one.neuron, "reason"]
    again = json.loads((tmp_path / "out" / "labels.json").read_text())
    label.main([*arguments, "--figures", "0", "--output", str(tmp_path / "out")])
    assert NeuronLabels.load(tmp_path / "out" / "labels.json").to_dict()["labels"] == again["labels"]
    assert "made 0 pictures" in capsys.readouterr().out


def test_words_may_be_a_column_of_a_table(tmp_path, capsys, monkeypatch):
    (table := tmp_path / "words.csv").write_text("word,count\nred,2\nstar,1\n")
    arguments = ["scenes-image", "--latents", "3", *COMMON, "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # before anything is opened
        patch.setattr(label.Pictures, "open", None)
        label.main([*arguments, "--vocabulary", str(table)])
    assert "word, count with column= or --vocabulary_column" in capsys.readouterr().err
    args = label.LabelArguments("c", "o", [3], vocabulary=str(table), vocabulary_column="word", imager="scenes")
    assert label._words(args).words == ("red", "star")


@pytest.mark.slow
def test_labels_are_checked_on_the_pictures_of_truth(words, tmp_path, capsys):
    from hf_msae.scenes import load_scenes

    tags = [["night"], ["snow"]] * 20  # what the column says counts, whatever is in the picture
    pictures = Dataset.from_dict({"image": load_scenes("validation", 40)["image"], "tags": tags})
    pictures.save_to_disk(tmp_path / "pictures")
    arguments = ["scenes-image", "--latents", "86", *COMMON, "--vocabulary", str(words), "--figures", "0"]
    label.main([*arguments, "--truth", str(tmp_path / "pictures"), "--output", str(tmp_path / "out")])
    (one,) = NeuronLabels.load(tmp_path / "out" / "labels.json").labels
    checks = LabelChecks.load(tmp_path / "out" / "checks.json")
    assert checks.verdict() in capsys.readouterr().out
    assert (one.guess, checks.labels[["num_images", "num_shown", "reason"]].values.tolist()) == (
        "night",
        [[40, 20, ""]],
    )


def test_truth_leaves_out_the_control_pictures_of_the_search(tmp_path, caplog):
    pictures = [Image.new("RGB", (8, 8), (5 * shade, 0, 0)) for shade in range(40)]
    tags = [[f"tag {shade}", "even"] if shade % 2 == 0 else [f"tag {shade}"] for shade in range(40)]
    dataset = Dataset.from_dict({"image": pictures, "tags": tags})
    control = Control(pictures, progress=False)
    dataset.save_to_disk(tmp_path / "all")
    known = KnownPictures.open(str(tmp_path / "all"), None, "image", control)
    assert list(known.rows) == control.confirm_rows.tolist()
    is_even = known.truth.presence[:, known.truth.concepts.index("even")]
    assert is_even.tolist() == (control.confirm_rows % 2 == 0).tolist()
    assert "20 of the 40" in caplog.text and str(tmp_path / "all") in caplog.text
    dataset.select(control.search_rows).save_to_disk(tmp_path / "searched")
    with pytest.raises(ValueError, match="searched"):
        KnownPictures.open(str(tmp_path / "searched"), None, "image", control)
    caplog.clear()
    dataset.select(control.confirm_rows).save_to_disk(tmp_path / "fresh")
    assert len(KnownPictures.open(str(tmp_path / "fresh"), None, "image", control).rows) == 20 and not caplog.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([], "latents"),
        (["--latents", "3", "3"], "3 3"),
        (["--latents", "3", "--all_active"], "all_active"),
        (["--latents", "3", "--imager", "dalle:x"], "dalle:x"),
        (["--latents", "3", "--imager", "retrieval"], "--images"),
        (["--latents", "3", "--proposer", "transformers"], "transformers"),
        (["--latents", "3", "--proposer", "gpt:x"], "gpt:x"),
        (["--latents", "3", "--budget_images", "0"], "images"),
        (["--latents", "3", "--iterations", "-1"], "iterations"),
        (["--latents", "999999"], "999999"),
        (["--latents", "3", "--confirm_images", "3"], "confirm_images"),
        (["--latents", "3", "--seed", "-1"], "seed"),
        (["--latents", "3", "--budget_cost", "2"], "price"),
        (["--latents", "3", "--style", "photo"], "style"),
        (["--latents", "3", "--hard_negatives", "-1"], "hard_negatives"),
        (["--latents", "3", "--proposer", "inference:x", "--api_key_variable", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["--latents", "3", "--vocabulary", "scenes", "--vocabulary_column", "word"], "vocabulary_column is a column"),
        (["--latents", "3", "--base_url", "http://127.0.0.1:1/v1"], "base_url"),
        (
            ["--latents", "3", "--imager", "inference:x", "--proposer", "inference:x", "--base_url", "http://h"],
            "base_url",
        ),
    ],
)
def test_what_is_wrong_is_named(wrong, named, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        label.main(["scenes-image", *COMMON, "--vocabulary", str(words), "--output", str(tmp_path / "out"), *wrong])
    assert ended.value.code not in (0, None)
    assert named in capsys.readouterr().err


def tables(folder, **names):
    (folder / "concepts").mkdir(parents=True)
    for stem, name in names.items():
        table = ConceptTable.from_columns([name, name], [0.5, 0.1], [None, None], [0.4, 0.0], q_value=[0.001, 1])
        table.save(folder / "concepts" / f"{stem}.parquet")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "concepts/a.parquet"),
        ({"concepts": "b"}, "concepts/b.parquet"),
        ({"concepts": "b.parquet"}, "concepts/b.parquet"),
        ({"subfolder": "small"}, "small/concepts/c.parquet"),
        ({"subfolder": "large"}, "large/concepts/labels.parquet"),
    ],
)
def test_labels_are_added_to_the_table_that_is_read(flags, expected, tmp_path):
    tables(tmp_path, a="red", b="blue")
    tables(tmp_path / "small", c="green")
    source = NamedModelArguments(model=str(tmp_path), **flags)
    assert label._table_file(source) == tmp_path / expected


def test_labels_of_an_earlier_run_stay_if_they_are_of_the_same_names(tmp_path):
    table = ConceptTable.from_columns(["red", None], [0.5, 0.1], ["blue", None], [0.4, 0.0])
    file = tmp_path / "concepts.parquet"
    assert label._with_earlier_labels(table, file) is table
    ConceptTable(table.frame.assign(line_label=["crimson", None])).save(file)
    assert label._with_earlier_labels(table, file)[0]["line_label"].tolist() == ["crimson"]
    other = ConceptTable.from_columns(["blue", None], [0.5, 0.1], ["red", None], [0.4, 0.0])
    assert label._with_earlier_labels(other, file) is other


def test_names_that_are_no_concepts_are_not_started_from():
    names = ["Red star", "12", None, "word " * 9]
    table = ConceptTable.from_columns(names, [0.5] * 4, ["stars", *[None] * 3], [0.4] * 4)
    found = label._names(SimpleNamespace(concepts=table))
    assert found == {0: ["red star", "stars"], 1: [], 2: [], 3: []}


def test_prices_style_and_device_reach_what_makes_concepts_and_pictures(monkeypatch):
    made = {}
    for name in ("InferenceProposer", "TransformersProposer", "InferenceImager", "DiffusersImager"):
        keep = lambda *args, _name=name, **options: made.update({_name: (args, options)})  # noqa: E731
        monkeypatch.setattr(f"hf_msae.neuron_labels.{name}", keep, raising=False)
    common = {"control": "c", "output": "o", "latents": [1]}
    prices = {"price_input": 1.0, "price_output": 2.0, "price_image": 0.03, "budget_cost": 5.0}
    args = label.LabelArguments(**common, proposer="inference:m", imager="inference:t", style="photo", **prices)
    label._proposer(args, None), label._imager(args, None, None, None)
    assert made["InferenceProposer"][1]["prices"] == (1.0, 2.0)
    assert (made["InferenceImager"][1]["price"], made["InferenceImager"][1]["style"]) == (0.03, "photo")
    args = label.LabelArguments(**common, proposer="transformers:m", imager="diffusers:t", style="a {} of clay")
    label._proposer(args, "cuda"), label._imager(args, None, None, "cuda")
    assert made["TransformersProposer"][1]["device"] == made["DiffusersImager"][1]["device"] == "cuda"
    assert made["DiffusersImager"][1]["style"] == "a {} of clay"


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [("org/m", "org/m", None), ("org/m/q4.gguf", "org/m", "q4.gguf"), ("q4.gguf", ".", "q4.gguf")],
)
def test_a_file_of_gguf_is_read_from_its_folder(name, folder, file, monkeypatch):
    made = []
    keep = lambda model, **options: made.append((model, options["gguf_file"]))  # noqa: E731
    monkeypatch.setattr("hf_msae.neuron_labels.TransformersProposer", keep, raising=False)
    args = label.LabelArguments("c", "o", latents=[1], proposer=f"transformers:{name}", imager="scenes")
    label._proposer(args, None)
    assert made == [(folder, file)]


@pytest.fixture
def failing_run(words, tmp_path, monkeypatch):
    """Returns a function that labels latent 3 with a function instead of `label_neurons`, which has to fail."""

    def run(labeling, *flags):
        monkeypatch.setattr("hf_msae.neuron_labels.label_neurons", labeling, raising=False)
        arguments = ["scenes-image", "--latents", "3", *COMMON, "--vocabulary", str(words), *flags]
        with pytest.raises(SystemExit) as ended:
            label.main([*arguments, "--output", str(tmp_path / "out")])
        assert ended.value.code == 1

    return run


def test_a_run_without_any_label_fails(failing_run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checks.json").write_text("of an earlier run")
    spent = asdict(Spent(calls=7, input_tokens=1234, output_tokens=56, cost=2.5)) | {"seconds": 0}
    failing_run(lambda *args, **options: NeuronLabels((), spent, {"latent 3": "it is dead"}))
    printed = capsys.readouterr().out
    assert "latent 3: no label: it is dead" in printed and "cost of 2.50" in printed
    assert "7 calls (1,234 tokens of prompts and 56 of answers)" in printed
    assert not (tmp_path / "out" / "checks.json").exists()


def test_a_service_that_fails_ends_the_command_with_its_message(failing_run, tmp_path, capsys):
    def failing(*args, **options):
        raise ServiceError("the model at http://127.0.0.1:1/v1 failed (6 attempts)")

    failing_run(failing)
    said = capsys.readouterr().err
    assert "http://127.0.0.1:1/v1" in said and str(tmp_path / "out") in said


def test_labels_that_were_found_before_a_service_failed_are_written(failing_run, tmp_path, capsys):
    colors = [Image.new("RGB", (8, 8), (9 * shade, 0, 0)) for shade in range(20)]
    options = {"start": ["red"], "iterations": 0, "progress": False, "output_dir": tmp_path / "out"}
    found = label_neuron(FunctionNeuron(redness, "latent 3"), ListProposer(), ColorImager(), colors, **options)
    error = ServiceError("no credit", 402)
    error.labels = NeuronLabels((replace(found, latent=3),), found.spent)

    def failing(*args, **options):
        raise error

    failing_run(failing, "--figures", "0")
    printed = capsys.readouterr()
    assert "no credit" in printed.err and found.verdict() in printed.out
    table = ConceptTable.load(tmp_path / "out" / "concepts.parquet")
    assert table[3]["line_label"].tolist() == [found.label] == ["red"]
