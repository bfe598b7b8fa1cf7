"""Listing what a folder holds, up to a limit: a home folder given by mistake is not searched for minutes."""

from __future__ import annotations

import os
from pathlib import Path

MOST_FILES = 10_000


def files_below(folder: Path, what: str) -> list[Path]:
    """Return the files of a folder and its subfolders, in order, without those in hidden subfolders.

    More than `MOST_FILES` are refused, with a message that says `what` is looked for.
    """
    found: list[Path] = []
    for place, below, files in os.walk(folder):
        below[:] = (each for each in below if not each.startswith("."))
        found += (Path(place, file) for file in files if os.path.isfile(os.path.join(place, file)))
        if len(found) > MOST_FILES:
            raise ValueError(f"{folder} holds more than {MOST_FILES} files: name the file of {what}, or its folder")
    return sorted(found)
