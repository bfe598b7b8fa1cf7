"""The drawings as a Hugging Face dataset."""

from __future__ import annotations

import os
from pathlib import Path

from datasets import Dataset, load_from_disk
from huggingface_hub import constants

SPLITS = ("train", "validation", "test")


def default_folder() -> Path:
    """Return the folder of the drawings if no other is named: `hf_msae/clipart` in HF_HOME."""
    return Path(constants.HF_HOME) / "hf_msae" / "clipart"


def load_clipart(split: str, folder: str | os.PathLike | None = None) -> Dataset:
    """Load the drawings that `python -m hf_msae.clipart.build` has rendered.

    The drawings come from the Open Clip Art Library (public domain). No author is in two splits, so a figure of the
    test split says how well a model does on drawings by people it has not seen.

    Args:
        split: "train", "validation" or "test".
        folder: Folder that was built. Defaults to `hf_msae/clipart` in HF_HOME.

    Returns:
        A dataset with the columns image (RGB, square), title, tags (a list), author and category.

    Raises:
        ValueError: The split is unknown.
        FileNotFoundError: The folder has not been built.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    folder = default_folder() if folder is None else Path(folder).expanduser()
    if not (folder / "dataset_dict.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no drawings: build them with `python -m hf_msae.clipart.build --output {folder}`"
        )
    return load_from_disk(str(folder / split))
