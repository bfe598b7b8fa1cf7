"""Waterbirds: birds of the water and the land in front of water and land (Sagawa et al., 2020)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...backbones import Backbone
from .datasets import open_dataset, task_from_dataset, with_images
from .task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def waterbirds(
    source: str | os.PathLike | Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str = "y",
    bias: str = "place",
    concepts: Sequence[str] = (),
    **settings: Any,
) -> Task:
    """Say whether a bird is one of the water, where 95% of training birds are in front of where they live.

    In the test split, half of the birds of either kind are in front of water.

    Args:
        source: The folder waterbird_complete95_forest2water2, which holds metadata.csv; or a dataset with columns of
            the label and the place, or its id on the Hub.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: Column of the label: 1 is a bird of the water.
        bias: Column of the place: 1 is water.
        concepts: Columns of other concepts, if you have added some.
        settings: Other arguments of `task_from_dataset`.

    Returns:
        The task.

    Raises:
        FileNotFoundError: An image is missing.
        ValueError: A column is missing, or a value of it is unknown.
    """
    if isinstance(source, str | os.PathLike) and (file := Path(source).expanduser() / "metadata.csv").is_file():
        table = pd.read_csv(file)
        dataset: Dataset | DatasetDict = with_images(table, [file.parent / each for each in table["img_filename"]])
        settings = {"split_column": "split", **settings}
    else:
        dataset = open_dataset(source)
    return task_from_dataset(dataset, backbone, target, bias, concepts, **{"name": "waterbirds", **settings})
