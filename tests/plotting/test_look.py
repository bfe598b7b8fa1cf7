"""What all figures share."""

from itertools import pairwise

import pytest

from hf_msae.plotting.look import log_axis, new_figure


@pytest.mark.parametrize(("low", "high"), [(0.8, 3.0), (0.02, 1.0), (0.004, 1.5)])
def test_numbers_on_a_logarithmic_axis_do_not_overlap(low, high):
    figure, panels = new_figure(1, 3, height=2.5)
    panel = panels[0, 0]
    panel.plot([low, high], [0, 1])
    log_axis(panel, "x")
    figure.canvas.draw()
    inside = [label for label in panel.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in inside]
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
