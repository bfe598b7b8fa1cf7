"""Numbers are written so that they do not say more, or less, than they are."""

import pytest

from hf_msae.report.wording import DASH, MINUS, number, share, signed, small


@pytest.mark.parametrize(
    "text, expected",
    [
        (number(None), DASH),
        (number(1234.567), "1,234.57"),
        (number(-0.5, 1), f"{MINUS}0.5"),
        (signed(0.25), "+0.25"),
        (signed(-0.25, 1), f"{MINUS}0.2"),
        (signed(-0.001), "0.00"),
        (signed(0.001), "0.00"),
        (share(0), "0.0%"),
        (share(0.0004), "< 0.1%"),
        (share(0.5), "50.0%"),
        (share(0.9996), "> 99.9%"),
        (share(1), "100.0%"),
        (small(None), DASH),
        (small(0.0009), "< 0.001"),
        (small(0.0126), "0.013"),
    ],
)
def test_numbers(text, expected):
    assert text == expected
