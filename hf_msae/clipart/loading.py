"""The drawings as a Hugging Face dataset."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, load_from_disk
from huggingface_hub import constants

SPLITS = ("train", "validation", "test")
SAMPLE = "sample"


def default_folder() -> Path:
    """Return the folder of the drawings if no other is named: `hf_msae/clipart` in HF_HOME."""
    return Path(constants.HF_HOME) / "hf_msae" / "clipart"


def load_clipart(split: str, folder: str | os.PathLike | None = None) -> Dataset:
    """Load the drawings that `python -m hf_msae.clipart.build` has rendered, or the few that come with the package.

    The drawings come from the Open Clip Art Library (public domain). No author is in two splits, so a figure of the
    test split says how well a model does on drawings by people it has not seen.

    Args:
        split: "train", "validation" or "test"; or "sample" for 300 drawings that come with the package, half of them
            from the training split and half from the test split.
        folder: Folder that was built. Defaults to `hf_msae/clipart` in HF_HOME.

    Returns:
        A dataset with the columns image (RGB, square), title, tags (a list), author and category; the sample also has
        the split of each drawing.

    Raises:
        ValueError: The split is unknown.
        FileNotFoundError: The folder has not been built.
    """
    if split == SAMPLE:
        return Dataset(pq.read_table(Path(__file__).with_name("sample.parquet")))
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join((*SPLITS, SAMPLE))}")
    folder = default_folder() if folder is None else Path(folder).expanduser()
    if not (folder / "dataset_dict.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no drawings: build them with `python -m hf_msae.clipart.build --output {folder}`, or "
            f"load {SAMPLE!r}, the few that come with the package"
        )
    return load_from_disk(str(folder / split))
