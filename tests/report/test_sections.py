"""Quality, explanations, hierarchy, bias and searches on the page are what the library finds."""

import base64
import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from hf_msae import MSAEModel, VisionTextMSAE
from hf_msae.bias import bias_report
from hf_msae.concepts import concept_hierarchy, explain_embedding
from hf_msae.embeddings import load_embeddings
from hf_msae.report.sections.bias import bias_findings, verdict
from hf_msae.report.sections.quality import COLUMNS
from hf_msae.report.wording import DASH, MINUS, signed
from hf_msae.search import ConceptIndex
from hf_msae.steering import SwordBenchResult, gaussian_task, run_swordbench
from tests.identity_msae import identity_msae
from tests.report.conftest import ROWS, WIDTH, K, names
from tests.report.page_reader import tiles_of

SHOWN = range(7)


def table_of(element):
    return [[cell.text for cell in row.children if hasattr(cell, "tag")] for row in element.all("tbody")[0].all("tr")]


def test_quality_is_measured_where_it_is_not_given(page, world):
    metrics = world.metrics
    rows = table_of(page.section("quality"))
    assert [row[0] for row in rows] == ["4", "24 (all)", "predicting the mean"]
    for (_, *texts), values in zip(rows, [*metrics["by_k"].values(), metrics["baseline_mean"]], strict=True):
        told = [values.get(key) for key in COLUMNS]
        expected = [
            DASH if value is None else COLUMNS[key][1].format(value) for key, value in zip(COLUMNS, told, strict=True)
        ]
        assert texts == expected
    heads = [cell.text for cell in page.section("quality").one("thead").all("th")]
    assert heads == ["k", *(heading for heading, _, _ in COLUMNS.values())]
    assert page.section("quality").one("dl").definitions == {heading: said for heading, _, said in COLUMNS.values()}
    assert f"{ROWS} embeddings" in page.section("quality").all("p")[0].text
    brief, few = page.root.one("p", of_class="brief").text, metrics["by_k"]["4"]
    assert f"{few['fvu']:.4f}" in brief
    large = page.root.one("dl", of_class="numbers")
    assert large.all("dd")[0].text == f"{1 - few['fvu']:.1%}"
    assert large.all("dd")[2].text == str((world.values > 0).any(axis=0).sum()) == "23"


def test_metrics_of_many_rows_are_those_of_some_of_them(write, monkeypatch):
    monkeypatch.setattr(sys.modules["hf_msae.report.survey"], "MOST_ROWS", ROWS // 2)
    full, drawn = write(), write(metrics=None)
    assert f"{ROWS // 2} embeddings drawn at random" in drawn.section("quality").all("p")[0].text
    assert "drawn" not in full.section("quality").all("p")[0].text
    assert table_of(drawn.section("quality")) != table_of(full.section("quality"))
    assert drawn.section("concepts").text == full.section("concepts").text  # of all rows


def test_a_row_without_metrics_costs_a_report_nothing(write, world):
    rows = world.embeddings[:].clone()
    rows[5] = 0
    page = write(metrics=None, embeddings=load_embeddings(rows))
    assert f"measured on {ROWS - 1} embeddings" in page.section("quality").all("p")[0].text


def test_metrics_that_are_given_are_shown_as_they_are(write):
    level = {"fvu": 0.25, "cosine_similarity": 0.5, "l0": 3.0, "sparsity": 0.875, "dead_latents": 1234, "cknna": None}
    page = write(metrics={"by_k": {"16": {**level, "fvu": 0.125}, "4": level}})
    assert table_of(page.section("quality"))[:2] == [
        ["4", "0.2500", "0.5000", DASH, "3.0", "87.5%", "1,234", DASH],
        ["16", "0.1250", "0.5000", DASH, "3.0", "87.5%", "1,234", DASH],
    ]
    assert [dd.text for dd in page.root.one("dl", of_class="numbers").all("dd")][:2] == ["75.0%", "87.5%"]


def test_a_prefix_model_is_shown_at_its_own_levels(write, world, backbones):
    msae = identity_msae(WIDTH, [WIDTH])
    msae.config.nesting, msae.config.nesting_widths = "prefix", [3, 12, WIDTH]
    page = write(model=VisionTextMSAE(backbones["CLIPModel"], msae, names()), metrics=None, num_explained=1)
    quality = page.section("quality")
    assert quality.one("thead").all("th")[0].text == "first latents"
    assert [row[0] for row in table_of(quality)] == ["3", "12", "24 (all)", "predicting the mean"]
    large = page.root.one("dl", of_class="numbers")
    assert "first 3 latents of the dictionary" in large.all("dt")[0].text
    assert "the first 3, 12, 24 latents" in page.root.one("dl", of_class="facts").text
    coarse, _ = page.section("explained").all("div", of_class="code")
    assert "first 3 latents" in coarse.text
    row = int(page.section("explained").one("article").attributes["aria-label"].removeprefix("Row "))
    x, mean = world.values[row].astype(np.float64), world.values.mean(axis=0) * 0
    residual = np.where(np.arange(WIDTH) < 3, 0, x)
    assert f"{1 - (residual**2).sum() / ((x - mean) ** 2).sum():.1%}" in coarse.one("p").text
    shown = [bar.one("span", of_class="word").text for bar in coarse.all("li")]
    assert set(shown) <= {"n0", "n1", "n2"} and shown


def test_a_model_of_one_level_has_one_headline(write, backbones):
    msae = identity_msae(WIDTH, [WIDTH])
    msae.config.nesting = "none"
    page = write(model=VisionTextMSAE(backbones["CLIPModel"], msae, names()), metrics=None, num_explained=2)
    codes = page.section("explained").all("div", of_class="code")
    assert [code.one("h3").text for code in codes] == ["The full code"] * 2
    assert [row[0] for row in table_of(page.section("quality"))] == ["24 (all)", "predicting the mean"]
    assert len(page.root.one("dl", of_class="numbers").all("dd")) == 3
    assert "strongest latents" not in page.root.one("p", of_class="brief").text


def test_explanations_are_the_models(page, world):
    articles = page.section("explained").all("article")
    assert len(articles) == 3
    for article in articles:
        row = int(article.attributes["aria-label"].removeprefix("Row "))
        assert tiles_of(article) == {row: f"row {row}"}
        coarse, full = article.all("div", of_class="code")
        expected = [explain_embedding(world.model.msae, world.embeddings[row], names(), WIDTH, k) for k in (4, None)]
        added = expected[1].frame[~expected[1].frame["latent"].isin(expected[0].frame["latent"])]
        for code, found, frame in zip((coarse, full), expected, (expected[0].frame, added.head(8)), strict=True):
            bars = [
                (bar.one("span", of_class="word").text, bar.one("span", of_class="value").text)
                for bar in code.all("li")
            ]
            assert bars == [(f"n{each.latent}", f"{each.activation:.2f}") for each in frame.itertuples()]
            widths = [float(i.attributes["style"].removeprefix("width:").removesuffix("%")) for i in code.all("i")]
            longest = expected[1].frame["activation"].max()
            assert widths == pytest.approx((100 * frame["activation"] / longest).tolist(), abs=0.06)
            guesses = [latent for latent in frame["latent"] if latent >= 8]
            assert len(code.all("span", of_class="guess")) == len(guesses), "names that are not validated are marked"
            assert code.one("p").text.startswith(f"{found.num_active} latents, ")


def test_the_hierarchy_is_a_nested_list(page, world):
    found = concept_hierarchy(world.model.msae, world.embeddings, names(), range(8), k=K, progress=False)
    assert found.edges[["parent", "child"]].to_numpy().tolist() == [[5, 4]], "as it was planted"
    edge, counts = found.edges.iloc[0], found.concepts.set_index("latent")["count"]
    (root,) = page.section("hierarchy").one("ul", of_class="tree").all("li")[:1]
    (child,) = root.one("ul").all("li")
    assert root.one("ul") and child.text == (
        f"n4 latent 4, {counts[4]} rows; its parent is in 100.0% of them, at least {edge['low']:.1%}"
    )
    assert root.text.startswith(f"n5 latent 5, {counts[5]} rows n4")
    assert f"1 of {len(found.concepts)} latents with a validated name" in page.section("hierarchy").text
    assert f"1 of {len(found.concepts)} concepts" in page.root.one("p", of_class="brief").text


def test_no_hierarchy_and_no_bias_are_a_sentence_each(write, world):
    embeddings = load_embeddings(np.random.default_rng(1).permuted(world.values, axis=0))
    page = write(embeddings=embeddings)
    found = concept_hierarchy(world.model.msae, embeddings, indices=range(8), k=K, progress=False)
    assert found.edges.empty
    assert "--bias_targets" in page.section("bias").text and not page.section("bias").all("article")
    text = page.section("hierarchy").text
    assert f"{len(found.concepts)} latents" in text and f"{ROWS} rows" in text


def test_bias_is_the_reports(page, world):
    (report,), section = world.bias, page.section("bias")
    article = section.one("article")
    assert article.one("h3").text == "a <cat>"
    driving = [f"n{latent}" for latent in report.drivers["latent"]]
    assert driving == ["n0", "n1"]
    first, second = report.drivers.to_dict("records")
    said = article.one("p", of_class="verdict").text
    told = (
        f"2 of 7 concepts drive the prediction of “a <cat>”: n0 ({first['effect']:+.2f} in probability, "
        f"{first['flip_rate']:.0%} of predictions flip), n1 ({second['effect']:+.2f}, {second['flip_rate']:.0%})."
    )
    assert said == told.replace("-", MINUS)
    assert said in page.root.one("p", of_class="brief").text
    rows = table_of(article)
    assert len(rows) == 7
    for cells, row in zip(rows, report.frame.to_dict("records"), strict=True):
        name, effect, interval, _, flips, association, q, drives = (cell.replace(MINUS, "-") for cell in cells)
        assert name == f"{row['name']} {row['latent']}"
        assert float(effect) == pytest.approx(row["effect"], abs=6e-4)
        assert [float(end) for end in interval.split(" to ")] == pytest.approx([row["low"], row["high"]], abs=6e-4)
        assert float(association) == pytest.approx(row["association"], abs=6e-3)
        assert float(flips.strip("%")) == pytest.approx(100 * row["flip_rate"], abs=0.06)
        assert q == ("< 0.001" if row["q_effect"] < 0.001 else f"{row['q_effect']:.3f}")
        assert (drives == "yes") == row["drives"]
    for svg, row in zip(article.all("svg", of_class="interval"), report.frame.to_dict("records"), strict=True):
        low, high = min(0, report.frame["low"].min()), report.frame["high"].max()
        placed = 100 * (row["effect"] - low) / (high - low)
        assert float(svg.one("circle").attributes["cx"]) == pytest.approx(placed, abs=0.06)
    images = article.all("img")
    assert len(images) == 2 and all("n0" in images[0].attributes["alt"] for _ in images)
    drawn = [base64.b64decode(image.attributes["src"].split(",")[1]).decode() for image in images]
    assert all("</svg>" in each for each in drawn) and drawn[0] != drawn[1]


def test_a_model_that_has_overfitted_is_said_to_have(write, world, tmp_path):
    metrics = {**world.metrics, "fvu": 0.08, "train_fvu": 0.02}
    page = write(model=saved(world, tmp_path, metrics), metrics=None)
    for place in (page.section("quality").one("p", of_class="note"), page.root.one("p", of_class="brief")):
        assert "0.0800" in place.text and "0.0200" in place.text and "overfitted" in place.text
    other = {**metrics, "model_sha256": "0" * 64}
    assert "overfitted" not in write(model=saved(world, tmp_path, other), metrics=None).source


def saved(world, folder, metrics):
    """The world's model as it is loaded from a folder with these metrics."""
    world.model.msae.save_pretrained(folder / "model")
    (folder / "model" / "metrics.json").write_text(json.dumps(metrics))
    return VisionTextMSAE(world.model.backbone, MSAEModel.from_pretrained(folder / "model"), world.model.concepts)


def test_concepts_after_the_first_are_folded_unless_they_drive_the_prediction(write, world):
    (report,) = world.bias
    frame = pd.concat([report.frame] * 3, ignore_index=True)
    frame["name"] = [f"c{row}" for row in range(len(frame))]
    driving = frame.sort_values("drives", ascending=False, kind="stable")
    expected = [
        (driving.assign(drives=np.arange(len(driving)) < drivers), shown) for drivers, shown in ((6, 12), (14, 14))
    ]
    section = write(bias=[replace(report, frame=frame) for frame, _ in expected]).section("bias")
    for article, (frame, shown) in zip(section.all("article"), expected, strict=True):
        folded = article.one("details")
        names = [[row[0].split()[0] for row in table_of(place)] for place in (article, folded)]
        assert names == [frame["name"].tolist()[:shown], frame["name"].tolist()[shown:]]
        assert f"{len(frame) - shown} more concepts" in folded.one("summary").text


def test_what_drives_nothing_and_what_goes_along_is_said(write, world):
    def classifier(x):
        return (x[:, 12] - 0.05).mul(0.2).sigmoid()

    settings = {"num_null": 20, "num_bootstrap": 50, "progress": False, "target": "dog"}
    report = bias_report(world.model.msae, world.embeddings, classifier, indices=[2, 3], **settings)
    assert report.drivers.empty
    assert "2 concepts" in verdict(report) and "“dog”" in verdict(report)
    along = report.frame.assign(p_association=[0.9, 0.01], association=[0.5, -0.25])
    page = write(bias=[replace(report, frame=along, accuracy=0.875, accuracy_of_guessing=0.613)])
    paragraphs = [p.text for p in page.section("bias").one("article").all("p")]
    assert f"latent {along['latent'][1]} ({MINUS}0.25)" in paragraphs[2]
    assert "87.5%" in paragraphs[1] and "61.3%" in paragraphs[1]
    (finding,) = bias_findings([replace(report, frame=along.assign(drives=[False, True]))])
    assert finding.correlates == "", "what drives it is told as that"


def test_searches_are_those_of_the_index(page, world, tmp_path, strong):
    index = ConceptIndex.build(tmp_path, world.model.msae, world.embeddings, K, names(), progress=False)
    articles = page.section("searches").all("article")
    assert len(articles) == 3
    for article in articles:
        row = int(article.one("h3").text.removeprefix("Row "))
        code = index.code(row)["latent"].tolist()
        own = [latent for latent in code if latent in SHOWN]
        assert len(own) >= 2
        alike, two, edited = article.one("div", of_class="rows").all("ul")
        expected = index.by_embedding(world.embeddings[row], 7)
        expected = expected[expected["row"] != row].head(6)
        assert tiles_of(alike) == {each.row: f"{each.similarity:.3f}" for each in expected.itertuples()}
        expected = index.by_concepts(dict.fromkeys(own[:2], 1.0), 7)
        expected = expected[expected["row"] != row].head(6)
        assert tiles_of(two) == {each.row: f"{each.score:.2f}" for each in expected.itertuples()}
        heads = [head.text for head in article.all("h4")]
        assert heads[1] == f"With n{own[0]} and n{own[1]} score"
        absent = [latent for latent in SHOWN if latent not in code]
        together = np.corrcoef(strong[:, list(SHOWN)].T)
        out, put_in = min(((a, b) for a in own[:5] for b in absent), key=lambda pair: together[pair])
        assert heads[2] == f"Like it, without n{out}, with n{put_in} rank before the edit"
        level = float(np.quantile(strong[strong[:, put_in] > 0, put_in], 0.9))
        expected = index.by_edit(world.embeddings[row], {out: 0.0, put_in: level}, mode="set", top=7)
        expected = expected[expected["row"] != row].sort_values("rank").head(6)
        assert tiles_of(edited) == {each.row: f"was {each.rank_before}" for each in expected.itertuples()}


def test_steering_is_shown_with_its_ranks_and_figures(write, tmp_path):
    task = partial(gaussian_task, num_rows=240, width=12, num_concepts=2)
    result = run_swordbench([task], ["mean_difference", "lda"], tmp_path, seeds=(0, 1), progress=False)
    result = SwordBenchResult.load(tmp_path / "results.json")
    section = write(steering=result).section("steering")
    assert section.one("h3").text == "gaussian" and len(section.all("img")) == 4
    rows = table_of(section)
    ranges = result.working_doses().set_index("method")
    for row in rows:
        first, last, reason = ranges.loc[row[1], ["dose_from", "dose_to", "reason"]]
        assert row[-1] == (reason if np.isnan(first) else f"{first:.2g} to {last:.2g}")
    ranking = result.ranking()
    assert [(int(row[0]), row[1]) for row in rows] == list(zip(ranking["rank"], ranking["method"], strict=True))
    summary = result.summary(["net_gain", "damage"]).set_index(["metric", "method"])
    for row in rows:
        mean, low, high = (signed(summary.loc[("net_gain", row[1]), end]) for end in ("mean", "low", "high"))
        assert row[2] == f"{mean} {low} to {high}" and row[7] == signed(summary.loc[("damage", row[1]), "mean"])
    equal = result.ranking(equal_dose=True).set_index("method")
    assert (equal["stretch"] > 2).any()
    for row in rows:
        rank, gain, stretch = equal.loc[row[1], ["rank", "net_gain_equal_dose", "stretch"]]
        mark = f" (×{stretch:.1f})" if stretch > 2 else ""  # noqa: RUF001 - as shown
        assert (int(row[3]), row[4]) == (rank, signed(gain) + mark)
    assert "hf-msae swordbench" in write().section("steering").text
    assert not section.all("li") and equal["note"].str.startswith("stretched").any()


def test_an_index_is_built_where_it_is_asked_for_and_continued(write, tmp_path, world):
    first = write(num_searches=1, index_folder=tmp_path / "index")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*.npy")}
    assert files or list((tmp_path / "index").rglob("*"))
    assert write(num_searches=1, index_folder=tmp_path / "index").source == first.source
    assert {path: path.stat().st_mtime_ns for path in files} == files
    with pytest.raises(ValueError, match="another k"):
        write(num_searches=1, index_folder=tmp_path / "index", k=K + 1)


def test_a_row_without_two_concepts_is_searched_by_example_alone(with_names, write):
    q = np.where(np.arange(WIDTH) == 0, 0.01, 0.9)
    page = write(with_names(names(q_value=q)), num_concepts=3, num_searches=1)
    article = page.section("searches").one("article")
    assert len(article.one("div", of_class="rows").all("ul")) == 1
