"""The list holds the concepts that were asked for, and the evidence is that of the table of names and of the codes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

pytest.importorskip("gradio")

from hf_msae import MSAEConfig, MSAEModel, VisionTextMSAE
from hf_msae.concepts import concept_hierarchy, name_by_labels
from hf_msae.concepts.labels import Labels
from hf_msae.embeddings import load_embeddings
from hf_msae.explorer import Explorer
from hf_msae.explorer.sources import INDEX_K
from hf_msae.explorer.tabs.concepts import view as tab
from hf_msae.explorer.tabs.concepts.answer import (
    COLUMNS,
    EXAMPLES,
    LABEL_COLUMNS,
    MAX_ROWS,
    best_known,
    evidence,
    listing,
)
from hf_msae.report.wording import DASH


@pytest.fixture
def table(explorer):
    return explorer.model.concepts.to_pandas()


def test_without_words_all_latents_are_listed_and_the_first_shown(explorer, table):
    found = listing(explorer)
    assert found.number == found.total == len(table) and len(found.frame) == MAX_ROWS
    assert tuple(found.frame.columns) == COLUMNS


def test_validated_only_leaves_out_names_that_may_be_chance(explorer, table):
    found = listing(explorer, validated_only=True)
    assert set(found.frame["latent"]) == set(
        table["latent"][(table["q_value"] <= 0.05) & (table["zero_shot_auroc_low"] >= 0.9)]
    )
    assert found.number == len(found.frame) < len(table)


def test_words_find_beginnings_of_names_and_numbers_and_names_by_pictures(explorer, table):
    found = listing(explorer, "RED")
    expected = table["latent"][(table["name"] == "red") | (table["activation_name"] == "red")]
    assert set(found.frame["latent"]) == set(expected) and found.number == len(expected)
    assert set(listing(explorer, "10 latent").frame["latent"]) == {10, *range(100, 110), *range(1000, 1024)}
    assert set(listing(explorer, "red yellow").frame["latent"]) < set(expected) | {0}
    for word in ("(", ".", "[a", "*", r"\d"):  # words, not patterns
        assert listing(explorer, word).number == 0


def test_the_concept_to_begin_with_is_the_one_whose_name_fits_best(explorer, table):
    name = best_known(explorer)
    assert table["agreement"][table["latent"] == explorer.latent_of(name)].item() == table["agreement"].max()
    silent = copy.copy(explorer)
    silent.strong = explorer.strong.copy()
    silent.strong[:, explorer.latent_of(name)] = False
    other = best_known(silent)  # the name fits as before, but there is no picture to show
    assert other != name and silent.strong[:, explorer.latent_of(other)].any()


def test_the_list_is_in_the_order_that_was_asked_for(explorer, table):
    names = listing(explorer, validated_only=True, order="name").frame["name"]
    assert names.tolist() == sorted(names)
    best = listing(explorer, validated_only=True, order="similarity").frame["latent"]
    expected = table.sort_values("agreement", ascending=False, kind="stable")["latent"]
    assert best.tolist() == [latent for latent in expected if latent in set(best)]
    shares = explorer.strong.mean(axis=0)[listing(explorer, order="share").frame["latent"]]
    assert (np.diff(shares) <= 0).all() and shares[0] == explorer.strong.mean(axis=0).max()


def test_a_row_says_what_the_table_of_names_says(explorer, table):
    latent = explorer.latent_of("star")
    row = listing(explorer, str(latent)).frame.set_index("latent").loc[latent]
    named = table.set_index("latent").loc[latent]
    assert row["name"] == "star" and row["similarity"] == f"{named['similarity']:.2f}"
    assert row["AUROC"] == f"{named['auroc']:.2f}", "for the concept itself, where it is known"
    assert row["q-value"] == f"{named['q_value']:.3f}" and row["by pictures"] == named["activation_name"]
    assert row["agree"] == ("yes" if named["agrees"] else "no")
    assert row["strong in"] == f"{explorer.strong[:, latent].mean():.1%}"


def test_strong_means_among_the_largest_of_a_picture(explorer):
    found = explorer.strong
    assert (found.sum(axis=1) == np.minimum(INDEX_K, (explorer.codes > 0).sum(axis=1))).all()
    for row in (0, 7):
        assert explorer.codes[row][found[row]].min() >= explorer.codes[row][~found[row]].max()


def test_of_an_msae_that_keeps_fewer_no_more_are_strong(explorer):
    torch.manual_seed(0)
    config = {"k": 4, "base_model_name_or_path": "hf_msae/scenes-siglip"}
    msae = MSAEModel(MSAEConfig(d_in=128, num_latents=64, **config))
    few = Explorer(VisionTextMSAE(explorer.model.backbone, msae), explorer.images, explorer.embeddings[:])
    assert np.array_equal(few.strong, few.codes > 0) and few.index.sparse_codes().k == 4
    found = evidence(few, next(iter(few.concepts)))
    assert found.k == 4 and found.card.share == found.card.share_full and found.card.median > 0


def test_the_evidence_is_that_of_the_names_and_of_the_codes(explorer, table):
    latent = explorer.latent_of("star")
    found, named = evidence(explorer, "star"), table.set_index("latent").loc[latent]
    assert found == evidence(explorer, f"latent {latent}") == evidence(explorer, str(latent))
    missing = dict.fromkeys(set(found.names) - set(named.index))  # the table was made without pictures
    assert found.names == named.reindex(list(found.names)).to_dict() | missing
    card, values = found.card, explorer.codes[:, latent]
    assert [each.row for each in card.top] == explorer.strongest(latent, EXAMPLES)
    assert card.count == explorer.strong[:, latent].sum() == sum(card.histogram.counts)
    truth = np.array(explorer.images["star"])
    assert sum(card.histogram.true) == truth[explorer.strong[:, latent]].sum()
    for each in card.middle:
        assert 38 <= each.percentile <= 62 and each.activation == values[each.row]
    assert not {each.row for each in card.top} & {each.row for each in card.middle}


def test_a_label_by_line_is_told_with_what_real_pictures_say_or_why_they_do_not(explorer):
    concepts = explorer.model.concepts
    frame = concepts.frame.assign(line_label="polka <dots>", line_metric="auc", line_confirmed=True)
    frame = frame.assign(line_score=0.95, line_low=0.9, line_high=0.98, line_unchecked="no picture <shows> it")

    def told(frame):
        return tab.html.evidence(evidence(with_names(explorer, replace(concepts, frame=frame)), "star"))

    unchecked = told(frame)
    assert "polka &lt;dots&gt; (auc 0.95, interval: 0.90 to 0.98)" in unchecked
    assert "<dd>no picture &lt;shows&gt; it</dd>" in unchecked
    measured = {"line_auprc": 0.81, "line_share": 0.1, "line_correlation": 0.7, "line_f1": 0.6, "line_iou": 0.5}
    for noticed, shown in (("auprc, f1", "auprc, f1"), ("", "none")):
        checked = told(frame.assign(**measured, line_noticed_by=noticed, line_unchecked=""))
        assert "0.81 (by chance 0.10), 0.70, 0.60, 0.50" in checked and f"<dd>{shown}</dd>" in checked


def test_a_latent_of_no_picture_has_names_but_no_pictures(explorer):
    silent = int(np.flatnonzero(~explorer.strong.any(axis=0))[0])
    found = evidence(explorer, f"latent {silent}")
    assert found.card is None and found.names["similarity"] is not None
    assert "<svg" not in tab.html.histogram(found, "most") and "strongest in" not in tab.html.evidence(found)


def test_parents_and_children_are_those_of_the_hierarchy(explorer):
    looser = copy.copy(explorer)
    latents = [each.latent for each in list(explorer.concepts.values())[:16]]
    looser.hierarchy = concept_hierarchy(
        explorer.msae, explorer.embeddings, explorer.model.concepts, latents, INDEX_K, min_parent=0.2, max_child=0.9,
        min_lift=1.01, min_count=5, progress=False,
    )  # fmt: skip
    edge = looser.hierarchy.edges.iloc[0]
    (parent,) = evidence(looser, f"latent {edge['child']}").parents
    assert parent["label"].latent == edge["parent"] and parent["together"] == edge["together"]
    children = evidence(looser, f"latent {edge['parent']}").children
    assert {each["label"].latent for each in children} == set(looser.hierarchy.children(edge["parent"]))
    told = tab.html.place(evidence(looser, f"latent {edge['child']}"))
    assert "is part of" in told and str(parent["label"]) in told


def with_names(explorer, concepts):
    other = copy.copy(explorer)
    other.model = copy.copy(explorer.model)
    other.model.concepts = concepts
    other.label = Labels(concepts)
    for cached in ("concepts", "hierarchy"):
        other.__dict__.pop(cached, None)
    return other


def test_names_from_labels_are_shown_with_their_evidence(explorer):
    columns = {name: explorer.images[name] for name in ("star", "red")}
    data = Dataset.from_dict({"image_embeds": explorer.embeddings[:].tolist(), **columns})
    concepts = name_by_labels(explorer.msae, load_embeddings(data), list(columns))
    labeled, row = with_names(explorer, concepts), concepts.best().iloc[0]
    assert best_known(labeled) == row["name"] and labeled.latent_of(row["name"]) == row["latent"]
    found = listing(labeled, order="similarity").frame
    shown = found.iloc[0]
    assert tuple(found.columns) == LABEL_COLUMNS and "similarity" not in found
    assert (shown["latent"], shown["AUROC"]) == (row["latent"], f"{row['auroc']:.2f}")
    assert shown["95% interval"] == f"{row['auroc_low']:.2f} to {row['auroc_high']:.2f}"
    assert shown["positives"] == str(int(row["num_positive"])) and shown["second-best"] == row["runner_up"]
    unnamed = listing(labeled, f"latent {concepts.frame['latent'][concepts.frame['name'].isna()].iloc[0]}").frame
    assert unnamed.iloc[0][["AUROC", "95% interval", "positives", "second-best"]].tolist() == [DASH] * 4
    told = tab.html.evidence(evidence(labeled, row["name"]))
    assert all(f"{row[each]:.3f}" in told for each in ("auroc", "auroc_low", "auroc_high")) and "passed" in told
    assert f"{row['runner_up']} ({row['runner_up_auroc']:.2f})" in told and "nan" not in told


def test_where_no_name_is_validated_the_latents_of_pictures_are_listed_and_it_is_said(explorer):
    concepts = explorer.model.concepts
    shown = set(np.flatnonzero(explorer.strong.any(axis=0)))
    doubtful = replace(concepts, frame=concepts.frame.assign(q_value=0.5))
    for names, why in ((doubtful, "q-value"), (None, "no names")):
        other = with_names(explorer, names)
        found = listing(other, validated_only=True)
        assert found.number == len(shown) and set(found.frame["latent"]) <= shown
        assert "No name is validated" in tab.counted(found) and why in tab.counted(found)
        assert "no latent" in tab.counted(listing(other, "zzz", True))
        assert "No name" not in tab.counted(listing(other))


def test_a_model_without_names_is_listed_by_numbers(explorer):
    nameless = with_names(explorer, None)
    found = listing(nameless, "latent 99", order="share")
    assert set(found.frame["name"]) == {f"latent {each}" for each in (99, *range(990, 1000))}
    latent = int(explorer.latent_of("star"))
    shown = evidence(nameless, f"latent {latent}")
    assert shown.names["similarity"] is None and shown.card.count == explorer.strong[:, latent].sum()
    assert "has no name" in tab.html.evidence(shown) and tab.html.histogram(shown, "most")
