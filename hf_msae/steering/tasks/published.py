"""Recipes for published datasets: CelebA (Liu et al., 2015) and Waterbirds (Sagawa et al., 2020)."""

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

ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips"),
    *("Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin"),
    *("Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open"),
    *("Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat"),
    *("Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)


def celeba(
    source: str | os.PathLike | Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str = "Blond_Hair",
    bias: str = "Male",
    concepts: Sequence[str] | None = None,
    num_rows: int | None = 20_000,
    **settings: Any,
) -> Task:
    """CelebA: say whether hair is blond, where few of the people with blond hair are men.

    Training rows are drawn at random. Test rows are drawn so that hair and sex are independent: as many of each of
    the four groups.

    Args:
        source: A folder with img_align_celeba, list_attr_celeba.txt and list_eval_partition.txt; or a dataset with
            the attributes as columns, or its id on the Hub, such as "flwrlabs/celeba".
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: Attribute that is the label.
        bias: Attribute that is the bias.
        concepts: Other attributes. Defaults to all others.
        num_rows: Number of rows at most, half of them of either split; None for all.
        settings: Other arguments of `task_from_dataset`.

    Returns:
        The task.

    Raises:
        FileNotFoundError: An image is missing.
        ValueError: A column is missing, or a value of it is unknown.
    """
    if (folder := _folder_with("list_attr_celeba.txt", source)) is not None:
        table = pd.read_csv(folder / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
        parts = pd.read_csv(folder / "list_eval_partition.txt", sep=r"\s+", header=None, index_col=0)[1]
        files = [folder / "img_align_celeba" / each for each in table.index]
        source = with_images(table.assign(split=parts.reindex(table.index).to_numpy()), files)
        settings = {"split_column": "split", **settings}
    others = [name for name in ATTRIBUTES if name not in (target, bias)] if concepts is None else concepts
    settings = {"name": "celeba", "balance_test": True, **settings}
    return task_from_dataset(open_dataset(source), backbone, target, bias, others, num_rows=num_rows, **settings)


def waterbirds(
    source: str | os.PathLike | Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str = "y",
    bias: str = "place",
    concepts: Sequence[str] = (),
    **settings: Any,
) -> Task:
    """Waterbirds: say whether a bird is one of the water, where 95% of training birds are in front of where they live.

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
    if (folder := _folder_with("metadata.csv", source)) is not None:
        table = pd.read_csv(folder / "metadata.csv")
        source = with_images(table, [folder / each for each in table["img_filename"]])
        settings = {"split_column": "split", **settings}
    return task_from_dataset(
        open_dataset(source), backbone, target, bias, concepts, **{"name": "waterbirds", **settings}
    )


def _folder_with(name: str, source: Any) -> Path | None:
    folder = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    return folder if folder is not None and (folder / name).is_file() else None
