"""What can be checked without a model is checked before one is loaded, and the rest before the backbone is."""

import re
import signal
from importlib import import_module

import pytest

from hf_msae import MSAEModel, embeddings
from hf_msae.backbones import Backbone, image_text_data
from hf_msae.cli import doctor
from hf_msae.cli.evaluate import EvaluationArguments
from hf_msae.cli.search import SearchArguments
from hf_msae.cli.swordbench import SwordBenchArguments
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.hub import converters
from hf_msae.hub.reading import opening

SEARCH = ["--find", "red"]
PROBE = ["--target", "star", "--train_data", "TRAIN"]
BEFORE_MODELS = [
    ("explain", ["--image", "typo.png"], "typo.png"),
    ("explain", ["--text", "red", "--output", "FOLDER"], "folder"),
    ("explain", ["--text", "red", "--figure", "seen.txt"], r"seen\.txt"),
    ("explain", ["--text", "red", "--ks", "0"], "ks.*0"),
    ("explain", ["--text", "red", "--top", "0"], "top.*0"),
    ("explain", ["--text", "red", "--center_texts", "typo.txt"], r"typo\.txt"),
    ("explain", ["--text", "red", "--center_texts", "DATASET", "--caption_column", "typo"], "'typo'"),
    ("explain", ["--text", "red", "--percentile_data", "FOLDER/typo"], "typo"),
    ("explain", ["--text", "red", "--concepts", "typo"], "typo"),
    ("explain", ["--text", "red", "--device", "typo"], "'typo'"),
    ("name", ["--vocabulary", "typo.txt"], r"typo\.txt"),
    ("name", ["--vocabulary", "scenes", "--templates", "a {} {size}"], r"\{size\}"),
    ("name", ["--vocabulary", "scenes", "--max_words", "2"], "2.*--no_center"),
    ("name", ["--vocabulary", "scenes", "--vocabulary_column", "w"], "'scenes' has no columns"),
    ("name", ["--vocabulary", "scenes", "--null_samples", "0"], "null_samples.*0"),
    ("name", ["--vocabulary", "scenes", "--output", "/dev/null/names.parquet"], "/dev/null"),
    ("name", ["--vocabulary", "scenes", "--data", "typo.npy"], r"typo\.npy"),
    ("name", ["--data", "FOLDER/typo", "--label_columns", "red"], "typo"),
    ("search", ["--data", "FOLDER/typo", *SEARCH], "typo"),
    ("search", ["--data", "TEST", *SEARCH, "--index_k", "0"], "index_k.*0"),
    ("search", ["--data", "TEST", *SEARCH, "--output", "FOLDER"], "folder"),
    ("search", ["--data", "TEST", *SEARCH, "--output", "found.csv"], r"JSON.*found\.csv"),
    ("search", ["--data", "TEST", "--image", "typo.png"], r"typo\.png"),
    ("bias", ["--data", "TEST", *PROBE, "--alpha", "2"], "alpha.*2"),
    ("bias", ["--data", "TEST", *PROBE, "--output", "bias.parquet"], r"JSON.*bias\.parquet"),
    ("bias", ["--data", "TEST", *PROBE, "--num_samples", "1"], "num_samples.*1"),
    ("bias", ["--data", "TEST", *PROBE, "--num_null", "3"], "num_null.*3"),
    ("bias", ["--data", "TEST", "--target", "star", "--train_data", "FOLDER/typo"], "typo"),
    ("bias", ["--data", "TEST", "--classifier", "typo.safetensors"], r"typo\.safetensors"),
    ("bias", ["--data", "TEST", *PROBE, "--box_figure", "FOLDER"], "FOLDER"),
    ("report", ["--data", "TEST", "--output", "FOLDER"], "folder"),
    ("report", ["--data", "TEST", "--output", "NEW.html", "--num_concepts", "-1"], "num_concepts.*-1"),
    ("report", ["--data", "FOLDER/typo", "--output", "NEW.html"], "typo"),
    ("report", ["--data", "TEST", "--output", "NEW.html", "--metrics", "typo.json"], r"typo\.json"),
    ("evaluate", ["--data", "FOLDER/typo"], "typo"),
    ("evaluate", ["--data", "TEST", "--output", "FOLDER"], "folder"),
    ("evaluate", ["--data", "TEST", "--output", "metrics.CSV"], r"JSON.*metrics\.CSV"),
    ("evaluate", ["--data", "TEST", "--zero_shot_columns", "kind", "--zero_shot_template", "no brace"], "no brace"),
    ("evaluate", ["--data", "TEST", "--cknna_batch_size", "0"], "cknna_batch_size.*0"),
    ("evaluate", ["--data", "TEST", "--encoder_data", "typo.npy"], r"typo\.npy"),
    ("demo", ["--port", "-1"], "port.*-1"),
    ("demo", ["--max_images", "1"], "max_images.*1"),
    ("demo", ["--embeddings", "FOLDER/typo"], "typo"),
    ("convert", ["--output", "FOLDER"], "has files"),
    ("push_space", ["--dry_run", "FOLDER"], "already exists"),
    ("push", ["user/name", "--dry_run", "FOLDER"], "FOLDER"),
    ("push", ["no name"], "no name"),
]
BEFORE_BACKBONE = [
    ("explain", ["--text", "red", "--ks", "1000"], "160.*1000"),
    ("explain", ["--text", "red", "--percentile_data", "DATASET"], "no column"),
    ("name", ["--vocabulary", "scenes", "--data", "TEST", "--split", "typo"], "'typo'"),
    ("name", ["--vocabulary", "scenes", "--data", "TEST", "--embedding_column", "typo"], "'typo'"),
    ("name", ["--vocabulary", "scenes", "--data", "FEW"], "20.*3"),
    ("name", ["--data", "TEST", "--label_columns", "typo"], "'typo'"),
    ("search", ["--data", "TEST", "--text", "red", "--edits", "typo=2"], "'typo'"),
    ("search", ["--data", "TEST", "--text", "red", "--index_dir", "FOLDER"], "not an index"),
    ("search", ["--data", "TEST", "--text", "red", "--figure", "NEW.png", "--images", "typo.parquet"], "typo"),
    ("bias", ["--data", "TEST", "--zero_shot", "a", "b", "--indices", "typo"], "'typo'"),
    ("report", ["--data", "TEST", "--output", "NEW.html", "--k", "1000"], "160.*1000"),
    ("report", ["--data", "TEST", "--output", "NEW.html", "--images", "typo.parquet"], "typo"),
    ("report", ["--data", "TEST", "--output", "NEW.html", "--index_dir", "FOLDER"], "not an index"),
    (
        "report",
        ["--data", "TEST", "--output", "NEW.html", "--bias_targets", "star=typo", "--train_data", "TRAIN"],
        "'typo'",
    ),
    ("evaluate", ["--data", "TEST", "--ks", "1000", "--zero_shot_columns", "caption"], "160.*1000"),
    ("evaluate", ["--data", "TEST", "--zero_shot_columns", "typo"], "'typo'"),
    ("evaluate", ["--data", "TEST", "--zero_shot_columns", "caption", "--other_seeds", "MODEL"], "another seed"),
    (
        "evaluate",
        ["--data", "TEST", "--zero_shot_columns", "caption", "--encoder_data", "FEW", "--encoder", "other"],
        "has 3",
    ),
    ("extract", ["--output_dir", "NEW", "--image_column", "typo"], "'typo'"),
    ("extract", ["--output_dir", "NEW", "--keep_columns", "typo"], "'typo'"),
    ("extract", ["--output_dir", "NEW", "--hook_point", "text_embeds", "--text_column", "typo"], "'typo'"),
    ("demo", ["--embeddings", "FEW"], "8 rows.*embeddings of 3"),
    ("demo", ["--concepts", "typo"], "typo"),
]
BEFORE_DATASET = [
    ("extract", ["--output_dir", "FOLDER"], "not empty"),
    ("extract", ["--output_dir", "NEW", "--batch_size", "0"], "batch_size.*0"),
    ("extract", ["--output_dir", "NEW", "--hook_point", "typo"], "'typo'"),
    (
        "extract",
        ["--output_dir", "NEW", "--hook_point", "vision.layers.1", "--tokens_per_row", "0"],
        "tokens_per_row.*0",
    ),
    ("extract", ["--output_dir", "NEW", "--hook_point", "text_embeds"], "text_column"),
    ("extract", ["--output_dir", "NEW", "--hub_dataset_id", "no name"], "no name"),
    ("train", ["--train_data", "TRAIN", "--output_dir", "NEW", "--nesting_ks", "1000", "--num_latents", "16"], "1000"),
    ("train", ["--train_data", "TRAIN", "--output_dir", "MODEL"], "MODEL"),
    ("train", ["--train_data", "FOLDER/typo", "--output_dir", "NEW"], "typo"),
    ("quickstart", ["--output_dir", "NEW", "--num_eval_scenes", "3"], "num_eval_scenes.*3"),
    ("quickstart", ["--output_dir", "NEW", "--learning_rate", "-1"], "learning_rate.*-1"),
    ("quickstart", ["--output_dir", "NEW", "--num_latents", "63"], "num_latents.*63"),
    ("quickstart", ["--output_dir", "MODEL"], "MODEL"),
]

DATA, LATENT = ["--data", "d"], ["m", "--control", "c", "--output", "o", "--latents", "1", "--vocabulary", "scenes"]
RETRIEVED, OWN = ["--images", "i"], ["--data", "d", "--target", "t", "--concepts", "b", "--bias", "b", "--output", "o"]
WITHOUT_EFFECT = [
    ("evaluate", ["m", *DATA, "--zero_shot_template", "{}"], "zero_shot_template .*--zero_shot_columns"),
    ("evaluate", ["m", *DATA, "--allow_other_backbone"], "allow_other_backbone .*--zero_shot_columns"),
    ("evaluate", ["m", *DATA, "--backbone", "b"], "backbone .*--zero_shot_columns"),
    ("evaluate", ["m", *DATA, "--train_split", "s"], "train_split .*--probe_columns"),
    ("evaluate", ["m", *DATA, "--sparse_probe_ks", "3"], "sparse_probe_ks .*--probe_columns"),
    ("search", ["m", *DATA, "--row", "1", "--edit_mode", "set"], "edit_mode .*--edits"),
    ("search", ["m", *DATA, "--row", "1", "--images", "i"], "images .*--figure"),
    ("explain", ["m", "--text", "a", "--caption_column", "c"], "caption_column .*--center_texts"),
    ("bias", ["m", *DATA, "--zero_shot", "a", "b", "--regularization", "1"], "regularization .*--train_data"),
    ("bias", ["m", *DATA, "--zero_shot", "a", "b", "--top", "9"], "top .*--figure or --box_figure"),
    ("report", ["m", *DATA, "--output", "o.html", "--train_split", "s"], "train_split .*--train_data"),
    ("name", ["m", "--vocabulary", "v", "--split", "s"], "split .*--data"),
    ("name", ["m", "--vocabulary", "v", "--vocabulary_split", "s"], "vocabulary_split .*--vocabulary_column"),
    ("label", [*LATENT, *RETRIEVED, "--truth_split", "s"], "truth_split .*--truth"),
    ("label", [*LATENT, *RETRIEVED, "--price_output", "2"], "price_output .*proposer is inference"),
    ("label", [*LATENT, *RETRIEVED, "--api_key_variable", "K"], "api_key_variable .*proposer or the imager is"),
    ("label", [*LATENT, *RETRIEVED, "--hard_negatives", "3"], "hard_negatives .*scenes alone, not by retrieval"),
    ("extract", ["--backbone", "b", "--dataset", "d", "--output_dir", "o", "--tokens_per_row", "4"], "--hook_point"),
    ("extract", ["--backbone", "b", "--dataset", "d", "--output_dir", "o", "--hub_private_repo"], "--hub_dataset_id"),
    ("train", ["--train_data", "t", "--output_dir", "o", "--eval_split", "s"], "eval_split .*eval_data"),
    ("swordbench", ["--tasks", "gaussian", "--output", "o", "--test_share", "0.3"], "test_share .*--data"),
    ("swordbench", [*OWN, "--split_column", "s", "--test_share", "0.3"], "--split_column .*--test_share"),
    ("swordbench", [*OWN, "--methods", "lda", "--num_latents", "3"], "--num_latents .*msae"),
    ("red_team", ["soils", "--output", "o", "--num_fields", "90"], "--num_fields .*synthetic"),
    ("red_team", ["soils", "--output", "o", "--invalid", "drop"], "--invalid .*soils"),
    ("red_team", ["soils", "--output", "o", "--expected", "a"], "--expected .*--msae"),
    ("red_team", ["d", "--msae", "m", "--label", "l", "--output", "o", "--targets", "pH"], "--targets .*embeddings"),
]


@pytest.mark.parametrize(("command", "flags", "named"), WITHOUT_EFFECT)
def test_a_flag_that_has_no_effect_is_refused_with_what_it_belongs_to(command, flags, named, capsys):
    with pytest.raises(SystemExit) as exit:
        import_module(f"hf_msae.cli.{command}").main(flags)
    assert exit.value.code in (1, 2) and re.search(named, message := capsys.readouterr().err), message


def test_what_is_off_may_be_turned_off():
    assert SearchArguments(row=1, images="none").images == "none"
    assert EvaluationArguments("m", "d", sparse_probe_samples=0).sparse_probe_samples == 0
    assert SwordBenchArguments("o", tasks=["gaussian"], balance_test=False).balance_test is False
    with pytest.raises(ValueError, match=r"images_split .*--figure"):
        SearchArguments(row=1, images="none", images_split="s")


def test_a_folder_has_no_revision(place, capsys):
    with pytest.raises(ValueError, match=rf"{place.model} is a folder.*'v2'"):
        opening.load_msae(place.model, "v2")
    with pytest.raises(SystemExit):
        doctor.main([str(place.model), "--revision", "v2"])
    assert re.search(rf"{place.model} is a folder.*'v2'", capsys.readouterr().err)


@pytest.fixture(scope="module")
def few(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "embeddings"
    with EmbeddingWriter(folder, {"image_embeds": 128}) as writer:
        writer.write({"image_embeds": load_embeddings(place.test)[:3]})
    return folder


@pytest.fixture(scope="module")
def dataset(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "scenes"
    place.scenes["test"].select(range(3)).save_to_disk(str(folder))
    return folder


@pytest.fixture
def refused_before(place, few, dataset, tmp_path, monkeypatch, capsys):
    """Run a command that has to refuse its flags before one of some functions is called."""

    def refused_before(reached, command, flags, pattern):
        for where, name in reached:
            monkeypatch.setattr(where, name, lambda *_, name=name, **__: pytest.fail(f"{name} is reached"))
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").touch()
        places = {"TEST": place.test, "TRAIN": place.train, "MODEL": place.model, "FEW": few, "NEW": tmp_path / "new"}
        places |= {"DATASET": dataset, "FOLDER": tmp_path / "taken"}

        def put(word):
            return re.sub("|".join(places), lambda found: str(places[found[0]]), word)

        first = {"train": [], "quickstart": [], "push_space": ["user/name"]}.get(command, [place.model])
        if command == "extract":
            first = ["--backbone", "scenes", "--dataset", "scenes:test:3"]
        if command == "demo":
            first += ["--dataset", "scenes:test:8:3", "--port", "0"]
        with pytest.raises(SystemExit) as exit:
            import_module(f"hf_msae.cli.{command}").main([*map(str, first), *map(put, flags)])
        message = capsys.readouterr().err
        assert exit.value.code in (1, 2) and "Traceback" not in message
        assert re.search(put(pattern), message), message

    return refused_before


@pytest.mark.parametrize(("command", "flags", "pattern"), BEFORE_MODELS)
def test_flags_paths_and_names_are_checked_before_a_model_is_loaded(refused_before, command, flags, pattern):
    loading = [(opening, "load_msae"), (converters, "read_checkpoint"), (MSAEModel, "from_pretrained")]
    refused_before([*loading, (Backbone, "from_pretrained")], command, flags, pattern)


@pytest.mark.parametrize(("command", "flags", "pattern"), BEFORE_BACKBONE)
def test_what_depends_on_the_msae_or_the_data_is_checked_before_the_backbone(refused_before, command, flags, pattern):
    refused_before([(Backbone, "from_pretrained")], command, flags, pattern)


def test_a_refused_page_leaves_the_signals_of_the_process_alone(refused_before):
    before = signal.getsignal(signal.SIGTERM)
    refused_before([(Backbone, "from_pretrained")], "demo", ["--image_column", "typo"], "'typo'")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("command", "flags", "pattern"), BEFORE_DATASET)
def test_what_does_not_depend_on_the_data_is_checked_before_they_are_opened(refused_before, command, flags, pattern):
    opened = [(image_text_data, "open_dataset"), (embeddings, "load_embeddings"), (Backbone, "from_pretrained")]
    refused_before(opened, command, flags, pattern)
