"""The card says what lies in the folder, and nothing else; its metadata is valid."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from hf_msae import MSAEModel
from hf_msae._utils.fingerprint import model_fingerprint
from hf_msae.concepts import ConceptTable
from hf_msae.hub import render_model_card, write_model_card
from hf_msae.hub.publishing.card_edits import is_edited
from hf_msae.hub.publishing.markdown import escaped
from hf_msae.hub.publishing.verification import read_metrics
from hf_msae.training.record import TrainingRecord
from tests.hub.cards import N, metrics_of, save_run, section, summary


def test_metadata_is_valid_and_carries_the_figures_of_the_table(run):
    path = write_model_card(run)
    card = ModelCard.load(path)
    assert card.data.library_name == "hf_msae" and card.data.pipeline_tag == "feature-extraction"
    assert card.data.base_model == "google/siglip-tiny" and card.data.license == "apache-2.0"
    assert set(card.data.tags) == {"sparse-autoencoder", "matryoshka", "interpretability", "msae", "siglip"}
    written = {result.metric_name: result.metric_value for result in card.data.eval_results}
    for k, row in metrics_of(run)["by_k"].items():
        shown = [f"{row[key]:.4g}" for key in ("fvu", "cosine_similarity", "cosine_similarity_centered")]
        assert f"| {k}{' (all)' if int(k) == N else ''} | {' | '.join(shown)} |" in card.text
        assert written[f"fvu at k={k}"] == float(shown[0]) == pytest.approx(row["fvu"], rel=5e-4)
    front = yaml.safe_load(path.read_text().split("---\n")[1])
    assert front["model-index"][0]["name"] == "my-msae"
    assert yaml.safe_load(yaml.safe_dump(front)) == front == yaml.safe_load(card.data.to_yaml())
    assert not is_edited(path.read_text())


def test_levels_with_the_same_figures_share_a_row_and_each_has_its_result(run):
    metrics = metrics_of(run)
    row = metrics["by_k"]["64"]
    metrics["by_k"] |= {"128": row, "256": row, "512": {**row, "fvu": row["fvu"] * 2}}
    metrics["full_code"] = {"k": 512, "name": "512 (all)", "keeps": "all active latents"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    card = ModelCard.load(write_model_card(run))
    assert f"| 64 to 256 | {row['fvu']:.4g} |" in card.text and f"| 512 (all) | {row['fvu'] * 2:.4g} |" in card.text
    assert {r.metric_name for r in card.data.eval_results if r.metric_type == "fvu"} == {
        f"fvu at k={k}" for k in (8, 64, 128, 256, 512)
    }


@pytest.mark.parametrize(
    ("settings", "table", "result"),
    [
        ({"activation": "topk", "nesting": "none", "k": 4}, "| k | FVU", ("| 4 |", "fvu at k=4")),
        ({"activation": "batch_topk", "nesting": "none", "k": 4}, "| code | FVU", ("| threshold |", "above the thr")),
        ({"nesting": "prefix"}, "| first latents | FVU", ("| 16 |", "fvu of the first 16 latents")),
    ],
)
def test_tables_and_results_call_levels_what_they_are(tmp_path, settings, table, result):
    run = save_run(tmp_path / "run", names=False, record=False, **settings)
    read_metrics(run / "metrics.json", MSAEModel.from_pretrained(run))  # what a release checks
    card = ModelCard(render_model_card(run))
    quality = section(card.content, "Quality")
    assert table in quality and result[0] in quality and "| 64 |" not in quality
    assert any(result[1] in each.metric_name for each in card.data.eval_results)
    rewritten = metrics_of(run)
    if rewritten.get("by_width"):
        rewritten["by_width"]["16"]["l0"] = 17.0
        (run / "metrics.json").write_text(json.dumps(rewritten))
        with pytest.raises(ValueError, match="l0 of the first 16 latents is 17"):
            read_metrics(run / "metrics.json", MSAEModel.from_pretrained(run))


def test_text_shows_training_concepts_figures_and_versions(run):
    text = write_model_card(run).read_text()
    training = section(text, "Training")
    assert (
        "| learning_rate | 0.0003 |" in training.split("<details>")[0]
        and "| seed | 42 |" in training.split("<details>")[1]
    )
    assert "secret" not in text and "hf-msae train --k 3" in training
    assert f"torch {torch.__version__}" in training and "200 embeddings" in training
    assert "| nesting_ks | 8, 64 |" in training and "jump_relu_threshold" not in training
    assert "![Quality at every level](quality_against_k.png)" in text and "training.png" not in text


def test_names_stand_with_their_evidence_valid_ones_first(run):
    table = ConceptTable.load(run / "concepts" / "words.parquet")
    frame = table.frame.assign(q_value=0.5, auroc=0.875)
    latents = [5, 9]
    frame.loc[latents, ["name", "similarity", "q_value", "activation_name", "agrees"]] = [
        ["red", 0.1, 0.01, "red", True],
        ["blue|*", 0.2, 0.04, "green", False],
    ]
    ConceptTable(frame, {**table.provenance, "words": 3}).save(run / "concepts" / "words.parquet")
    text = section(render_model_card(run), "Best-named concepts")
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 2, "the others are no more than chance"
    assert rows[0].startswith(r"| 9 | blue\|\* | 0.200 |") and rows[0].endswith("| 0.04 | green | 0.875 |")
    assert rows[1].startswith("| 5 | red | 0.100 |") and rows[1].endswith("| 0.01 | red ✓ | 0.875 |")
    assert "2 of 64 " in text and "1 of these" in text
    ConceptTable(frame.drop(columns="q_value")).save(run / "concepts" / "words.parquet")
    assert "no q-values" in section(render_model_card(run), "Best-named concepts")


def test_labels_by_line_that_are_confirmed_are_listed(run):
    table = ConceptTable.load(run / "concepts" / "words.parquet")
    assert "Labels by" not in render_model_card(run)
    frame = table.frame.assign(line_label=None, line_metric=None, line_confirmed=None, line_meanings=None)
    frame = frame.assign(line_score=np.nan, line_low=np.nan, line_high=np.nan)
    columns = ["line_label", "line_metric", "line_score", "line_low", "line_high", "line_confirmed", "line_meanings"]
    frame.loc[[5, 7], columns] = ["polka|dots", "auc", 0.95, 0.9, 0.98, True, "buttons"]
    frame.loc[7, "line_auprc"] = 0.8125
    frame.loc[9, columns] = ["harp", "auc", 0.6, 0.4, 0.7, False, ""]
    by = {"proposer": {"proposer": "Words", "is_language_model": False}, "imager": {"imager": "api", "model": "a|b"}}
    ConceptTable(frame, {**table.provenance, "line": by}).save(run / "concepts" / "words.parquet")
    text = section(render_model_card(run), "Best-named concepts").split("### Labels by LINE")[1]
    assert "(in the last run, Words, which is no language model)" in text and "(in the last run, api a\\|b)" in text
    assert "| 5 | polka\\|dots | auc 0.950 | 0.900 to 0.980 | \u2013 | buttons |" in text
    assert r"| 7 | polka\|dots | auc 0.950 | 0.900 to 0.980 | 0.812 | buttons |" in text
    assert "guess for 3 latents; 2 were" in text and "harp" not in text


def test_names_from_labels_stand_with_their_interval(run):
    empty = np.full(N, np.nan)
    evidence = {"auroc": 0.97, "auroc_low": 0.95, "auroc_high": 0.98, "runner_up_auroc": 0.61, "q_value": 0.01}
    evidence = {key: np.full(N, value) for key, value in evidence.items()}
    table = ConceptTable.from_columns(["cat"] + [None] * (N - 1), empty, ["dog"] * N, empty, **evidence)
    table.save(run / "concepts" / "words.parquet")
    text = section(render_model_card(run), "Best-named concepts")
    assert "| 0 | cat | dog (0.610) | 0.01 | 0.970 (0.950 to 0.980) |" in text
    assert "labels" in text and "imilarity" not in text and "vocabulary" not in text and "strong enough" not in text
    assert "q at most 0.05, and the lower end of the AUROC's 95% interval at least 0.9" in text


def test_a_run_without_metrics_says_that_nothing_was_measured(run):
    (run / "metrics.json").unlink()
    text = write_model_card(run).read_text()
    assert "**Nothing was measured.**" in text and "model-index" not in text and "FVU" not in text
    assert "quality_against_k.png" not in text, "a figure shows what was measured, too"


def test_figures_of_other_weights_are_refused(run):
    measured = metrics_of(run)["model_sha256"]
    model = MSAEModel.from_pretrained(run)
    with torch.no_grad():
        model.latent_bias.add_(0.1)
    model.save_pretrained(run)
    expected = f"{measured[:12]}.*{model_fingerprint(model)[:12]}.*hf-msae evaluate"
    with pytest.raises(ValueError, match=expected):
        render_model_card(run)


def test_what_it_was_measured_on_is_what_the_measurement_says_and_nothing_else(run):
    def measured_on(**data):
        metrics = metrics_of(run)
        metrics["data"] = {**metrics["data"], **data} if data.get("num_samples", 1) else None
        (run / "metrics.json").write_text(json.dumps(metrics))
        return section(render_model_card(run), "Quality")

    unknown = "space, on 200 embeddings of `the given array`; it is not recorded"
    assert unknown in measured_on(), "whatever training.json says of its own evaluation"
    assert "own space, on held-out data: 200 embeddings of `the given array`." in measured_on(held_out=True)
    text = measured_on(held_out=False)
    assert "200 embeddings of `the given array`, **from the training data**" in text and "held-out" not in text
    text = measured_on(num_samples=0)
    assert "200 unrecorded embeddings" in text and "held" not in text
    (run / "training.json").unlink()
    assert "Its training is not recorded here." in render_model_card(run)
    card = ModelCard(render_model_card(run))
    assert {each.dataset_name for each in card.data.eval_results} == {"unrecorded embeddings"}


@pytest.mark.parametrize(
    ("data", "name", "title"),
    [
        (
            {"dataset": "scenes:train:20000:42"},
            "rendered scenes, `hf_msae.scenes` (split train, seed 42)",
            "rendered scenes (train)",
        ),
        (
            {"hub_dataset": "a/b", "dataset": "a/b", "dataset_split": "test"},
            "[`a/b`](https://hf.co/datasets/a/b), split test",
            "a/b (test)",
        ),
        ({"source": "embeds.npy", "is_local": True}, "1,234 embeddings of `embeds`", "embeds"),
    ],
)
def test_data_reads_well_and_only_hub_ids_are_linked(run, data, name, title):
    record = TrainingRecord.load(run).to_dict()
    told = {"num_samples": 1234, "num_rows": 1234, **data}
    TrainingRecord(**{**record, "training_data": told}).save(run)
    (run / "metrics.json").write_text(json.dumps({**metrics_of(run), "data": told}))
    card = ModelCard(render_model_card(run))
    assert name in section(card.content, "Training")
    assert card.data.eval_results[0].dataset_name == title
    assert card.data.datasets == (["a/b"] if "hub_dataset" in data else None)
    assert card.data.eval_results[0].dataset_type == data.get("hub_dataset", "embeddings")


def test_a_converted_model_says_from_what_and_claims_no_license_of_its_own(tmp_path):
    run = save_run(tmp_path / "run", record=False, names=False)
    conversion = {
        "format": "msae_authors",
        "source": "Someone/SAE",
        "revision": "abc",
        "notes": ["Its mean was kept."],
    }
    (run / "conversion.json").write_text(json.dumps(conversion))
    card = ModelCard(render_model_card(run))
    told = summary(card.content)
    assert "**Converted** from `Someone/SAE` (revision `abc`), which is in the msae_authors format." in told
    assert "Its mean was kept." in told and "they are not its authors'" in told
    assert card.data.license is None and "terms of the model they were converted from" in card.content
    assert "by its authors, not with `hf_msae`" in section(card.content, "Training")
    assert ModelCard(render_model_card(run, license="mit")).data.license == "mit"
    (run / "metrics.json").unlink()
    text = render_model_card(run)
    assert "they are not its authors'" not in text and "**Nothing was measured.**" in text


def test_an_edited_text_stays_when_the_card_is_written_again(run):
    path = write_model_card(run)
    path.write_text(path.read_text().replace("## License", "## License\n\nAsk me first."))
    card = ModelCard.load(write_model_card(run, tags=["birds"]))
    assert "Ask me first." in card.text and "birds" in card.data.tags
    assert "Ask me first." not in write_model_card(run, replace_card=True).read_text()
    assert path.stat().st_mode & 0o777 == (run / "config.json").stat().st_mode & 0o777


def test_strings_from_files_are_shown_as_they_are_and_never_as_markup(run):
    hostile = "a](http://x) <b>|`*\n# Title"
    record = {**TrainingRecord.load(run).to_dict(), "command": "train ```\n# Title"}
    record["training_arguments"] |= {"optim": hostile}
    record["training_data"] = {"num_rows": 5, "source": hostile, "dataset_split": hostile}
    fence = "1.0```\n# Title"
    TrainingRecord(**{**record, "versions": {hostile: hostile, "hf_msae": fence}}).save(run)
    (run / "metrics.json").write_text(json.dumps({**metrics_of(run), "data": {"dataset": hostile}}))
    text = ModelCard(render_model_card(run)).text
    assert "`` x) <b>|`* # Title ``" in text and "<b>" not in re.sub("``[^\n]+``", "", text)
    assert text.count("\n# Title") == 1, "only in the code block of the command"
    assert "````bash\ntrain ```\n# Title\n````" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("$5 and $6", r"\$5 and \$6"),
        ("_a_ snake_case", r"\_a\_ snake_case"),
        ("~~x~~ &lt; a&b", r"\~\~x\~\~ &amp;lt; a&b"),
        ("# Title", r"\# Title"),
        ("<b>|*[x](y)`", r"&lt;b>\|\*\[x\](y)\`"),
    ],
)
def test_text_of_users_is_no_markup(value, shown):
    assert escaped(value) == shown


def test_an_empty_folder_and_files_that_are_none_are_refused(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        write_model_card(tmp_path / "nothing")
    (run / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match=r"metrics\.json holds list, not an object"):
        write_model_card(run)
    (run / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read as JSON"):
        write_model_card(run)
