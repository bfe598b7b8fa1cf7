"""What the columns of a table of names have to hold."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

_TEXTS = (
    "name",
    "runner_up",
    "synonyms",
    "also",
    "direction_name",
    "activation_name",
    "label",
    "line_label",
    "line_meanings",
    "line_noticed_by",
    "line_unchecked",
)
_NUMBERS = (
    *("similarity", "runner_up_similarity", "ratio", "p_value", "q_value", "agreement", "runner_up_agreement"),
    *("zero_shot_auroc", "zero_shot_auroc_low", "zero_shot_auroc_high"),
    *("auroc", "auroc_low", "auroc_high", "runner_up_auroc", "line_score", "line_low", "line_high"),
    *("line_auprc", "line_correlation", "line_f1", "line_iou", "line_share"),
)
_MOST_LATENTS = 2**31  # a table may hold some of the latents, so its length does not bound them


def check_values(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Raise ValueError at the first value that its column cannot hold; make empty columns of numbers NaN."""

    def require(good: Sequence[bool], column: str, kind: str) -> None:
        if not np.all(good):
            row = int(np.argmin(good))
            value = reprlib.repr(frame[column].tolist()[row])
            raise ValueError(f"{path}: {column} is {value} in row {row}, but must be {kind}")

    latents, is_integer = frame["latent"], (int, np.integer)
    kind = "the number of a latent, from 0 on, and that of no other row"
    require([isinstance(each, is_integer) and 0 <= each < _MOST_LATENTS for each in latents.tolist()], "latent", kind)
    require(~latents.duplicated(), "latent", kind)
    for column in [each for each in frame.columns if each in _TEXTS]:
        if not isinstance(frame[column].dtype, pd.StringDtype):
            require(frame[column].map(lambda each: isinstance(each, str)) | frame[column].isna(), column, "text")
    for column in [each for each in frame.columns if each in _NUMBERS]:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            require(frame[column].isna(), column, "a number")
            frame[column] = np.nan
