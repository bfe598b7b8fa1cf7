"""What became of concepts that a visitor has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from .names import shown_name_html

if TYPE_CHECKING:
    from ..explorer import Explorer


@dataclass(frozen=True)
class Change:
    """A concept before and after.

    Attributes:
        name, latent, validated: which, by the key that the visitor has chosen.
        before, after: its activation.
    """

    name: str
    latent: int
    validated: bool
    before: float
    after: float


def change_list(explorer: Explorer, changes: Sequence[Change]) -> str:
    """Concepts that a visitor has changed, and their activations before and after, as HTML."""
    lines = []
    for each in changes:
        label = explorer.label(each.latent)
        key = "" if each.name == str(label) else f" ({escape(each.name)})"
        change = f"activation {each.before:.2f} → {each.after:.2f}"
        lines.append(f"<li><b>{shown_name_html(label)}{key}</b>: {change}</li>")
    return f"<ul>{''.join(lines)}</ul>"
