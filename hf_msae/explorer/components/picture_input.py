"""Where visitors put their pictures, and pictures of the collection that they can take instead."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import torch
from PIL import Image

from ..answers import answering
from ..inputs import MAX_SIDE, VisitorError, read_picture, read_whole_number
from ..page import NO_UPLOAD, uploaded

if TYPE_CHECKING:
    from ..explorer import Explorer
    from .waiting import Loading

EXAMPLES = 6
_CANDIDATES = 1000
"""Pictures of the collection that examples are chosen from."""


def picture_input(label: str, **settings: Any) -> gr.Image:
    """Make a place for a picture, to be uploaded, pasted or taken with a camera.

    Gradio would open an upload before any function of ours sees it, and a file that is not a picture, or one of a
    billion pixels, would end in an error of its own. Events with this input therefore set `preprocess=False` and pass
    what they get to `read_upload`.
    """
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        format="png",  # lossless: a picture of the collection gets the embedding that it has there
        sources=["upload", "clipboard", "webcam"],
        buttons=[],
        placeholder=f"{label}: drop it here, or click to choose a file",
        **{"height": 280, "alt_text": label, **settings},
    )


def upload_path(value: Any) -> Path | None:
    """Read the path of the upload in a `picture_input`; None if it is empty. Other paths are refused."""
    if value is None:
        return None
    path = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(path, str):
        raise VisitorError(NO_UPLOAD)
    return uploaded(path)


def read_upload(value: Any) -> Image.Image:
    """Read the picture in a `picture_input`, as `read_picture` does."""
    return read_picture(upload_path(value))


def embedded_upload(loading: Loading, value: Any, kept: tuple[str, torch.Tensor] | None) -> tuple[str, torch.Tensor]:
    """Path and raw embedding (d,) of the picture in a `picture_input`; `kept` is the last answer, for reuse."""
    # Uploads lie in folders named by a hash of their content, so a path stands for a picture.
    path = upload_path(value)
    if kept is not None and path is not None and kept[0] == str(path):
        return kept
    picture = read_picture(path)  # first: what cannot be read is refused while the explorer is still loading
    return str(path), loading.get().embed_picture(picture)


def collection_button(loading: Loading, picture: gr.Image) -> gr.Button:
    """Make a button that puts a random picture of the collection into a `picture_input`."""
    button = gr.Button("Use a picture of the collection", size="sm")

    def take_picture() -> Image.Image:
        explorer = loading.get()
        return picture_of(explorer, random.randrange(len(explorer.images)))

    button.click(answering(take_picture), outputs=picture, api_visibility="private", show_progress="minimal")
    return button


def picture_of(explorer: Explorer, row: int) -> Image.Image:
    """A picture of the collection, no larger than an upload would be."""
    found = explorer.picture(row)
    found.thumbnail((MAX_SIDE, MAX_SIDE))
    return found


def diverse_rows(explorer: Explorer, number: int = EXAMPLES) -> list[int]:
    """Choose rows of pictures that have little in common, beginning with the first.

    Each is the farthest from those before it, by the cosine of embeddings minus their mean, among the first thousand.
    """
    embeddings = explorer.embeddings[0 : min(len(explorer.embeddings), _CANDIDATES)].double()
    directions = torch.nn.functional.normalize(embeddings - embeddings.mean(dim=0), dim=1)
    rows, nearest = [0], directions @ directions[0]
    while len(rows) < min(number, len(directions)):
        nearest[rows] = torch.inf
        rows.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, directions @ directions[rows[-1]])
    return rows


def example_pictures(loading: Loading, picture: gr.Image) -> gr.Gallery:
    """Make a row of small pictures of the collection; choosing one puts it into a `picture_input`.

    It is empty, and takes no room, until an event fills it with `examples_of`.
    """
    gallery = gr.Gallery(
        label="Or choose an example",
        columns=EXAMPLES,
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_classes=["msae-examples", "msae-filled"],
    )

    def choose(event: gr.SelectData) -> tuple[Image.Image, gr.Gallery]:
        explorer = loading.get()
        rows = diverse_rows(explorer)
        row = rows[read_whole_number(event.index, 0, len(rows) - 1, "The example")]
        return picture_of(explorer, row), gr.Gallery(selected_index=None)  # so that it can be chosen again

    gallery.select(answering(choose), None, [picture, gallery], api_visibility="private", show_progress="hidden")
    return gallery


def examples_of(explorer: Explorer) -> list[tuple[str, str]]:
    """Fill `example_pictures`: (path of a thumbnail, caption) of each."""
    return [(explorer.thumbnail(row), explorer.caption(row)) for row in diverse_rows(explorer)]
