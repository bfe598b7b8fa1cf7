"""`activations.json`: what the embeddings in a folder are, where they come from, and which shards are complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._utils.json_files import write_json

METADATA_FILE = "activations.json"
FORMAT_VERSION = 1


@dataclass
class Shard:
    """One complete Arrow stream file.

    Attributes:
        file: its name within the folder.
        num_rows: embeddings in it.
        num_bytes: its size on disk.
        sha256: of its bytes; "" where it was written before these were recorded.
        skipped: numbers of the data's rows that were left out, among those that the file is of.
    """

    file: str
    num_rows: int
    num_bytes: int
    sha256: str = ""
    skipped: list[int] = field(default_factory=list)


@dataclass
class EmbeddingMetadata:
    """The content of `activations.json`.

    Attributes:
        columns: embedding column -> width, in the order of the Arrow schema.
        dtype: "float32" or "float16", how the embeddings are stored.
        extra_features: the other columns as `datasets.Features.to_dict()` gives them.
        provenance: what the caller knows about the origin: backbone, revision, data set, processor backend, versions.
        shards: the complete shards in row order.
        skipped_after: numbers of the data's rows that were left out behind the last shard.
        token_columns: those of the embedding columns that hold several embeddings a row.
        position: where the data goes on behind the last shard, as far as known; see `EmbeddingWriter.write`.
        statistics_sha256: of `statistics.safetensors`; "" where there is none.
        complete: whether the writer was closed; False while it works and after it was killed.
    """

    columns: dict[str, int]
    dtype: str
    extra_features: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    skipped_after: list[int] = field(default_factory=list)
    token_columns: list[str] = field(default_factory=list)
    position: dict[str, Any] | None = None
    statistics_sha256: str = ""
    complete: bool = False
    format_version: int = FORMAT_VERSION

    @property
    def num_rows(self) -> int:
        """Rows in complete shards."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def rows_consumed(self) -> int:
        """Rows of the data that complete shards are of, those left out included."""
        return sum(shard.num_rows + len(shard.skipped) for shard in self.shards) + len(self.skipped_after)

    @property
    def skipped(self) -> list[int]:
        """Numbers of the data's rows that were left out."""
        return [row for shard in self.shards for row in shard.skipped] + self.skipped_after

    def save(self, folder: Path) -> None:
        """Write the file atomically."""
        write_json(folder / METADATA_FILE, {**asdict(self), "num_rows": self.num_rows})

    @classmethod
    def load(cls, folder: Path) -> EmbeddingMetadata | None:
        """Read the file of `folder`; None where there is none.

        Raises:
            ValueError: the file is not valid, or a newer version of the package wrote it.
        """
        path = folder / METADATA_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.pop("format_version")
            content.pop("num_rows")
            shards = [Shard(**shard) for shard in content.pop("shards")]
            if version <= FORMAT_VERSION:
                return cls(**content, shards=shards, format_version=version)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}); extract the embeddings again"
            ) from error
        raise ValueError(
            f"{path} has format_version {version}, but this hf_msae reads versions up to {FORMAT_VERSION}: "
            "install a newer hf_msae"
        )

    def differences(self, other: EmbeddingMetadata) -> list[str]:
        """What keeps `other` from continuing this folder, one line per setting; empty where nothing does."""
        mine, theirs = _flatten(self._identity()), _flatten(other._identity())
        return [
            f"{key}: the folder has {mine.get(key)!r}, this run has {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    def _identity(self) -> dict[str, Any]:
        identity = asdict(self)
        names = ("columns", "token_columns", "dtype", "extra_features", "provenance", "format_version")
        return {key: identity[key] for key in names}


def as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata as it will be read back (tuples become lists), so that a resumed run compares like with like.

    Raises:
        TypeError: something in it cannot be written to JSON.
    """
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"metadata must be JSON serialisable (str, int, float, bool, None, list, dict): {error}"
        ) from error


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
