"""Markdown of the cards: values that are never read as markup, and data in a few words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ..._utils.built_in import BUILT_IN
from ..._utils.markdown import code, escaped, longest_run
from ...metrics.measured_data import is_hub_id


@cache
def card_template(name: str = "template.md") -> Template:
    """A card's template: next to this file in an installed package, in model_cards/ in a checkout."""
    folders = [Path(__file__).parent, Path(__file__).parents[3] / "model_cards"]
    environment = Environment(
        loader=FileSystemLoader(folders), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "escaped": escaped,
        "code": code,
        "fenced": fenced,
        "figure": figure,
        "data_name": data_name,
        # A code block must not end early.
        "json": lambda value: json.dumps(value, ensure_ascii=False).replace("`", r"\u0060"),
        "bibtex": lambda value: re.sub(r"[^\w.+-]", "", str(value)),
        "share": lambda value: "" if value is None else f"{value:.1%}",
    }
    return environment.get_template(name)


def figure(value: Any) -> str:
    """A number as tables show it; empty for None and NaN."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escaped(value)


def rounded(value: Any) -> Any:
    """The number that `figure` shows."""
    return float(figure(value)) if isinstance(value, float) else value


def fenced(text: str, language: str) -> str:
    """A code block in Markdown, whatever backticks it contains."""
    fence = "`" * max(3, 1 + longest_run(text))
    return f"{fence}{language}\n{text}\n{fence}"


def hub_link(name: str, kind: str = "") -> str:
    """A link to a model ("") or a dataset ("datasets/") on the Hub."""
    return f"[{code(name)}](https://hf.co/{kind}{quote(name)})"


def is_on_hub(name: str | None, is_local: bool | None = None) -> bool:
    """Whether a backbone's name is a Hub id that can be linked, rather than a folder or a model of this package.

    `is_local` says whether it was a folder on the machine of the training; None if that is not recorded.
    """
    return is_hub_id(name) and name not in BUILT_IN and not is_local and not Path(name).is_dir()


def data_title(data: Mapping[str, Any]) -> str:
    """A short title of data, such as "rendered scenes (test)"."""
    if not data:
        return "unrecorded embeddings"
    dataset, split = data.get("dataset") or data.get("hub_dataset"), data.get("split") or data.get("dataset_split")
    if str(dataset).startswith("scenes:"):
        _, split, *_ = dataset.split(":")
        return f"rendered scenes ({split})"
    source = str(data.get("source", "not recorded"))
    title = dataset or (source if source.startswith("the given ") else Path(source).stem)
    return f"{title} ({split})" if split else str(title)


def data_name(data: Mapping[str, Any] | None, num_samples: int | None = None) -> str:
    """Describe data in a few words: how many embeddings (by default the recorded number), and of what."""
    data = data or {}
    rows = data.get("num_rows")
    number = num_samples or data.get("num_samples", rows)
    many = "" if number is None else f"{number:,} "
    if not data:
        return f"{many}unrecorded embeddings"
    counted = "" if rows in (None, number) else f"{rows:,} "  # several tokens a row
    dataset = data.get("dataset") or ""
    if dataset.startswith("scenes:"):
        _, split, _, *seed = dataset.split(":")
        what = (
            "the captions of rendered scenes" if data.get("column") == "text_embeds" else f"{counted}rendered scenes"
        )
        seed = escaped(seed[0] if seed else 0)
        return f"{many}embeddings of {what}, `hf_msae.scenes` (split {escaped(split)}, seed {seed})"
    hub, split = data.get("hub_dataset"), data.get("split") or data.get("dataset_split")
    title = hub_link(hub, "datasets/") if hub else code(data_title({**data, "split": None, "dataset_split": None}))
    suffix = f", split {escaped(split)}" if split else ""
    return f"{many}embeddings of {counted and f'{counted}rows of '}{title}{suffix}"
