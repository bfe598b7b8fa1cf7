"""Figures of red teams show what the tables say."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.plotting.hyperspectral import plot_attacks, plot_shortcuts
from hf_msae.plotting.spectra import plot_single_bands, plot_wavelengths
from tests.hyperspectral.worlds import MODEL, QUICK, spectra


def test_dots_of_bands_are_filled_if_significant_and_isolated():
    table = pd.DataFrame({"name": list("abc"), "band": 1, "wavelength": 500.0, "share": [0.3, 0.3, 0.2]})
    figure = plot_single_bands(table.assign(nearby=[0.01, 0.2, 0.01], p_value=[0.001, 0.001, 0.4]))
    drawn = {line.get_markerfacecolor(): line.get_ydata().tolist() for line in figure.axes[0].get_lines()[:2]}
    assert drawn.pop("white") == [0, 1] and list(drawn.values()) == [[2]]


def test_any_audit_has_a_figure_or_says_that_there_is_none():
    X, y, groups, table = spectra(n=60)
    found = red_team(MODEL, X, y, groups, features=table, audits=["bands"], **QUICK)
    assert list(found.figures()) == ["single_bands"] and found.plot() is found.figures()["single_bands"]
    labels = [label.get_text() for label in found.plot().axes[0].get_yticklabels()]
    assert len(labels) == 4 and labels[-1].startswith("K: ") and labels[-1].endswith(" nm")
    with pytest.raises(ValueError, match="pulls"):
        RedTeamReport((), {"pulls": pd.DataFrame(columns=["pull"])}).plot()


def test_strengths_of_attacks_are_written_side_by_side():
    strengths = [0.1, 0.25, 0.5, 0.75]  # as of crops: a logarithmic axis put 0.60 and 0.75 over each other
    table = pd.DataFrame({"strength": strengths, "error": 0.5, "low": 0.4, "high": 0.6, "target": "K"})
    table = table.assign(attack="crop", unit="share of height and width", allowed=table["strength"] == 0.25)
    figure = plot_attacks(table)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["0.1", "0.25", "0.5", "0.75"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(right.x0 - left.x1 > 2 for left, right in pairwise(boxes))


def test_every_target_has_a_curve_of_its_own():
    table = pd.DataFrame({"target": [f"class {number}" for number in range(9)], "strength": 0.1, "error": 0.5})
    figure = plot_attacks(table.assign(attack="crop", unit="share", low=0.4, high=0.6, allowed=True))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == table["target"].tolist()
    assert len({(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[2:]}) == 9


def test_the_mean_of_a_group_is_drawn_where_it_is_worse_than_nothing():
    columns = {"grouping": "farm", "target": ["P", "K"], "metric": "r2", "random": 0.5, "left_out": 0.4}
    panel = plot_shortcuts(pd.DataFrame({**columns, "group_mean": [-0.3, -9.0]})).axes[0]
    bars = next(line for line in panel.get_lines() if line.get_marker() == "|").get_xdata()
    assert bars.tolist() == [-1.5, -0.3] and panel.get_xlim()[0] < -1.5


def test_pulls_of_groups_are_drawn_the_strongest_first():
    table = pd.DataFrame({"grouping": "night", "group": ["True", "False", "dusk"], "target": "star", "rows": 9})
    report = RedTeamReport((), {"pulls": table.assign(pull=[0.2, -0.7, np.nan], low=[0.1, -0.9, np.nan], high=0.3)})
    panel = report.plot().axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "star where night is True",
        "star where night is False",
    ]
    assert panel.get_xlim()[0] < -0.9 and panel.get_xlim()[1] > 1


def test_ranges_of_wavelengths_are_those_of_the_sensor():
    bands = pd.DataFrame({"target": "N", "transformation": "mean", "wavelength": np.linspace(900, 1700, 9)})
    panel = plot_wavelengths(bands.assign(attribution=1.0, share=1 / 9, band=range(9))).axes[0]
    assert [text.get_text() for text in panel.texts] == ["near-infrared", "shortwave infrared"]
