"""`activations.json`: what a folder of embeddings holds, where it comes from, and which shards are complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features

from .._utils.json_files import from_json, write_json

METADATA_FILE = "activations.json"
FORMAT_VERSION = 1


@dataclass
class Shard:
    """One complete Arrow stream file."""

    file: str  # file name within the folder
    num_rows: int  # number of rows
    num_bytes: int  # size on disk
    sha256: str = ""  # checksum of the file; "" in folders written before checksums were recorded
    skipped: list[int] = field(default_factory=list)  # numbers of the data's rows that were left out of this shard


@dataclass
class EmbeddingMetadata:
    """The content of `activations.json`."""

    columns: dict[str, int]  # embedding column -> width, in the order of the Arrow schema
    dtype: str  # how the embeddings are stored, "float32" or "float16"
    # The other columns, as returned by `datasets.Features.to_dict()`.
    extra_features: dict[str, Any] = field(default_factory=dict)
    # What the caller recorded about the origin: backbone, revision, dataset, versions.
    provenance: dict[str, Any] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)  # the complete shards in row order
    skipped_after: list[int] = field(default_factory=list)  # numbers of the data's rows left out after the last shard
    # The embedding columns that hold several embeddings per row.
    token_columns: list[str] = field(default_factory=list)
    # Where the data continues after the last shard, if known; see `EmbeddingWriter.write`.
    position: dict[str, Any] | None = None
    statistics_sha256: str = ""  # checksum of `statistics.safetensors`; "" if there is none
    complete: bool = False  # whether the writer was closed; False while it works and after it was killed
    format_version: int = FORMAT_VERSION

    @property
    def num_rows(self) -> int:
        """Rows in complete shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def rows_consumed(self) -> int:
        """Rows of the data that the complete shards cover, including those left out."""
        return sum(shard.num_rows + len(shard.skipped) for shard in self.shards) + len(self.skipped_after)

    @property
    def skipped(self) -> list[int]:
        """Numbers of the data's rows that were left out."""
        return [row for shard in self.shards for row in shard.skipped] + self.skipped_after

    def save(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / METADATA_FILE, {**asdict(self), "num_rows": self.num_rows})

    @classmethod
    def load(cls, folder: Path) -> EmbeddingMetadata | None:
        """Read the file of `folder`; None if there is none."""
        path = folder / METADATA_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.pop("format_version")
            num_rows = content.pop("num_rows")
            shards = [from_json(Shard, shard, "a shard") for shard in content.pop("shards")]
            if version <= FORMAT_VERSION:
                found = from_json(cls, {**content, "shards": shards, "format_version": version}, METADATA_FILE)
                if num_rows != found.num_rows:
                    raise ValueError(f"num_rows is {num_rows}, but the shards have {found.num_rows} rows")
                return found
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): extract again") from error
        raise ValueError(
            f"{path} has format_version {version}, but this hf_msae reads versions up to {FORMAT_VERSION}: "
            "install a newer hf_msae"
        )

    def differences(self, other: EmbeddingMetadata) -> list[str]:
        """List the settings that keep `other` from continuing this folder, one line each."""
        mine, theirs = _flatten(self.identity()), _flatten(other.identity())
        weights = "provenance.base_model_weights_sha256"
        if mine.get(weights) is not None and mine[weights] == theirs.get(weights):  # wherever the backbone lies now
            theirs["provenance.base_model_name_or_path"] = mine.get("provenance.base_model_name_or_path")
        return [
            f"{key}: the folder has {mine.get(key)!r}, this run has {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    def identity(self) -> dict[str, Any]:
        """Return the settings that must not change while a folder is written."""
        identity = asdict(self)
        names = ("columns", "token_columns", "dtype", "extra_features", "provenance", "format_version")
        return {key: identity[key] for key in names}


def new_metadata(
    columns: Mapping[str, int],
    extra_features: Features | None = None,
    dtype: str = "float32",
    metadata: Mapping[str, Any] | None = None,
    token_columns: Sequence[str] = (),
) -> EmbeddingMetadata:
    """Return the metadata of a new folder; arguments are those of `EmbeddingWriter`."""
    return EmbeddingMetadata(
        columns={name: int(width) for name, width in columns.items()},
        dtype=dtype,
        extra_features=as_json(Features(extra_features or {}).to_dict()),
        provenance=as_json(metadata or {}),
        token_columns=[name for name in columns if name in token_columns],
    )


def as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata as they will be read back (tuples become lists), so that a resumed run compares equal."""
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata must be JSON serializable (str, int, float, bool, list, dict): {error}") from error


def check_settings(
    columns: Mapping[str, int],
    extra_features: Features,
    dtype: str,
    rows_per_shard: int,
    token_columns: Sequence[str],
) -> None:
    """Check the settings of a new `EmbeddingWriter`."""
    if unknown := [name for name in token_columns if name not in columns]:
        raise ValueError(f"token_columns names {unknown[0]!r}, which is not in columns")
    if not columns:
        raise ValueError("columns is empty: name at least one embedding column and its width")
    for name, width in columns.items():
        if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
            raise ValueError(f"the width of column {name!r} must be a positive integer, got {width!r}")
    if both := sorted(columns.keys() & extra_features.keys()):
        raise ValueError(f"{both} are named both as embedding columns and in extra_features")
    if dtype not in ("float32", "float16"):
        raise ValueError(f'dtype must be "float32" or "float16", got {dtype!r}')
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard must be positive, got {rows_per_shard}")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
