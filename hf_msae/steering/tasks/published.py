"""Recipes for published datasets: CelebA (Liu et al., 2015), Waterbirds (Sagawa et al., 2020) and ISIC (2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..._utils.paths import is_saved_dataset
from ...backbones import Backbone
from .datasets import opened, task_from_dataset, with_images
from .task import SPLITS, Task

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

ISIC_ARTIFACTS = ("dark_corner", "hair", "gel_border", "gel_bubble", "ruler", "ink", "patches")
"""What may be seen in pictures of skin lesions besides skin, as isic_bias.csv names it."""


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
    return task_from_dataset(opened(source), backbone, target, bias, others, num_rows=num_rows, **settings)


def waterbirds(
    source: str | os.PathLike | Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str = "y",
    bias: str = "place",
    concepts: Sequence[str] = (),
    **settings: Any,
) -> Task:
    """Waterbirds: is it a water bird? In training, 95% of the birds are shown in front of their own habitat.

    In the test split, half of the birds of either kind are in front of water.

    Args:
        source: The folder waterbird_complete95_forest2water2, which holds metadata.csv; or a dataset with columns of
            the label and the place, or its id on the Hub.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: Column of the label: 1 is a bird of the water.
        bias: Column of the place: 1 is water.
        concepts: Columns of other concepts, if you have added some.
        settings: Other arguments of `task_from_dataset`.

    Raises:
        FileNotFoundError: An image is missing.
        ValueError: A column is missing, or a value of it is unknown.
    """
    if (folder := _folder_with("metadata.csv", source)) is not None:
        table = pd.read_csv(folder / "metadata.csv")
        source = with_images(table, [folder / each for each in table["img_filename"]])
        settings = {"split_column": "split", **settings}
    return task_from_dataset(opened(source), backbone, target, bias, concepts, **{"name": "waterbirds", **settings})


def isic(
    source: str | os.PathLike | Dataset | DatasetDict,
    backbone: Backbone | str | os.PathLike,
    target: str = "malignant",
    bias: str = "ruler",
    concepts: Sequence[str] | None = None,
    trap_set: int | None = None,
    **settings: Any,
) -> Task:
    """ISIC: say whether a skin lesion is malignant, where rulers, ink or patches go with the label.

    Test rows are drawn so that lesion and artifact are independent, as many of each of the four groups. Patches are on
    benign lesions alone, and can only be one of the concepts.

    Args:
        source: A folder with pictures named by their ids (ISIC_0000000.jpg), here or in folders below, and what says
            which of them show artifacts: isic_bias.csv (Bissoto et al., "Debiasing skin lesion datasets and models?
            Not so fast", 2020; ISIC 2018, tasks 1 and 2), or metadata.csv, as isic-cli writes it, with columns that
            you have added. Or a dataset with the label and the artifacts as columns, or its id on the Hub.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: Column of the label. In a folder, "malignant" is made of `label`, `benign_malignant` or `diagnosis_1`;
            rows that are neither benign nor malignant are left out.
        bias: Column of the artifact that is the bias.
        concepts: Columns of other concepts. Defaults to the other artifacts that there are columns for.
        trap_set: Number, 1 to 5, of a published split in which artifacts go with the label in training, and against
            it in the test: isic_annotated_train1.csv and isic_annotated_test1.csv. Otherwise a folder's rows are split
            at random by the seed, in halves, so that no patient or lesion that metadata.csv knows is in both.
        settings: Other arguments of `task_from_dataset`.

    Raises:
        FileNotFoundError: An image, or the list of artifacts, is missing.
        ValueError: A column is missing, or a value of it is unknown.
    """
    folder = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    if folder is not None and folder.is_dir() and not is_saved_dataset(folder):
        source = _isic_rows(folder, trap_set, settings.get("seed", 0))
        settings = {"split_column": "split", **settings}
    dataset = opened(source)
    if concepts is None:
        known = dataset["train"].column_names if isinstance(dataset, dict) else dataset.column_names
        concepts = [name for name in ISIC_ARTIFACTS if name in known and name != bias]
    settings = {"name": "isic", "balance_test": True, **settings}
    return task_from_dataset(dataset, backbone, target, bias, concepts, **settings)


def _isic_rows(folder: Path, trap_set: int | None, seed: int) -> Dataset:
    lists = [f"isic_annotated_{part}{trap_set}.csv" for part in SPLITS] if trap_set is not None else ["isic_bias.csv"]
    if trap_set is None and not (folder / lists[0]).is_file():
        lists = ["metadata.csv"]
    if missing := [name for name in lists if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} has no {missing[0]}, which says which pictures show artifacts")
    # The separator is ; in isic_bias.csv, and a comma in the others.
    parts = [pd.read_csv(folder / name, sep=None, engine="python") for name in lists]
    table = pd.concat([part.assign(split=name) for name, part in zip(SPLITS, parts, strict=False)], ignore_index=True)
    names = table["isic_id"] if "isic_id" in table else table["image"].map(lambda name: Path(name).stem)
    if lists != ["metadata.csv"] and (folder / "metadata.csv").is_file():
        metadata = pd.read_csv(folder / "metadata.csv").set_index("isic_id").reindex(names).reset_index(drop=True)
        table = pd.concat([table, metadata[[name for name in metadata if name not in table]]], axis=1)
    if trap_set is None:
        group = names
        for column in ("lesion_id", "patient_id"):
            group = table[column].fillna(group) if column in table else group
        groups = np.unique(group)
        trained = np.random.default_rng(seed).permutation(groups)[: len(groups) // 2]
        table["split"] = np.where(group.isin(trained), *SPLITS)
    label = next((table[name] for name in ("label", "benign_malignant", "diagnosis_1") if name in table), None)
    if label is None:
        raise ValueError(f"no list in {folder} has a column label, benign_malignant or diagnosis_1")
    kinds = {**dict.fromkeys(("0", "0.0", "benign"), 0), **dict.fromkeys(("1", "1.0", "malignant"), 1)}
    malignant = label.astype(str).str.lower().map(kinds)
    found = {file.stem: file for file in folder.rglob("ISIC_*") if file.suffix.lower() in (".jpg", ".jpeg", ".png")}
    kept = malignant.notna()
    files = [found.get(name, folder / f"{name}.jpg") for name in names[kept]]
    table = table.assign(malignant=malignant)[kept].drop(columns="image", errors="ignore")
    return with_images(table.astype({"malignant": int}), files)


def _folder_with(name: str, source: Any) -> Path | None:
    folder = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    return folder if folder is not None and (folder / name).is_file() else None
