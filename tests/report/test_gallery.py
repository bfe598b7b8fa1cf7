"""The gallery shows the right latents, the right pictures, and true numbers."""

import datasets
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hf_msae import VisionTextMSAE
from hf_msae.concepts import ConceptTable
from hf_msae.concepts.codes import collect_codes
from hf_msae.concepts.collectors import ColumnCollector
from hf_msae.concepts.labels import Labels
from hf_msae.concepts.validation import rule
from hf_msae.embeddings import load_embeddings
from hf_msae.report.sections.concepts import MIDDLE, cards
from hf_msae.report.survey import survey
from tests.identity_msae import identity_msae
from tests.report.conftest import ROWS, WIDTH, K, names, row_of
from tests.report.page_reader import tiles_of

SHOWN = [0, 1, 2, 3, 4, 5, 6]


def shown(page):
    return [int(card.one("h3").attributes["id"].removeprefix("latent-")) for card in page.root.all(of_class="card")]


def test_the_strongest_and_the_middle_are_what_they_are_called(page, strong):
    pictures = page.pictures
    assert {name: row_of(picture) for name, picture in pictures.items()} == {name: int(name[1:]) for name in pictures}
    for latent in SHOWN:
        column = strong[:, latent]
        order = np.argsort(-column, kind="stable")[: np.count_nonzero(column)]
        top, middle = map(tiles_of, page.card(latent).all("ul", of_class="tiles"))
        assert list(top) == order[:8].tolist()
        assert list(top.values()) == [f"{column[row]:.2f}" for row in order[:8]]
        low, high = np.quantile(column[order], MIDDLE)
        between = [row for row in order[8:] if low <= column[row] <= high]
        assert len(middle) == min(8, len(between)) >= 3 and set(middle) <= set(between)
        activations = [column[row] for row in middle]
        assert activations == sorted(activations, reverse=True)
        assert list(middle.values()) == [f"{value:.2f}" for value in activations]


def test_the_numbers_of_a_card(page, world, strong):
    assert shown(page) == SHOWN, "validated names that are among the strongest somewhere, by similarity"
    frame = world.model.concepts.frame
    for latent in SHOWN:
        card, column = page.card(latent), strong[:, latent]
        stats = card.one("dl", of_class="stats").definitions
        assert card.one("h3").text == f"n{latent}"
        assert stats["similarity"] == f"{frame['similarity'][latent]:.2f}"
        assert stats[f"next: r{latent}"] == f"{frame['runner_up_similarity'][latent]:.2f}"
        assert stats["q-value"] == "0.012"
        assert stats["active in"] == f"{(column > 0).mean():.1%} of rows"
        assert stats["in full codes"] == f"{(world.values[:, latent] > 0).mean():.1%} of rows"
        assert stats["activation: median"] == f"{np.median(column[column > 0]):.2f}"
        assert stats["largest"] == f"{column.max():.2f}"
    note = page.section("concepts").all("p")[0].text
    assert all(number in note for number in ("7 best of 8", "5%", "latents of 1 of", f"{K} strongest"))


def test_of_an_msae_that_keeps_fewer_no_more_count_as_active(write, world):
    msae = identity_msae(WIDTH, [2, K - 2])
    page = write(VisionTextMSAE(world.model.backbone, msae, names()), metrics=None, num_concepts=3)
    codes = msae.encode(torch.from_numpy(world.values)).detach().numpy()
    assert f"{K - 2} strongest" in page.section("concepts").text
    for latent in shown(page):
        stats, column = page.card(latent).one("dl", of_class="stats").definitions, codes[:, latent]
        assert stats["active in"] == stats["in full codes"] == f"{(column > 0).mean():.1%} of rows"
        assert stats["activation: median"] == f"{np.median(column[column > 0]):.2f}"


def test_names_from_labels_are_shown_with_their_auroc(write, with_names, world):
    empty = np.full(WIDTH, np.nan)
    evidence = {"auroc": 0.97, "auroc_low": 0.95, "auroc_high": 0.98, "runner_up_auroc": 0.61, "q_value": 0.01}
    evidence = {key: np.full(WIDTH, value) for key, value in evidence.items()}
    table = ConceptTable.from_columns([f"n{i}" for i in range(WIDTH)], empty, ["other"] * WIDTH, empty, **evidence)
    page = write(with_names(table), num_concepts=1)
    stats = page.card(shown(page)[0]).one("dl", of_class="stats").definitions
    assert stats["AUROC for the label, on other rows"] == "0.970 (0.950 to 0.980)"
    assert stats["next: other"] == "0.61" and "similarity" not in stats
    assert "label" in page.section("concepts").all("p")[1].text
    assert "vocabulary" not in page.section("limits").text and "the label that" in page.section("limits").text


def test_labels_by_line_are_shown_beside_names(write, with_names):
    table = names()
    frame = table.frame.assign(
        line_label="polka <dots>",
        line_metric="auc",
        line_score=0.95,
        line_low=0.9,
        line_high=0.98,
        line_confirmed=True,
    )
    frame["line_meanings"] = "buttons"
    frame["line_unchecked"] = "nobody looked"
    page = write(with_names(ConceptTable(frame, table.provenance)), num_concepts=1)
    stats = page.card(shown(page)[0]).one("dl", of_class="stats").definitions
    assert stats["label by LINE"] == "polka <dots> (auc 0.95, 0.90 to 0.98)" and stats["also responds to"] == "buttons"
    assert stats["the label on real pictures"] == "nobody looked"
    frame = frame.assign(line_auprc=0.81, line_share=0.1, line_correlation=0.7, line_f1=0.6, line_iou=0.5)
    frame["line_noticed_by"] = "auprc, f1"
    unsure = write(with_names(ConceptTable(frame.assign(line_confirmed=False, line_score=None))), num_concepts=1)
    stats = unsure.card(shown(unsure)[0]).one("dl", of_class="stats").definitions
    assert stats["guess by LINE, not confirmed"] == "polka <dots>"
    assert stats["the label on real pictures: AUPRC, by chance 0.10"] == "0.81"
    assert stats["correlation, F1, IoU"] == "0.70, 0.60, 0.50"
    assert stats["would notice a label half or twice as broad"] == "auprc, f1"


def test_labels_by_line_are_listed_wherever_the_latent_is(write, with_names):
    table = names()
    assert "Labels by" not in write(with_names(table), num_concepts=1).section("concepts").text
    columns = ["line_label", "line_metric", "line_score", "line_low", "line_high", "line_confirmed", "line_meanings"]
    frame = table.frame.assign(**dict.fromkeys(columns)).astype({name: float for name in columns[2:5]})
    frame.loc[WIDTH - 1, columns] = ["<b>harp</b>", "auc", 0.95, 0.9, 0.98, True, "buttons"]
    frame.loc[WIDTH - 2, columns] = ["drum", "auc", 0.6, 0.4, 0.7, False, ""]
    made = {"proposer": {"proposer": "Words", "is_language_model": False}, "imager": {"imager": "<i>"}}
    page = write(with_names(ConceptTable(frame, {**table.provenance, "line": made})), num_concepts=1)
    assert WIDTH - 1 not in shown(page)
    row = page.section("concepts").one("table", of_class="line").all("tr")[1]
    assert row.one("th").text == "<b>harp</b>"
    cells = [cell.text for cell in row.all("td")]
    assert cells[:3] == [str(WIDTH - 1), "auc 0.95", "0.90 to 0.98"] and cells[4] == "buttons"
    text = page.section("concepts").text
    assert "Words, which is no language model" in text and "run, <i>)" in text and "drum" not in text


def auroc_of(page, latent):
    stats = page.card(latent).one("dl", of_class="stats").definitions
    return next((value for name, value in stats.items() if "AUROC" in name), None)


def test_auroc_is_of_the_column_of_that_name(page, world, write):
    truth = np.array(world.images["n0"])
    assert auroc_of(page, 0) == f"{roc_auc_score(truth, world.values[:, 0]):.3f}" != "1.000"
    known = [row for row in range(ROWS) if row % 3]
    truth = np.array(world.images["n1"])[known].astype(bool)
    assert auroc_of(page, 1) == f"{roc_auc_score(truth, world.values[known, 1]):.3f}"
    assert auroc_of(page, 2) is None, "a column of numbers is no truth"
    assert auroc_of(page, 3) is None, "true of all rows"
    assert page.card(3).one("dl", of_class="stats").definitions["true (dataset)"] == "100.0% of rows"
    assert auroc_of(page, 4) is None, "no column"

    beside = datasets.Dataset.from_dict({"image_embeds": world.values.tolist(), "n0": world.images["n0"]})
    beside = beside.cast_column("image_embeds", datasets.List(datasets.Value("float32")))
    found = write(embeddings=load_embeddings(beside, "image_embeds"), num_concepts=3)
    assert auroc_of(found, 0) == auroc_of(page, 0), "columns beside the embeddings count too"
    assert auroc_of(found, 1) is None


def test_histograms_count_and_divide_by_truth(world, strong):
    msae, labels = world.model.msae, Labels(world.model.concepts)
    (activations,) = collect_codes(msae, world.embeddings, [ColumnCollector(SHOWN, K)], progress=False)
    np.testing.assert_array_equal(np.where(activations.strong, activations.values, 0), strong[:, SHOWN])
    np.testing.assert_array_equal(activations.values, world.values[:, SHOWN])
    for latent, card in zip(SHOWN, cards(labels, activations, [world.images], 2, 0), strict=True):
        column = strong[:, latent]
        edges = np.linspace(0, column.max(), len(card.histogram.counts) + 1)
        assert card.histogram.counts == np.histogram(column[column > 0], edges)[0].tolist()
        if latent == 0:
            hits = column[np.array(world.images["n0"]) & (column > 0)]
            assert card.histogram.true == np.histogram(hits, edges)[0].tolist() != card.histogram.counts
        if latent == 1:  # unknown is not true
            hits = column[[value is True for value in world.images["n1"]] & (column > 0)]
            assert card.histogram.true == np.histogram(hits, edges)[0].tolist()
        if latent == 4:
            assert card.histogram.true is None
        low, high = np.quantile(column[column > 0], MIDDLE) / column.max()
        assert card.histogram.middle == pytest.approx((low, high))


def test_bars_of_the_histogram_are_as_high_as_their_counts(page, strong):
    column, svg = strong[:, 0], page.card(0).one("svg", of_class="histogram")
    counts = np.histogram(column[column > 0], np.linspace(0, column.max(), 33))[0]
    bars = [rect for rect in svg.all("rect") if rect.attributes["class"] in ("true", "false")]
    heights = np.zeros(32)
    for rect in bars:
        heights[int(rect.attributes["x"]) // 8] += float(rect.attributes["height"])
    tall = counts * 52 / counts.max() >= 1
    assert heights[tall] == pytest.approx((counts * 52 / counts.max())[tall], abs=0.11)
    assert (heights[counts == 0] == 0).all() and heights[counts > 0].min() >= 0.9


@pytest.mark.parametrize(("q_value", "why"), [(None, "no q-values"), (np.full(WIDTH, 0.5), "0.05")])
def test_without_validated_names_the_most_similar_are_shown_and_it_is_said(with_names, write, q_value, why):
    page = write(with_names(names(q_value=q_value)), num_concepts=8)
    assert shown(page) == [0, 1, 2, 3, 4, 5, 6, 8]
    assert why in page.section("concepts").all("p")[0].text
    assert page.card(0).one("p", of_class="number").text == "latent 0, not validated"
    assert "guess" in page.card(0).one("h3").one("span").classes
    assert ("q-value" in page.card(0).one("dl", of_class="stats").definitions) == (q_value is not None)


def test_names_that_are_better_than_chance_but_weak_are_not_called_chance(with_names, write):
    low, high = (np.full(WIDTH, bound) for bound in (0.879, 0.95))
    table = names(auroc=high, auroc_low=low, auroc_high=high)
    page = write(with_names(table), num_concepts=10, num_explained=1)
    note = page.section("concepts").all("p")[0].text
    assert "8 latents" in note and "0.9" in note and "no q-value" not in note and "may be chance" not in note
    assert "strong enough" in page.card(0).one("p", of_class="number").text
    assert "due to chance" in page.card(8).one("p", of_class="number").text
    assert "not strong enough" in page.section("explained").all("p")[0].text
    said = rule(table.frame)
    assert f"names are validated ({said})0" in page.root.text, "the number follows what it counts"
    assert said in page.section("limits").text
    assert "8 latents have a name that is better than chance" in page.root.text


def test_without_names_the_most_active_are_shown(with_names, write, world):
    page = write(with_names(None), num_concepts=5, num_searches=1, num_explained=1)
    assert shown(page) == np.argsort(-world.values.mean(axis=0), kind="stable")[:5].tolist()
    assert page.card(5).one("h3").text == "latent 5" and not page.root.all(of_class="guess")[1:]
    assert "similarity" not in page.card(5).text and "None" not in page.section("concepts").text
    assert "None" not in page.section("searches").text + page.section("explained").text


def test_only_the_best_latent_of_a_name_is_shown_with_its_name_by_activations(with_names, write):
    table = names()
    table.frame.loc[[0, 1], "name"] = "twice"
    table.frame["activation_name"] = ["other", *[None] * (WIDTH - 1)]
    page = write(with_names(table), num_concepts=3)
    assert shown(page) == [0, 2, 3]
    assert page.card(0).one("dl", of_class="stats").definitions["by its activations"] == "other"
    assert "by its activations" not in page.card(2).text


def test_latents_that_the_first_batch_does_not_show_are_fetched_afterwards():
    rows = np.full((9000, 6), 0.1, dtype=np.float32)
    rows[:4096, :2] = 1.0
    rows[4096:, 5] = np.linspace(8, 9, 9000 - 4096)
    found = survey(identity_msae(6, [6]), load_embeddings(rows), Labels(None), 1, 2, {"by_k": {}}, progress=False)
    assert found.chosen.latents == [5] == found.columns.latents.tolist()
    np.testing.assert_allclose(found.columns.values[:, 0], rows[:, 5], rtol=1e-6)
    assert found.columns.strong[:, 0].sum() == 9000 - 4096


def test_the_first_cards_are_open_and_the_others_folded(with_names, write):
    page = write(with_names(names(q_value=np.full(WIDTH, 0.01))), num_concepts=12)
    section = page.section("concepts")
    folded = section.one("details", of_class="more")
    assert len(section.all("article")) == 12 and len(folded.all("article")) == 8
    assert folded.one("summary").text == "8 more concepts" and "open" not in folded.attributes
    few = write(with_names(names(q_value=np.full(WIDTH, 0.01))), num_concepts=4).section("concepts")
    assert len(few.all("article")) == 4 and not few.all("details", of_class="more")
