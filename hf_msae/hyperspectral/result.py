"""The result of red teaming: findings, the tables they rest on, and figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from .._utils.atomic import make_folder
from .._utils.json_files import json_records, write_json, write_text
from .._utils.wording import counted, joined
from ..statistics import SEVERITIES, Finding, Result
from .reading import FIELD_SIZE

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure

_COLUMNS = ["severity", "title", "metric", "value", "low", "high", "p_value", "evidence", "advice", "audit"]


@dataclass(frozen=True)
class RedTeamReport(Result):
    """What `red_team` found.

    Attributes:
        findings: Findings, the gravest first.
        tables: What was measured, by name; each audit says which tables it makes.
        remarks: How it was measured, and what was left out and why.
        about: The model, the data and the settings.
        num_tests: Number of tests that the findings are corrected for.
        alpha: Probability of one false finding or more.
    """

    findings: tuple[Finding, ...]
    tables: Mapping[str, pd.DataFrame]
    remarks: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    num_tests: int = 0
    alpha: float = 0.05

    def verdict(self) -> str:
        """Say in one sentence what was found."""
        model, tests = self.about.get("model", "the model"), counted(self.num_tests, "test")
        if not self.num_tests:
            return f"nothing could be tested of {model}; the remarks say why"
        but = self._not_cleared()
        if not self.findings:
            if "performance" not in self.tables:  # nor wrong with a model of nothing
                also = f", and {but}" if but else ""
                return f"{tests} of {model} found nothing; whether it predicts at all was not tested{also}"
            if but:
                return f"{tests} of {model} found nothing, but {but}"
            return f"{tests} found nothing wrong with {model}"
        numbers = [(sum(each.severity == name for each in self.findings), name) for name in SEVERITIES]
        counts = ", ".join(f"{number} {name}" for number, name in numbers if number)
        noun = "finding" if len(self.findings) == 1 else "findings"
        gravest = f"{counts} {noun} in {tests} of {model}; the gravest: {self.findings[0].title}"
        return f"{gravest}; {but}" if but else gravest

    def _not_cleared(self) -> str:
        """Say of which targets and groupings no finding is no all-clear; nothing if of none, or if none was tested."""
        weak, parts = self._not_predicted() if "performance" in self.tables else [], []
        if weak:
            parts.append(f"{joined(weak)} {'is' if len(weak) == 1 else 'are'} not shown to be predicted at all")
        if unknown := list(self.unknown_ends()):
            parts.append(f"whether predictions of {joined(unknown)} follow extreme values is not known")
        if unread := self._not_read():
            parts.append(unread)
        return ", and ".join(parts)

    def _not_read(self) -> str:
        """Say that nothing is known of shortcuts, and why; nothing if it is known, or if nobody asked."""
        if "shortcuts" not in self.about.get("audits", ()):
            return ""
        given = [name for name in self.about.get("groupings", ()) if name != FIELD_SIZE]
        tables = [self.tables[name] for name in ("shortcuts", "pulls") if name in self.tables]
        tested = {name for table in tables for name in table["grouping"]}
        untested = [name for name in given if name not in tested]
        if given and not untested:
            return ""
        is_spectral = self.about.get("is_spectral")
        if not tables:
            why = "since the model is not fitted again"
        elif untested:
            why = "for reasons that the remarks give"
        elif is_spectral:
            why = "since no such column was given (groups, --group_table)"
        else:
            why = "since no grouping was given (groups, --groups)"
        what = f"the {joined(untested)}" if untested else "a farm, an instrument or a date"
        what = what if untested or is_spectral else "a source or another group"
        return f"whether predictions rest on {what} is not known, {why}"

    def unknown_ends(self) -> dict[str, list[str]]:
        """Return the targets that are predicted, but of some extreme values of which nothing is known, and which."""
        from .audits.slices import unknown_ends

        if (table := self.tables.get("performance")) is None:
            return {}
        return unknown_ends(table[~table["target"].isin(self._not_predicted())], self.findings)

    def _not_predicted(self) -> list[str]:
        """Return the targets of which neither R2 (or AUROC) nor the correlation is shown to be above nothing."""
        from .audits.outcome import RELATED

        table = self.tables["performance"]
        beyond = table["low"] > table["metric"].map({"r2": 0.0, "auroc": 0.5, "correlation": RELATED})
        predicted = set(table["target"][beyond])
        targets = dict.fromkeys(table["target"][table["metric"] == "rmse"])  # of each, but not of their mean
        return [each for each in targets if each not in predicted]

    def __str__(self) -> str:
        lines = [self.verdict(), *(f"  {each}" for each in self.findings)]
        return "\n".join(lines)

    def to_pandas(self) -> pd.DataFrame:
        """Return the findings as a table."""
        return pd.DataFrame([each.to_dict() for each in self.findings], columns=_COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "verdict": self.verdict(),
            "findings": [each.to_dict() for each in self.findings],
            "tables": {
                name: {
                    "columns": list(table.columns),
                    "records": json_records(table.replace([np.inf, -np.inf], np.nan)),
                }
                for name, table in self.tables.items()
            },
            "remarks": list(self.remarks),
            "about": dict(self.about),
            "num_tests": self.num_tests,
            "alpha": self.alpha,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build a report from what `to_dict` returned.

        Raises:
            ValueError: A field is missing.
        """
        try:
            tables = {
                name: pd.DataFrame(table["records"], columns=table["columns"])
                for name, table in content["tables"].items()
            }
            findings = tuple(Finding.from_dict(each) for each in content["findings"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is not a saved {cls.__name__}: {error!r}") from error
        others = {name: content[name] for name in ("remarks", "about", "num_tests", "alpha") if name in content}
        return cls(findings, tables, **others)

    def to_json(self, path: str | os.PathLike) -> None:
        """Write everything as JSON, as `save` does; `load` reads it."""
        make_folder(Path(path).parent)
        write_json(path, self.to_dict())

    def to_yaml(self, path: str | os.PathLike) -> None:
        """Write the findings as YAML in the shape of the MI2 lab's modelpedia, one entry a finding.

        Nobody has reviewed them: their `review_status` is "unreviewed", whatever their severity.
        """
        from .modelpedia import entries

        make_folder(Path(path).parent)
        content = {"findings": entries(self)}
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))

    def to_html(self) -> str:
        """Return an HTML section with the findings, the main tables and the figures, without scripts.

        `hf_msae.report.write_red_team_report` makes a page of it.
        """
        from .section import render_section

        return render_section(self)

    def figures(self) -> dict[str, Figure]:
        """Draw everything that there is something to draw of, by name."""
        return dict(self._figures)

    @cached_property
    def _figures(self) -> dict[str, Figure]:  # files and page have the same
        from ..plotting import hyperspectral as plots
        from ..plotting import spectra
        from ..plotting.concepts import plot_concept_effects
        from .audits.slices import QUANTILES

        tables, drawn = self.tables, {}
        if "predictions" in tables:
            drawn["predictions"] = plots.plot_predictions(tables["predictions"])
        if "shortcuts" in tables and len(tables["shortcuts"]):
            drawn["shortcuts"] = plots.plot_shortcuts(tables["shortcuts"])
        if "pulls" in tables and tables["pulls"]["pull"].notna().any():
            drawn["pulls"] = plots.plot_pulls(tables["pulls"])
        if "slices" in tables and (parts := tables["slices"]["grouping"].isin(QUANTILES)).any():
            drawn["deciles"] = plots.plot_quantiles(tables["slices"][parts])
        if "attributions" in tables and tables["attributions"]["wavelength"].notna().any():
            spectrum = tables.get("spectrum")
            drawn["wavelengths"] = spectra.plot_wavelengths(tables["attributions"], spectrum)
            if tables["attributions"].dropna(subset=["wavelength"])["transformation"].nunique() > 1:
                drawn["bands"] = spectra.plot_band_map(tables["attributions"], spectrum)
        elif "attributions" in tables and len(tables["attributions"]):
            drawn["attributions"] = plots.plot_attributions(tables["attributions"])
        if "concepts" in tables and len(tables["concepts"]):
            drawn["concepts"] = plot_concept_effects(tables["concepts"])
        if "bands" in tables and len(tables["bands"]):
            drawn["single_bands"] = spectra.plot_single_bands(tables["bands"])
        if "pruning" in tables:
            drawn["pruning"] = plots.plot_pruning(tables["pruning"])
        if "attacks" in tables:
            drawn["attacks"] = plots.plot_attacks(tables["attacks"])
        return drawn

    def plot(self) -> Figure:
        """Draw the first figure: predictions against the truth, if performance was audited.

        Raises:
            ValueError: There is nothing to draw.
        """
        for figure in self.figures().values():
            return figure
        known = ", ".join(self.tables) or "none"
        raise ValueError(f"there is nothing to draw of the tables ({known}): run more audits, such as performance")
