"""The page of a red team holds the findings, escapes what people named, and fetches nothing."""

import pandas as pd
import pytest

from hf_msae.hyperspectral import Finding, RedTeamReport
from hf_msae.report import write_red_team_report


@pytest.fixture(scope="module")
def report():
    words = {"evidence": "It was <b>seen</b>.", "advice": "Mend it."}
    numbers = {"value": 0.123456, "low": 0.1, "high": float("inf"), "p_value": 0.0004}
    finding = Finding(
        severity="severe", title="K & pH leak", metric="shortcut_index", audit="shortcuts", **numbers, **words
    )
    performance = pd.DataFrame(
        [("K", "r2", 0.5, 0.4, 0.6), ("pH", "r2", float("nan"), None, None), ("K", "mae", None, None, None)],
        columns=["target", "metric", "value", "low", "high"],
    )
    about = {"model": "<script>", "data": "fields", "targets": ["K", "pH"], "rows": 12}
    return RedTeamReport((finding,), {"performance": performance}, ["Nothing was attacked."], about, 31)


def test_the_page_holds_everything(report, tmp_path):
    path = write_red_team_report(tmp_path / "new" / "report.html", report, "hf-msae red-team fields")
    page = path.read_text(encoding="utf-8")
    assert "<h3>K &amp; pH leak</h3>" in page and "It was &lt;b&gt;seen&lt;/b&gt;." in page
    assert "0.123 (0.1 to not defined) · p &lt; 0.001" in page or "0.123 (0.1 to not defined) · p < 0.001" in page
    assert '<th scope="row">r2<span class="quiet">1 is' in page and "mae" not in page, "a row of dashes tells nothing"
    assert "Nothing was attacked." in page and "hf-msae red-team fields" in page and "all 31 tests" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "<dt>severe finding</dt><dd>1</dd>" in page and "<dt>minor findings</dt><dd>0</dd>" in page
    assert page.count("<h1>") == 1 and "<h1>&lt;script&gt;</h1>" in page
    assert report.to_html() in page


def test_the_section_alone_is_readable_and_its_tables_scroll(report):
    shortcuts = pd.DataFrame([{"grouping": "farm", "target": "K", "metric": "r2", "random": 0.5, "left_out": -1.394}])
    shortcuts = shortcuts.assign(shortcut_index=1.894, low=None, high=2.0, group_mean=0.4, decoded=0.984)
    shortcuts = shortcuts.assign(least_without_one=-0.001, most_without_one=2.1)
    one = RedTeamReport((), {**report.tables, "shortcuts": shortcuts}, num_tests=1)
    section = one.to_html()
    assert ".red-team .scroll { overflow-x: auto;" in section
    assert section.count("<table>") == section.count('<div class="scroll"') == 2
    assert "-1.39" in section and "nan to" not in section and "98%" in section
    assert ">0.00 to 2.10" in section and "Intervals are over rows" in section
    assert "corrected for 1 test (Holm)" in section and report.to_html().count("<table>") == 1


def test_the_columns_needed_and_the_groups_that_cancel_are_listed(report):
    smallest = pd.DataFrame([("attribution", 24, 12.0, 40.0)], columns=["ranking", "features", "low", "high"])
    groups = pd.DataFrame(
        [
            ("K", "band", "711 nm", 3, 0.2, 0.1, 0.15, 0.25, 0.91, True),
            ("K", "band", "500 nm", 3, 0.9, 0.5, 0.8, 1.0, 0.9, False),
        ],
        columns="target grouping group features attribution share low high absolute_first cancels".split(),
    )
    section = RedTeamReport((), {**report.tables, "smallest": smallest, "attribution_groups": groups}).to_html()
    assert "12 to 40" in section and "711 nm" in section and "0.91" in section
    assert "500 nm" not in section, "whose parts do not cancel"


def test_a_model_that_may_predict_nothing_gets_no_all_clear(report):
    tables = {"bands": pd.DataFrame()}
    assert "not tested" in RedTeamReport((), tables, num_tests=9).verdict()
    assert "nothing wrong" not in RedTeamReport((), tables, num_tests=9).verdict()


def test_other_paths_are_refused(report, tmp_path):
    with pytest.raises(ValueError, match=r"report\.txt"):
        write_red_team_report(tmp_path / "report.txt", report)
