"""What a table of names holds of labels by LINE, which stay when latents are named again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .table import ConceptTable


def line_labels(table: ConceptTable, number: int) -> dict[str, Any] | None:
    """Return the best confirmed labels by LINE, how many there are, and what made them; None without any label.

    `rows` are at most `number` rows of the table, best first; proposer and imager are those of the latest labels, or
    "" if the table does not say.
    """
    frame = table.frame
    if "line_label" not in frame or not frame["line_label"].notna().any():
        return None
    labeled = frame[frame["line_label"].notna()]
    confirmed = labeled[labeled["line_confirmed"].astype(bool)].sort_values("line_low", ascending=False, kind="stable")
    rows = confirmed.head(number).to_dict("records")
    return {"labeled": len(labeled), "confirmed": len(confirmed), "rows": rows, **_makers(table.provenance)}


def with_line_labels_of(table: ConceptTable, earlier: ConceptTable) -> ConceptTable:
    """Return a table with the labels by LINE of an earlier one, if both are of the same model."""
    columns = [column for column in earlier.frame if column.startswith("line_")]
    of_model = [each.provenance.get("model_sha256") for each in (table, earlier)]
    if not columns or None in of_model or of_model[0] != of_model[1]:
        return table
    frame = table.frame.merge(earlier.frame[["latent", *columns]], on="latent", how="left")
    return replace(table, frame=frame, provenance={**table.provenance, "line": earlier.provenance.get("line", {})})


def _makers(provenance: dict[str, Any]) -> dict[str, str]:
    settings = provenance.get("line")
    settings = settings if isinstance(settings, dict) else {}
    found = {"proposer": "", "imager": ""}
    for part in found:
        own = settings.get(part)
        if isinstance(own, dict) and own.get(part):
            found[part] = " ".join(str(own[key]) for key in (part, "model") if own.get(key))
            if own.get("is_language_model") is False:
                found[part] += ", which is no language model"
    return found
