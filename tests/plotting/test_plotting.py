"""Figures: what is plotted is what was given."""

from io import BytesIO
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.text import Text
from PIL import Image

from hf_msae.plotting import (
    STYLE,
    look,
    plot_boxes,
    plot_coarse_to_fine,
    plot_contact_sheet,
    plot_contributions,
    plot_patch_map,
    plot_quality_against_k,
    plot_training,
    save_figure,
)
from hf_msae.plotting.look import figure_text, new_figure, write_figure
from hf_msae.plotting.spectra import plot_wavelengths
from hf_msae.plotting.steering import plot_doses, plot_injection
from hf_msae.steering.summary import working_ranges


def row(fvu):
    return {"fvu": fvu, "cosine_similarity": 0.9, "cosine_similarity_centered": 0.8, "l0": 5.0, "cknna": None}


def test_quality_against_k_plots_the_values_in_the_order_of_k():
    metrics = {"by_k": {"128": row(0.1), "16": row(0.4)}, "baseline_mean": {"cosine_similarity": 0.5}}
    figure = plot_quality_against_k(metrics, "title")
    fvu = figure.axes[0].lines[0]
    assert fvu.get_xdata().tolist() == [16, 128] and fvu.get_ydata().tolist() == [0.4, 0.1]
    assert any(np.allclose(line.get_ydata(), 0.5) for line in figure.axes[1].lines), "the baseline is shown"


@pytest.mark.parametrize(
    ("metrics", "axis", "ticks"),
    [
        ({"by_k": {"32": row(0.1)}, "by_width": {"8": row(0.4), "32": row(0.1)}}, "first latents", ["8", "32\n(all)"]),
        ({"by_k": {"32": row(0.1)}, "full_code": {"k": 32, "name": "threshold", "keeps": ""}}, "code", ["threshold"]),
        ({"by_k": {"16": row(0.1)}, "full_code": {"k": 16, "name": "16", "keeps": ""}}, "k (", ["16"]),
    ],
)
def test_levels_of_other_families_are_called_what_they_are(metrics, axis, ticks):
    panel = plot_quality_against_k(metrics).axes[0]
    assert panel.get_xlabel().startswith(axis)
    assert [label.get_text() for label in panel.get_xticklabels()] == ticks
    assert len(panel.lines[0].get_xdata()) == len(ticks)


def test_classifiers_and_monosemanticity_get_panels_where_they_were_measured():
    def level(agreement, score):
        found = {"kl": 0.1, "agreement": agreement, "accuracy_drop": None}
        scores = {"monosemanticity": score, "monosemanticity_encoder": "dinov2"}
        return {**row(0.1), **scores, "classifiers": {"probe birds": found}}

    figure = plot_quality_against_k({"by_k": {"16": level(0.5, 0.2), "64": level(0.75, 0.3)}})
    panels = {panel.get_title(): panel for panel in figure.axes}
    assert panels["Same class as the original"].lines[0].get_ydata().tolist() == [0.5, 0.75]
    assert panels["Same class as the original"].get_legend().get_texts()[0].get_text() == "probe birds"
    assert panels["Monosemanticity (dinov2)"].lines[0].get_ydata().tolist() == [0.2, 0.3]
    assert not {"Sparse probing (AUROC)", "Found again by other seeds"} & set(panels)
    assert "KL from the original's classes" in panels and "Accuracy lost" not in panels


def test_sparse_probing_and_seeds_get_panels_where_they_were_measured():
    def level(auroc, cosine):
        told = {"auroc_1": auroc, "auroc_5": 0.9, "embeds_auroc_1": 0.4, "num_concepts": 3}
        return {
            **row(0.1),
            "sparse_probing": {"bird": told},
            "seed_stability": {"mean_cosine": cosine, "by_chance": 0.1},
        }

    figure = plot_quality_against_k({"by_k": {"16": level(0.5, 0.8), "64": level(0.75, None)}})
    panels = {panel.get_title(): panel for panel in figure.axes}
    lines = {line.get_label(): line.get_ydata() for line in panels["Sparse probing (AUROC)"].lines}
    assert {name: values.tolist() for name, values in lines.items()} == {
        "bird, 1 latent": [0.5, 0.75],
        "bird, 5 latents": [0.9, 0.9],
    }
    stability = panels["Found again by other seeds"].lines[0].get_ydata()
    assert stability[0] == 0.8 and np.isnan(stability[1])


def test_training_separates_batches_from_held_out_data():
    log = [{"step": 1, "loss": 2.0, "fvu": 0.5}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_fvu": 0.3}]
    figure = plot_training(log)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [2.0, 1.0]
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[0.5], [0.3]]


def test_a_patch_map_lies_over_the_whole_picture():
    activations = np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 4.0]])
    figure = plot_patch_map(Image.new("RGB", (30, 20), "white"), activations, "red")
    heat = figure.axes[1].images[1]
    assert heat.get_array().tolist() == activations.tolist() and heat.get_clim() == (0, 4)
    assert list(heat.get_extent()) == list(figure.axes[1].images[0].get_extent()) == [0, 30, 20, 0]
    plot_patch_map(Image.new("L", (8, 8)), np.zeros((2, 2)))  # a latent that is active nowhere


def test_contact_sheet_marks_misses():
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    figure = plot_contact_sheet([("red", pictures, [True, False]), ("any", pictures, None)])
    crosses = [text for panel in figure.axes for text in panel.texts if text.get_text() == "✗"]
    assert len(crosses) == 1


@pytest.mark.parametrize("caption", ["red", "red star night=-0.5", "a query of many words that is long"])
def test_captions_of_pictures_take_the_room_that_they_need(caption):
    figure = plot_contact_sheet([(caption, [Image.new("RGB", (8, 8))] * 10, None)])
    figure.draw_without_rendering()
    (text,), pictures = figure.axes[0].texts, figure.axes[0].images[0].get_window_extent().x0
    assert text.get_window_extent().x1 < pictures, "the caption covers no picture"
    assert pictures - text.get_window_extent().x1 < 0.1 * figure.get_window_extent().width, "and leaves no gap"


@pytest.mark.parametrize(
    ("ks", "tilted"),
    [([16, 32, 64, 128, 256, 512, 1024], False), ([1000, 1024, 9000], True)],
)
def test_levels_stand_upright_where_there_is_room(ks, tilted):
    full = {"k": ks[-1], "name": f"{ks[-1]} (all)", "keeps": ""}
    metrics = {"by_k": {str(k): row(1 / k) for k in ks}, "full_code": full}
    figure = plot_quality_against_k(metrics)
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() > 0 for label in labels} == {tilted}
    if not tilted:
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in labels]
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_figures_are_written_whole(tmp_path):
    path = save_figure(plot_training([{"step": 1, "loss": 1.0}]), tmp_path / "new" / "figure.png")
    assert Image.open(path).size[0] > 500
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
    with pytest.raises(ValueError, match="wrong"):
        save_figure(plot_training([{"step": 1, "loss": 1.0}]), tmp_path / "figure.wrong")
    assert not list(tmp_path.glob(".tmp-*")) and not (tmp_path / "figure.wrong").exists()


def test_figures_are_drawn_once_and_as_matplotlib_writes_them(monkeypatch):
    expected, found, draws = BytesIO(), BytesIO(), []
    options = {"metadata": {"Date": None}}
    with rc_context({"svg.hashsalt": "x"}):
        _with_a_legend().savefig(expected, format="svg", **options)
        figure = _with_a_legend()
        before, draw = (figure.canvas, figure.dpi), type(figure).draw
        monkeypatch.setattr(type(figure), "draw", lambda *given: draws.append(1) or draw(*given))
        write_figure(figure, found, "svg", **options)
    assert found.getvalue() == expected.getvalue() and draws == [1]
    assert (figure.canvas, figure.dpi) == before


def test_settings_of_saved_figures_are_kept():
    found = BytesIO()
    with rc_context({"savefig.dpi": 300}):
        figure = _with_a_legend()
        write_figure(figure, found, "png")
    assert Image.open(found).width == pytest.approx(300 * figure.get_figwidth(), abs=1)


def _with_a_legend():
    figure, axes = new_figure(1, 1)
    axes[0, 0].plot([1, 3, 2], label="a line")
    figure.legend(loc="outside lower center")
    return figure


def test_text_of_users_is_drawn_as_it_is(tmp_path):
    names = ["costs $5 and $6 · 3", "$x_1 · 4", r"a\$b · 5"]
    figure = plot_contributions(names, [3.0, 2.0, 1.0], "activation", title="$T$")
    save_figure(figure, tmp_path / "figure.svg")  # mathematics that does not parse would be an error
    for label, name in zip(figure.axes[0].get_yticklabels(), names, strict=True):
        assert label._preprocess_math(label.get_text()) == (name, False)


def test_characters_without_a_font_are_replaced_and_long_names_are_cut(monkeypatch):
    known = frozenset(map(ord, "猫·…"))
    monkeypatch.setattr(look, "_font_of", lambda each: "A font" if ord(each) in known else None)
    assert figure_text("猫 犬 \U0001f436\u200d!") == "猫 U+72AC :dog face:!"
    long = figure_text("x" * 200 + " (unvalidated) · 12345", 40)
    assert len(long) == 40 and long.endswith("x… (unvalidated) · 12345")
    assert figure_text("one\n" + "y" * 50, 10) == "one\n" + "y" * 9 + "…"


def test_the_font_of_boxes_is_not_a_font_for_everything():
    assert look._font_of("\U00012000") is None or "resort" not in look._font_of("\U00012000").lower()


def test_names_of_chance_are_gray_italics(tmp_path):
    figure = plot_contributions(["red (unvalidated) · 3", "star · 4"], [3.0, 2.0], "activation")
    save_figure(figure, tmp_path / "figure.png")
    assert [label.get_fontstyle() for label in figure.axes[0].get_yticklabels()] == ["italic", "normal"]


def test_within_one_decade_the_axis_has_plain_numbers():
    metrics = {"by_k": {"16": row(0.095), "128": row(0.081)}}
    figure = plot_quality_against_k(metrics)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sum(low <= float(text) <= high for text in texts) >= 2, "a single number is no scale"
    assert figure.axes[0].get_position().x0 == pytest.approx(figure.axes[2].get_position().x0, abs=0.05)


def test_figures_are_as_wide_as_a_page_and_no_letter_is_smaller_than_eight_points():
    picture, label = Image.new("RGB", (8, 8)), "a long name (unvalidated) · 1024"
    figures = [
        plot_quality_against_k({"by_k": {"16": row(0.4), "128": row(0.1)}}),
        plot_training([{"step": 1, "loss": 1.0}]),
        plot_coarse_to_fine(dict.fromkeys(("k = 8", "k = 32", "k = 128"), ([label], [1.0])), "activation", picture),
        plot_contact_sheet([("a query of many words that is long", [picture] * 10, None)]),
    ]
    for figure in figures:
        assert figure.get_figwidth() <= 6.5
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert texts and min(text.get_fontsize() for text in texts) >= 8


def test_lines_and_legends_have_the_common_look():
    panel = plot_training([{"step": 1, "loss": 1.0}]).axes[0]
    assert panel.title.get_fontsize() == STYLE["axes.titlesize"] and not panel.get_legend().get_frame_on()
    assert panel.lines[0].get_linewidth() == STYLE["lines.linewidth"]


def test_titles_over_bars_and_captions_of_pictures_are_whole():
    heading, picture = "k = 128: 99.8% explained, with these added", Image.new("RGB", (8, 8))
    figure = plot_coarse_to_fine({"k = 8": (["a"], [1.0]), heading: (["b"], [2.0])}, "activation")
    assert figure.axes[1].get_title(loc="right").split() == heading.split()
    figure = plot_coarse_to_fine({"k = 8": (["a"], [1.0]), heading: ([], [])}, "activation")
    assert [text.get_text() for text in figure.axes[1].texts] == ["no others"] and not figure.axes[0].texts
    caption = "red star and=0.5 many=0.5 more=0.5 words=-1"
    (text,) = plot_contact_sheet([(caption, [picture], None)]).axes[0].texts
    assert text.get_text().split() == caption.split() and "\n" in text.get_text()
    pairs = [f"{'x' * 28} & {'y' * 28}", "others"]
    figure = plot_contributions(pairs, [1.0, -1.0], "part of the cosine", picture)
    figure.draw_without_rendering()
    assert figure.axes[1].get_window_extent().width > figure.dpi, "long labels leave room for the bars"


def test_boxes_of_activations_begin_at_zero():
    silent, active = ({key: value for key in ("whislo", "q1", "med", "q3", "whishi")} for value in (0.0, 2.0))
    first, second = plot_boxes({"a · 1": {"star": silent}, "b · 2": {"star": active}}, "activation").axes
    assert first.get_xlim() == pytest.approx((-0.02, 1.05)) and second.get_xlim() == pytest.approx((-0.04, 2.1))


@pytest.mark.parametrize(
    ("names", "least"), [(("success", "damage", "over_correction"), (-1, -1, -1)), (("gain", "exactness"), (-1, -2.5))]
)
def test_bands_end_where_accuracies_do(names, least):
    """Intervals of means over few seeds may go beyond; exactness has no lower end."""
    curves = pd.DataFrame({"task": "t", "method": "a", "part": [0.5, 1.0], "dose": [0.1, 0.2]})
    curves = curves.assign(dose_low=0.1, dose_high=0.2)
    for name in names:
        curves = curves.assign(**{name: 0.5, f"{name}_low": -2.5, f"{name}_high": 2.5})
    figure = plot_injection(curves) if "gain" in names else plot_doses(curves, working_ranges(curves, 0.05), 0.05)
    for panel, low in zip(figure.axes, least, strict=True):
        (band,) = panel.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (low, 1)


def test_the_title_of_wavelengths_says_what_has_none_and_fits_into_the_figure():
    rows = [
        ("P2O5", "mean", 500.0, 0.6, 600.0),
        ("P2O5", "mean", 510.0, 0.3, 300.0),
        ("P2O5", "fft", np.nan, 0.1, 100.0),
    ]
    columns = ["target", "transformation", "wavelength", "share", "attribution"]
    figure = plot_wavelengths(pd.DataFrame(rows, columns=columns))
    figure.draw_without_rendering()
    (title,) = (text for text in figure.axes[0].findobj(Text) if "P2O5" in text.get_text())
    assert "1,000" in title.get_text() and "10%" in title.get_text()
    assert title.get_window_extent().x1 <= figure.bbox.x1
    assert [bar.get_height() for bar in figure.axes[0].patches if bar.get_height() > 2] == pytest.approx([60, 30])
