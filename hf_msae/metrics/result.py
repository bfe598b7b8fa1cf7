"""The result of an evaluation: prints as a table, saves as metrics.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.json_files import write_json
from .._utils.levels import read_levels, sizes_of

if TYPE_CHECKING:
    import pandas as pd

_TABLE = {  # metric -> (heading, format)
    "fvu": ("FVU", "{:.4f}"),
    "train_fvu": ("train FVU", "{:.4f}"),
    "cosine_similarity": ("cosine", "{:.4f}"),
    "cosine_similarity_centered": ("centered", "{:.4f}"),
    "normalized_mae": ("NMAE", "{:.4f}"),
    "fvu_per_sample": ("FVU/sample", "{:.4f}"),
    "l0": ("L0", "{:.1f}"),
    "sparsity": ("sparsity", "{:.2%}"),
    "dead_latents": ("dead", "{:d}"),
    "dead_fraction": ("dead %", "{:.2%}"),
    "cknna": ("CKNNA", "{:.4f}"),
    "cknna_reconstruction": ("CKNNA x'", "{:.4f}"),
    "relative_reconstruction_bias_centered": ("bias", "{:.3f}"),
    "monosemanticity": ("MS", "{:.4f}"),
}
_CLASSIFIER_TABLE = {
    "agreement": ("agreement", "{:.2%}"),
    "kl": ("KL", "{:.4f}"),
    "accuracy_reconstruction": ("accuracy", "{:.2%}"),
    "accuracy_drop": ("drop", "{:+.2%}"),
}
_LATER = ("train_fvu", "cknna_reconstruction", "relative_reconstruction_bias_centered", "monosemanticity")
"""Columns that are left out if no level has a value."""

_PROBING = (("auroc", "AUROC"), ("balanced_accuracy", "bal. acc."))
_STABILITY_TABLE = {
    "num_latents": ("latents", "{:d}"),
    "mean_cosine": ("mean cosine", "{:.4f}"),
    "by_chance": ("by chance", "{:.4f}"),
    "fraction_above": ("above 0.7", "{:.1%}"),
}


@dataclass(frozen=True)
class EvaluationResult:
    """Quality of an MSAE on a dataset in raw space; see the functions of `hf_msae.metrics` for definitions.

    The values are those of the largest level evaluated; `by_k` has every level. An undefined value (e.g. CKNNA of too
    few samples) is None, null in JSON.

    Attributes:
        fvu: Fraction of variance unexplained over the dataset, `fvu`.
        fvu_per_sample: The MSAE authors' variant of it, `fvu_per_sample`.
        cosine_similarity: Mean cosine of embedding and reconstruction.
        cosine_similarity_centered: The same after subtracting the data mean from both.
        normalized_mae: Mean of sum |residual| / sum |embedding|.
        l0: Mean number of latents that fire per sample.
        sparsity: Mean fraction of latents that do not fire.
        dead_latents: Number of latents that never fire.
        dead_fraction: Fraction of latents that never fire.
        cknna: Alignment of embeddings and latents, `cknna`.
        cknna_batch_size: Number of samples per CKNNA batch, smaller than requested if there is less data; None if
            CKNNA was left out.
        decoder_orthogonality: Mean squared cosine between latents' directions.
        num_samples: Number of embeddings evaluated.
        baseline_mean: Reconstruction metrics of predicting the data mean for every sample.
        by_k: str(k) -> all metrics (except `baseline_mean`) of the code with k activations, k ascending. Where levels
            are prefixes of the dictionary (`by_width`), it holds the full code alone.
        relative_reconstruction_bias: Below 1 if reconstructions have shrunk, `relative_reconstruction_bias`.
        relative_reconstruction_bias_centered: The same after subtracting the data mean from both.
        cknna_reconstruction: Alignment of embeddings and reconstructions, `cknna`.
        monosemanticity: Mean `monosemanticity` over the latents that have a score; None without another encoder, like
            the next two.
        monosemanticity_std: Standard deviation of the score over latents.
        monosemanticity_encoder: Encoder that judged similarity.
        classifiers: By classifier name, what `ClassificationAccumulator.compute` returns.
        sparse_probing: By name, what `sparse_probing_by_level` returns, if measured (`with_levels`).
        seed_stability: What `seed_stability_by_level` returns, if measured.
        by_width: str(width) -> all metrics of the first latents of the dictionary, if levels are such prefixes. Counts
            and fractions of latents are those of the prefix.
        full_code: What the code holds where nothing is cut: the smallest such `k`, its `name` in tables, and what it
            `keeps`; None in files of earlier versions.
        train_fvu: The same as `fvu` on training rows, if it was measured (`with_training_fvu`); also at every level.
        model_sha256: `model_fingerprint` of the evaluated model, to match figures and models; None if its weights
            were sharded.
        data: The data it was measured on, as described by `describe_embeddings`, and `held_out`: whether the model
            was trained on other data (true), on this data (false) or this is unknown (null); see `with_data`.
    """

    fvu: float
    fvu_per_sample: float
    cosine_similarity: float
    cosine_similarity_centered: float
    normalized_mae: float
    l0: float
    sparsity: float
    dead_latents: int
    dead_fraction: float
    cknna: float | None
    cknna_batch_size: int | None
    decoder_orthogonality: float | None
    num_samples: int
    baseline_mean: dict[str, Any]
    by_k: dict[str, dict[str, Any]]
    relative_reconstruction_bias: float | None = None
    relative_reconstruction_bias_centered: float | None = None
    cknna_reconstruction: float | None = None
    monosemanticity: float | None = None
    monosemanticity_std: float | None = None
    monosemanticity_encoder: str | None = None
    classifiers: dict[str, dict[str, float | int | None]] = field(default_factory=dict)
    sparse_probing: dict[str, dict[str, float | int]] = field(default_factory=dict)
    seed_stability: dict[str, float | int | None] = field(default_factory=dict)
    model_sha256: str | None = None
    data: dict[str, Any] | None = None
    by_width: dict[str, dict[str, Any]] = field(default_factory=dict)
    full_code: dict[str, Any] | None = None
    train_fvu: float | None = None

    @classmethod
    def from_levels(
        cls,
        levels: Mapping[int, dict[str, Any]],
        baseline_mean: dict[str, Any],
        model_sha256: str | None = None,
        data: dict[str, Any] | None = None,
        full_code: dict[str, Any] | None = None,
        of_dictionary: bool = False,
    ) -> EvaluationResult:
        """Build a result from the metrics of every level; the largest one provides the headline figures.

        Args:
            levels: Metrics by k, or by width with `of_dictionary`.
            baseline_mean: Metrics of predicting the mean.
            model_sha256: Fingerprint of the model.
            data: Description of the data.
            full_code: What the full code is; needed with `of_dictionary`.
            of_dictionary: Whether the levels are prefixes of the dictionary, the last one the whole.
        """
        by_size = {str(size): levels[size] for size in sorted(levels)}
        headline = levels[max(levels)]
        sizes = {"by_k": {str(full_code["k"]): headline}, "by_width": by_size} if of_dictionary else {"by_k": by_size}
        known = {"model_sha256": model_sha256, "data": data, "full_code": full_code}
        return cls(**headline, baseline_mean=baseline_mean, **sizes, **known)

    @property
    def sizes(self) -> list[int]:
        """The levels that were measured, ascending: each k, or each width of a prefix of the dictionary."""
        return sizes_of({"by_k": self.by_k, "by_width": self.by_width})

    def with_data(self, **known: Any) -> EvaluationResult:
        """Return a copy with more about the data, e.g. `with_data(held_out=True, split="test")`, for the card."""
        return replace(self, data={**(self.data or {}), **known})

    def with_training_fvu(self, measured: EvaluationResult) -> EvaluationResult:
        """Return a copy with the FVU that another evaluation, of training rows, measured at the same levels."""
        rows = {
            name: {
                size: {**metrics, "train_fvu": getattr(measured, name)[size]["fvu"]}
                for size, metrics in getattr(self, name).items()
            }
            for name in ("by_k", "by_width")
        }
        known = self.with_data(num_training_samples=measured.num_samples)
        return replace(known, **rows, train_fvu=measured.fvu)

    def with_levels(
        self,
        sparse_probing: Mapping[int, dict[str, dict[str, float | int]]] | None = None,
        seed_stability: Mapping[int, dict[str, float | int | None]] | None = None,
    ) -> EvaluationResult:
        """Return a copy with the results of `sparse_probing_by_level` and `seed_stability_by_level`."""
        given = {"sparse_probing": sparse_probing, "seed_stability": seed_stability}
        found = {name: values for name, values in given.items() if values is not None}
        headline = {name: each[self.sizes[-1]] for name, each in found.items()}
        rows = {
            size: {**metrics, **{name: each[int(size)] for name, each in found.items()}}
            for size, metrics in (self.by_width or self.by_k).items()
        }
        if self.by_width:
            full = {k: {**metrics, **headline} for k, metrics in self.by_k.items()}
            return replace(self, by_k=full, by_width=rows, **headline)
        return replace(self, by_k=rows, **headline)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json: only dicts, strings, numbers and None."""
        return asdict(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per level, ascending, with the level in column `k`, or `width` of a prefix.

        Nested results become columns like `NAME.agreement`, `sparse NAME.auroc_1` and `seed_stability.mean_cosine`.
        """
        import pandas as pd

        name, rows = ("width", self.by_width) if self.by_width else ("k", self.by_k)
        return pd.DataFrame([{name: int(size), **_flat(metrics)} for size, metrics in rows.items()])

    def save(self, path: str | os.PathLike) -> Path:
        """Write metrics.json to `path`, a file or an existing folder, and return the path of the file."""
        path = Path(path).expanduser()
        path = path / "metrics.json" if path.is_dir() else path
        write_json(path, self.to_dict())
        return path

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationResult:
        """Invert `to_dict`, ignoring further keys that others may have added to the file.

        Raises:
            ValueError: A key is missing.
        """
        required = [each.name for each in fields(cls) if each.default is each.default_factory is MISSING]
        if missing := [name for name in required if name not in content]:
            raise ValueError(f"not the metrics of an evaluation: {', '.join(missing)} missing")
        return cls(**{each.name: content[each.name] for each in fields(cls) if each.name in content})

    @classmethod
    def load(cls, path: str | os.PathLike) -> EvaluationResult:
        """Read metrics.json from `path`, a file or the folder it is in."""
        path = Path(path).expanduser()
        path = path / "metrics.json" if path.is_dir() else path
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def __str__(self) -> str:
        levels = read_levels(self.to_dict())
        of_levels = [(level.label, level.metrics) for level in levels.distinct]
        labelled = [*of_levels, ("mean only", self.baseline_mean)]
        filled = {name for _, metrics in labelled for name, value in metrics.items() if value is not None}
        columns = {name: column for name, column in _TABLE.items() if name in filled or name not in _LATER}
        notes = [f"{self.num_samples} samples, raw space"]
        if self.train_fvu is not None:
            notes.append(f"train FVU: of {self.data['num_training_samples']} training samples")
        if self.cknna_batch_size is not None:
            notes.append(f"CKNNA on batches of {self.cknna_batch_size}")
        if self.decoder_orthogonality is not None:
            notes.append(f"decoder orthogonality {self.decoder_orthogonality:.5f}")
        if self.monosemanticity_encoder is not None:
            notes.append(f"MS: monosemanticity judged by {self.monosemanticity_encoder}")
        heading = levels.heading
        lines = [*_table(heading, columns, labelled), "; ".join(notes), *levels.notes]
        for name, found in self.classifiers.items():
            rows = [(label, metrics.get("classifiers", {}).get(name, {})) for label, metrics in labelled]
            columns = {key: column for key, column in _CLASSIFIER_TABLE.items() if found[key] is not None}
            lines += ["", f"{name}: reconstructions compared with originals", *_table(heading, columns, rows)]
            if found["accuracy"] is not None:
                lines.append(f"accuracy on the originals: {found['accuracy']:.2%} of {found['num_labelled']} samples")
        for name, found in self.sparse_probing.items():
            columns = _sparse_probing_table(found)
            rows = [(label, metrics["sparse_probing"][name]) for label, metrics in of_levels]
            rows.append(("embeds", {key: found.get(f"embeds_{key}") for key in columns}))
            lines += ["", f"sparse probing of {name}: how well few latents recognize a class"]
            lines += _table(heading, columns, rows)
            means = f"means over {number} classes, " if (number := found["num_concepts"]) > 1 else ""
            lines.append(
                f"{means}trained on {found['num_train']} samples and measured on "
                f"{found['num_test']}; embeds: columns of the embeddings instead of latents"
            )
        if self.seed_stability:
            rows = [(label, metrics["seed_stability"]) for label, metrics in of_levels]
            lines += ["", "stability across seeds: latents alive at each level, matched one to one"]
            lines += _table(heading, _STABILITY_TABLE, rows)
            if error := max(found["error"] for _, found in rows):
                lines.append(f"matchings are approximate: the best are higher by at most {error:.1e}")
        return "\n".join(lines)


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    groups = dict(metrics.get("classifiers", {}))
    groups |= {f"sparse {name}": found for name, found in metrics.get("sparse_probing", {}).items()}
    groups["seed_stability"] = metrics.get("seed_stability", {})
    others = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    return others | {f"{name}.{key}": value for name, found in groups.items() for key, value in found.items()}


def _sparse_probing_table(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    numbers = [int(key.removeprefix("auroc_")) for key in found if key.startswith("auroc_")]
    headings = [(f"{key}_{n}", f"{short}, {n} latent{'s' * (n > 1)}") for n in numbers for key, short in _PROBING]
    return {key: (heading, "{:.4f}") for key, heading in headings}


def _table(
    heading: str, columns: Mapping[str, tuple[str, str]], rows: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """Lines of a table with one row per level; columns are metric -> (heading, format)."""
    cells = [[heading, *(heading for heading, _ in columns.values())]]
    for label, metrics in rows:
        values = [(metrics.get(name), form) for name, (_, form) in columns.items()]
        cells.append([label, *("-" if value is None else form.format(value) for value, form in values)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
