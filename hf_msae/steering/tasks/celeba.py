"""CelebA: faces with 40 attributes, in which few people with blond hair are men (Liu et al., 2015)."""

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
    """Say whether hair is blond, where few of the people with blond hair are men.

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
    if isinstance(source, str | os.PathLike) and (Path(source).expanduser() / "list_attr_celeba.txt").is_file():
        folder = Path(source).expanduser()
        table = pd.read_csv(folder / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
        parts = pd.read_csv(folder / "list_eval_partition.txt", sep=r"\s+", header=None, index_col=0)[1]
        files = [folder / "img_align_celeba" / each for each in table.index]
        dataset: Dataset | DatasetDict = with_images(table.assign(split=parts.reindex(table.index).to_numpy()), files)
        settings = {"split_column": "split", **settings}
    else:
        dataset = open_dataset(source)
    others = [name for name in ATTRIBUTES if name not in (target, bias)] if concepts is None else concepts
    settings = {"name": "celeba", "balance_test": True, **settings}
    return task_from_dataset(dataset, backbone, target, bias, others, num_rows=num_rows, **settings)
