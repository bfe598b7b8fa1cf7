"""Explain many pictures, and explain one at several granularities."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._utils.atomic import atomic_path
from .opening import save_json

if TYPE_CHECKING:
    from ..concepts import Explanation
    from ..vision_text import VisionTextMSAE

_SHOWN = 10
"""Pictures that are printed if all are written to a file."""


def find_pictures(places: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those with the ending of a picture in the folders that are named."""
    from .._utils.images import PICTURE_SUFFIXES

    found: list[Path] = []
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"--image {place}: there is no such file or folder")
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        if path.is_dir() and not inside:
            raise FileNotFoundError(f"--image {place}: there is no picture in this folder")
        found += inside if path.is_dir() else [path]
    return found


def explain_pictures(
    model: VisionTextMSAE, files: Sequence[Path], ks: Sequence[int], top: int, output: str | None, progress: bool
) -> None:
    """Explain many pictures, print one line for each, and write them to `output`, if it is given.

    A picture that cannot be read is left out with a message.
    """
    from tqdm.auto import tqdm

    from .._utils.images import to_rgb
    from ..concepts import explain_embedding

    found: list[tuple[dict, list[Explanation]]] = []
    size = model.backbone.image_batch_size
    with tqdm(total=len(files), desc="explaining", unit="picture", disable=not progress) as bar:
        for start in range(0, len(files), size):
            images = {}
            for file in files[start : start + size]:
                try:
                    images[file] = to_rgb(file)
                except (OSError, ValueError) as error:
                    bar.write(f"left out: {error}", file=sys.stderr)
            for file, embedding in zip(
                images, model.image_embeds(list(images.values())) if images else (), strict=True
            ):

                def explain(top: int, k: int | None = None, embedding=embedding) -> Explanation:
                    return explain_embedding(model.msae, embedding, model.concepts, top, k, model.percentiles)

                found.append(({"item": str(file)}, list(coarse_to_fine(explain, ks, top).values())))
            bar.update(len(files[start : start + size]))
    if not found:
        raise ValueError(f"none of the {len(files)} pictures can be read")
    shown = found if output is None else found[:_SHOWN]
    for item, parts in shown:
        print(f"{item['item']}: {', '.join(name for part in parts for name in part.labels())}")
    if output is None:
        return
    print(f"{len(found)} pictures explained" + (f" (the first {_SHOWN} are shown)" if len(found) > _SHOWN else ""))
    if output.lower().endswith(".csv"):
        save_rows(output, found)
    else:
        save_json(output, {"explanations": [item | part.to_dict() for item, parts in found for part in parts]})


def save_rows(file: str, found: Sequence[tuple[dict, Sequence[Explanation]]]) -> None:
    """Write one row for each concept of each item to a CSV file, and print its name."""
    import pandas as pd

    rows = pd.concat([part.frame.assign(**item, k=part.k) for item, parts in found for part in parts])
    first = ["item", "k"]
    rows = rows[[*first, *rows.columns.difference(first, sort=False)]]
    for column in ("item", "name"):  # a spreadsheet would run a text that begins like a formula
        rows[column] = rows[column].map(lambda text: f"'{text}" if str(text).startswith(tuple("=+-@")) else text)
    with atomic_path(Path(file).expanduser()) as temporary:
        rows.to_csv(temporary, index=False)
    print(f"The results are in {file}")


def coarse_to_fine(explain: Callable[..., Explanation], ks: Sequence[int], top: int) -> dict[str, Explanation]:
    """Explain an item at several granularities, from coarse to fine: explanations by title.

    A larger k keeps the latents of a smaller one, so its strongest concepts alone would be the same again: each shows
    what it adds to the one before. `explain` takes a number of concepts and a k; without `ks`, that is the MSAE's own.
    """
    if not ks:
        return {"": explain(top)}
    parts, before = {}, 0
    for k in sorted(set(ks)):
        found = explain(k, k)
        explained = "nothing" if found.explained < 0 else f"{found.explained:.1%}"
        title = f"k = {k}: {explained} explained{', with these added' if before else ''}"
        parts[title] = replace(found, frame=found.frame.iloc[before:][:top].reset_index(drop=True))
        before = k
    return parts
