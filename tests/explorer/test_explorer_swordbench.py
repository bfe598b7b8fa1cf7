"""The results of SwordBench in the explorer: what the report shows, of one task."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("gradio")

from hf_msae.explorer import Explorer, ExplorerSettings, VisitorError
from hf_msae.explorer.tabs.swordbench import view
from hf_msae.explorer.tabs.swordbench.answer import found_on, methods_of, numbers
from hf_msae.plotting.look import SvgFigure
from hf_msae.report.sections import steering
from hf_msae.steering import SwordBenchResult
from tests.explorer.asking import address, ask
from tests.explorer.conftest import MARKUP


@pytest.fixture(scope="module", autouse=True)
def no_figure():
    """Figures are not drawn, which the tests of the report and of the command do; a source says which it is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot", "plot_doses", "plot_injection", "plot_cross"):
            patch.setattr(SwordBenchResult, name, lambda self, *of, name=name: " ".join((name, *of)))
        patch.setattr(steering, "svg_figure", lambda figure, alt: SvgFigure(f"data:image/svg+xml,{figure}", alt, 100))
        yield


def test_a_task_has_ranks_figures_and_what_is_not_defined(steered, swordbench):
    found = found_on(steered, "no pairs")
    ranking = swordbench.of_task("no pairs").ranking()
    assert [[row["rank"], row["method"]] for row in found.rows] == ranking[["rank", "method"]].to_numpy().tolist()
    html = view.html.page(found)
    assert html.count("data:image/svg+xml") == 3 and "<i>" not in html and "&lt;i&gt;lda" in html
    assert {each["metric"] for each in found.undefined} >= {"exactness"} and "has no exact pairs" in html
    assert found.verdict == swordbench.of_task("no pairs").verdict() and "gaussian" not in html
    assert "rank, at equal doses" in html and len(found_on(steered, "gaussian").figures) == 4
    assert "exact pairs" not in view.html.page(found_on(steered, "gaussian"))


def test_figures_are_drawn_once_and_the_heat_map_is_of_the_method_asked_for(steered, swordbench):
    best, other = methods_of(steered, "gaussian")
    assert [best, other] == swordbench.of_task("gaussian").ranking()["method"].tolist()
    assert found_on(steered, "gaussian") is found_on(steered, "gaussian", best) is found_on(steered, "gaussian", "")
    second = found_on(steered, "gaussian", other)
    (heat, said), (heat_of_best, said_of_best) = second.figures[-1], found_on(steered, "gaussian").figures[-1]
    assert heat.source != heat_of_best.source
    assert other in said and best in said_of_best


@pytest.mark.parametrize(
    ("task", "method"), [("moon", None), (None, None), (["gaussian"], None), ("gaussian", "moon")]
)
def test_what_is_not_there_is_refused(steered, task, method):
    with pytest.raises(VisitorError, match="from the list"):
        found_on(steered, task, method)


def test_programs_get_the_numbers(steered, steered_demo, swordbench):
    found = numbers(steered, "no pairs")
    json.dumps(found, allow_nan=False)
    assert [row["method"] for row in found["ranking"]] == swordbench.of_task("no pairs").ranking()["method"].tolist()
    assert found["undefined"][0]["methods"] == ["mean_difference", MARKUP]
    assert "doses that work" in ask(address(steered_demo), "swordbench", "gaussian", "")
    assert "from the list" in ask(address(steered_demo), "swordbench", "moon", "")


def test_results_that_are_not_there_end_the_loading_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="swordbench"):
        Explorer.load(ExplorerSettings(swordbench=str(tmp_path)))
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"results\.json"):
        Explorer.load(ExplorerSettings(swordbench=str(tmp_path)))


def test_a_run_without_doses_has_a_table_and_no_figures_of_them(steered, swordbench):
    old = replace(swordbench, doses=swordbench.doses.iloc[:0], injection=swordbench.injection.iloc[:0])
    other = Explorer(steered.model, steered.images, steered.embeddings[:], swordbench=old)
    found = found_on(other, "gaussian")
    assert len(found.figures) == 1 and found.rows[0]["doses"] == "not measured"
    assert np.isfinite(found.rows[0]["success"][0])
