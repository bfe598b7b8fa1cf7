"""Typographic attacks on ImageNet: the name of another class is pasted on pictures of a class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from ..._utils.images import PICTURE_SUFFIXES, to_rgb
from ..._utils.paths import is_saved_dataset
from ...backbones import Backbone
from .datasets import opened, state_of_files, with_images
from .networks import BackboneNetwork
from .pictures import FEWEST, NUM_CONCEPTS, TaskPictures, assign_bias, check_artifact, check_numbers, paste
from .task import SPLITS, Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    Source = str | os.PathLike | Dataset | DatasetDict

_TESTED = ("val", "validation", "test")
_WORDNET_ID = re.compile(r"n\d{8}")


def typographic_imagenet(
    source: Source,
    backbone: Backbone | str | os.PathLike,
    target: str,
    others: Sequence[str] | None = None,
    word: str | None = None,
    attacked: Source | None = None,
    artifact: str = "caption",
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    label_column: str = "label",
    image_column: str = "image",
    hook_point: str = "image_embeds",
    name: str = "typographic_imagenet",
) -> Task:
    """Say whether a picture shows a class of ImageNet, where training pictures of it bear the name of another class.

    Half of the pictures of either split show the class. In the test, half of both bear the word. The counterfactual is
    the same picture without the word, or with it.

    Args:
        source: A folder with a folder of pictures for each class in train and in val, as ImageNet and its subsets
            come; or a dataset with pictures and labels, or its id on the Hub, such as "ILSVRC/imagenet-1k". The test
            rows are of its validation split, and if it has none, of its test split.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        target: The class that is the label: its folder or name. Of a name such as "tench, Tinca tinca", the part up to
            the comma is enough.
        others: Classes of the pictures without the target. Defaults to all others.
        word: The word. Defaults to the name of the first of `others`, and if they are not given, of the class with the
            most training pictures.
        attacked: Pictures that were attacked already, in place of pasting: a folder in which they have the same place
            as the same pictures in `source`, or a dataset with the same rows.
        artifact: How the word is pasted: "caption", on a white strip below, or "watermark", across the picture.
        num_rows: Number of pictures at most, half of them for training.
        correlation: Correlation of label and word in training; there is none in the test.
        seed: Random seed.
        label_column: Column of the labels of a dataset.
        image_column: Column of its images, or of their paths.
        hook_point: Where the backbone is read; tokens of a block are averaged.
        name: Name of the task.

    Returns:
        The task. The bias is named "pasted caption" for the artifact "caption", and "attack" with `attacked`. If there
        are several others, the first ten that both splits have ten pictures of are concepts.

    Raises:
        FileNotFoundError: A folder, or an attacked picture, is missing.
        ValueError: There is no such class, it has no pictures, there is no word, or a number is out of range.
    """
    check_artifact(artifact)
    check_numbers(num_rows, seed, correlation)
    parts = _open(source, None if others is None else [target, *others])
    labels = [_names(part, label_column) for part in parts]
    classes = [each for each in np.unique(np.concatenate(labels)).tolist() if each]
    chosen_class = _class_of(target, classes)
    rest = [each for each in classes if each != chosen_class]
    rest = rest if others is None else [_class_of(each, rest) for each in others]
    rows, split, names = _choose(labels, chosen_class, rest, num_rows, seed)
    is_target = (names == chosen_class).astype(int)
    biased = assign_bias(is_target, split, correlation, np.random.default_rng(seed))
    if attacked is not None:
        copies, bias = _copies(attacked, source, parts), "attack"
        settings = {"attacked": _known(copies, rows, split, image_column)}
    else:
        most = rest[0] if others is not None else max(rest, key=lambda each: (labels[0] == each).sum())
        word = _short(most) if word is None else word
        if _WORDNET_ID.fullmatch(word):
            raise ValueError(f"the folder of the class is {word}, which is no word to paste: name one with word=...")
        copies, bias = None, f"pasted {artifact}"
        settings = {"artifact": artifact, "word": word}

    def draw(row: int, has: bool) -> Image.Image:
        which = SPLITS.index(split[row])
        part = copies[which] if has and copies is not None else parts[which]
        picture = to_rgb(part[int(rows[row])][image_column], f"image {rows[row]} of the {split[row]} split")
        return paste(picture, artifact, word) if has and copies is None else picture

    frequent = [each for each in rest if min(((names == each) & (split == part)).sum() for part in SPLITS) >= FEWEST]
    frequent = frequent[:NUM_CONCEPTS] if len(rest) > 1 else []
    shown = {
        each: _short(each) if sum(_short(each) == _short(other) for other in rest) == 1 else each for each in rest
    }
    pictures = TaskPictures(
        name=name,
        draw=draw,
        sources=np.char.add(split, rows.astype(str)),
        concepts={bias: biased, **{shown[each]: names == each for each in frequent}},
        target=is_target,
        bias=bias,
        split=split,
        settings={
            "label": chosen_class,
            "others": rest,
            "bias": bias,
            "num_rows": len(rows),
            "correlation": float(correlation),
            "seed": int(seed),
            "pictures": _known(parts, rows, split, image_column),
            **settings,
        },
    )
    return pictures.task(BackboneNetwork(backbone, hook_point))


def _folder(source: Source) -> Path | None:
    folder = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    return folder if folder is not None and folder.is_dir() and not is_saved_dataset(folder) else None


def _open(source: Source, wanted: Sequence[str] | None) -> list[Dataset]:
    """Return the training and the test rows; those of a folder only of the wanted classes."""
    if (folder := _folder(source)) is not None:
        tested = next((name for name in _TESTED if (folder / name).is_dir()), _TESTED[0])
        return [_of_folder(folder / "train", wanted), _of_folder(folder / tested, wanted)]
    dataset = opened(source)
    known = list(dataset) if isinstance(dataset, dict) else []
    tested = next((name for name in _TESTED if name in known), None)
    if tested is None or "train" not in known:
        raise ValueError(f"a split train and one of {', '.join(_TESTED)} are needed, but the dataset has {known}")
    return [dataset["train"], dataset[tested]]


def _of_folder(folder: Path, wanted: Sequence[str] | None) -> Dataset:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: a folder of pictures for each class belongs there")
    classes = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    classes = classes if wanted is None else sorted(_class_of(each, classes) for each in wanted)
    files = [file for each in classes for file in sorted((folder / each).iterdir()) if _is_picture(file)]
    return with_images(pd.DataFrame({"label": [file.parent.name for file in files]}), files)


def _is_picture(file: Path) -> bool:
    """Whether a file is a picture by its name, and none of those that file managers leave behind."""
    return file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".") and file.is_file()


def _copies(attacked: Source, source: Source, parts: Sequence[Dataset]) -> list[Dataset]:
    if (folder := _folder(source)) is not None:
        if not (place := Path(attacked).expanduser()).is_dir():
            raise FileNotFoundError(f"{place} does not exist: attacked pictures of a folder lie in a folder too")
        files = [[place / Path(file).relative_to(folder) for file in part["image"]] for part in parts]
        return [with_images(pd.DataFrame(index=range(len(each))), each) for each in files]
    copies = _open(attacked, None)
    if (sizes := list(map(len, copies))) != list(map(len, parts)):
        raise ValueError(f"attacked has {sizes} pictures for training and test, but source {list(map(len, parts))}")
    return copies


def _names(part: Dataset, column: str) -> np.ndarray:
    """Return the class of each row, "" where it is not known."""
    _check_column(part, column)
    values, known = part.select_columns([column]).to_pandas()[column], getattr(part.features[column], "names", None)
    return values.astype(str).to_numpy() if known is None else np.array([*known, ""])[values.fillna(-1).astype(int)]


def _check_column(part: Dataset, column: str) -> None:
    if column not in part.column_names:
        raise ValueError(f"there is no column {column!r}, only {', '.join(part.column_names)}")


def _short(name: str) -> str:
    return name.split(",")[0].strip()


def _class_of(wanted: str, classes: Sequence[str]) -> str:
    found = [each for each in classes if each == wanted] or [each for each in classes if _short(each) == wanted]
    if len(found) != 1:
        some = ", ".join(found or list(classes)[:10])
        how_many = "several classes are" if found else "no class is"
        raise ValueError(f"{how_many} named {wanted!r}: choose one of {some}{'' if found else ', ...'}")
    return found[0]


def _choose(
    labels: Sequence[np.ndarray], target: str, others: Sequence[str], num_rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row numbers within their splits, the splits and the classes: as many with the target as without."""
    random, rows = np.random.default_rng(seed), []
    for part, names in zip(SPLITS, labels, strict=True):
        cells = [np.flatnonzero(names == target), np.flatnonzero(np.isin(names, others))]
        size = min(num_rows // 4, *map(len, cells))
        if not size:
            what = f"the class {target!r}" if not len(cells[0]) else "any other class"
            raise ValueError(f"the {part} split has no picture of {what}")
        rows.append(np.sort(np.concatenate([random.permutation(cell)[:size] for cell in cells])))
    split = np.repeat(SPLITS, [len(each) for each in rows])
    names = np.concatenate([names[each] for names, each in zip(labels, rows, strict=True)])
    return np.concatenate(rows), split, names


def _known(parts: Sequence[Dataset], rows: np.ndarray, split: np.ndarray, image_column: str) -> list[Any]:
    found = []
    for name, part in zip(SPLITS, parts, strict=True):
        _check_column(part, image_column)
        images = part.select_columns([image_column]).select(rows[split == name])
        found.append([images._fingerprint, state_of_files([images], image_column)])
    return found
