"""What the columns of a table of names have to hold."""

from __future__ import annotations

import os

import pandas as pd

_NUMBERS = (
    *("similarity", "runner_up_similarity", "ratio", "p_value", "q_value", "agreement", "runner_up_agreement"),
    *("zero_shot_auroc", "zero_shot_auroc_low", "zero_shot_auroc_high"),
    *("auroc", "auroc_low", "auroc_high", "runner_up_auroc", "line_score", "line_low", "line_high"),
    *("line_auprc", "line_correlation", "line_f1", "line_iou", "line_share"),
)


def check_values(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Raise ValueError for a column that holds something else; make empty columns of numbers NaN."""
    latents = frame["latent"]
    if not pd.api.types.is_integer_dtype(latents) or latents.min() < 0 or latents.duplicated().any():
        raise ValueError(f"{path}: the column latent must hold numbers of latents, from 0 on, each of them once")
    for column in ("name", "runner_up"):
        if not frame[column].dropna().map(type).eq(str).all():
            raise ValueError(f"{path}: the column {column} must hold text, or nothing")
    for column in frame.columns.intersection(_NUMBERS):
        try:
            frame[column] = pd.to_numeric(frame[column])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: the column {column} must hold numbers: {error}") from error
