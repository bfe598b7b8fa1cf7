"""What the views of several tabs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ..components.bars import Bar
from ..explorer import Explorer

# Values come as they were sent: the functions of `inputs` check them, with messages for visitors.
QUIET: dict[str, Any] = {
    "preprocess": False,
    "api_visibility": "private",
    "trigger_mode": "always_last",
    "show_progress": "hidden",
}
"""Settings of an event of the page."""
BUSY = QUIET | {"show_progress": "minimal"}
"""Settings of an event of the page that takes a while."""
TILES: dict[str, Any] = {
    "object_fit": "contain",
    "buttons": ["fullscreen"],
    "elem_classes": ["msae-tiles", "msae-filled"],
}
"""Settings of a gallery of small pictures with captions."""


def choice(explorer: Explorer, latent: int) -> tuple[str, str]:
    """A latent in a list of concepts: (text, key)."""
    label, key = explorer.label(latent), explorer.key_of(latent)
    return label.marked + ("" if key == str(label) else f", {key}"), key


def concept_bar(explorer: Explorer, latent: int, value: float, text: str) -> Bar:
    """A bar of a latent, with its number if its name means another latent in lists."""
    label, key = explorer.label(latent), explorer.key_of(latent)
    unvalidated = label.name is not None and not label.validated
    return Bar(str(label), value, text, None if key == str(label) else key, unvalidated)


def split_numbers(explorer: Explorer, found: Any, frame: pd.DataFrame, column: str, shown: int) -> dict[str, Any]:
    """What something is split into, for clients: the first latents, the sum of the others, and what remains.

    `found` has the attributes `bias` and `not_reconstructed`; `frame` holds the latents with their parts in `column`,
    the largest first, of which `shown` are listed.
    """
    first, others = frame.head(shown), frame[column].iloc[shown:]
    labels = [explorer.label(latent) for latent in first["latent"]]
    names, validated = [str(label) for label in labels], [label.validated for label in labels]
    return {
        "concepts": first.assign(name=names, validated=validated).to_dict("records"),
        "num_other_concepts": len(others),
        "other_concepts": float(others.sum()),
        "bias": found.bias,
        "not_reconstructed": found.not_reconstructed,
    }


def split_bars(
    explorer: Explorer, numbers: dict[str, Any], column: str, text: Callable[[float], str], bias: str
) -> list[Bar]:
    """Bars of what `split_numbers` gives; `text` formats a part, and `bias` is what the bias is called."""
    rows = [concept_bar(explorer, each["latent"], each[column], text(each[column])) for each in numbers["concepts"]]
    rest = [(bias, numbers["bias"]), ("not explained", numbers["not_reconstructed"])]
    if number := numbers["num_other_concepts"]:
        rest.insert(0, (f"{number} other concepts", numbers["other_concepts"]))
    return rows + [Bar(name, value, text(value), muted=True) for name, value in rest]
