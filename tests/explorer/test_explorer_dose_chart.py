"""The chart of doses: names are escaped, cut, marked, and do not cover each other."""

import re
from dataclasses import replace

import numpy as np

from hf_msae.explorer.components.dose_chart import Curve, dose_chart


def _curve(name, end):
    shares = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    line = tuple(np.linspace(0.1, end, 6))
    return Curve(name, True, shares, shares, line, line, line)


def test_a_chart_escapes_names_and_has_a_title_a_text_and_ids_of_its_own():
    charts = [dose_chart([_curve("<b>x</b>", 0.9)], 0.2, "a & b") for _ in range(2)]
    assert "<b>" not in charts[0]
    assert "Probability of a &amp; b" in charts[0]
    assert "from 10% to 90%" in charts[0]
    ids = [set(re.findall(r'id="([^"]+)"', chart)) for chart in charts]
    assert len(ids[0]) == 2
    assert not ids[0] & ids[1]
    assert all(f'aria-labelledby="{" ".join(sorted(each, reverse=True))}"' in chart for each, chart in
               zip(ids, charts, strict=True))  # fmt: skip


def test_names_of_lines_that_end_together_do_not_cover_each_other():
    chart = dose_chart([_curve(f"c{number}", 0.5) for number in range(4)], 0.2, "x")
    places = sorted(float(y) for y in re.findall(r'msae-line-name" x="\d+" y="([\d.]+)"', chart))
    assert len(places) == 4
    assert min(np.diff(places)) >= 13.9


def test_a_long_name_is_cut_in_the_chart_and_whole_in_its_title():
    chart = dose_chart([_curve("thirteen char", 0.9), _curve("fourteen chars", 0.2)], 0.2, "x")
    assert ">thirteen char</text>" in chart and ">fourteen cha…</text>" in chart
    assert "<title>fourteen chars</title>" in chart


def test_a_name_that_may_be_chance_is_marked_and_a_number_is_not():
    curve = _curve("star", 0.9)
    unsure = dose_chart([replace(curve, validated=False)], 0.2, "x")
    assert "star (unvalidated)" in unsure and "msae-guess" in unsure
    number = dose_chart([replace(curve, name="latent 417", validated=False)], 0.2, "x")
    assert "(unvalidated)" not in number and "(unvalidated)" not in dose_chart([curve], 0.2, "x")
