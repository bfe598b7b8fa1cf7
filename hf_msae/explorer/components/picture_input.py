"""Where visitors put their pictures: a component, what it hands over, and a button for a picture of the collection."""

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
from ..page import uploaded

if TYPE_CHECKING:
    from ..app import Loading
    from ..explorer import Explorer

EXAMPLES = 6
_LOOKED_AT = 1000


def picture_input(label: str, **settings: Any) -> gr.Image:
    """A place for a picture: upload, paste, or camera.

    Gradio would open an uploaded file before any function of ours sees it, so that a file that is no picture, or one
    of a billion pixels, ends in an error of its own. Events that take this component therefore say `preprocess=False`
    and hand what they get to `read_upload`.

    Args:
        label: above it.
        settings: further ones of `gr.Image`; `alt_text` is what the picture is called when it is read out.
    """
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        format="png",  # loses nothing: a picture of the collection gets the embedding that it has there
        sources=["upload", "clipboard", "webcam"],
        buttons=[],
        height=settings.pop("height", 280),
        placeholder=f"{label}: drop it here, or click to choose a file",
        alt_text=settings.pop("alt_text", label),
        **settings,
    )


def upload_path(value: Any) -> Path | None:
    """The file that a `picture_input` hands over without preprocessing; None where it is empty.

    Raises:
        VisitorError: it is no upload. A client can send any path; only files that were uploaded are opened.
    """
    if value is None:
        return None
    path = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(path, str):
        raise VisitorError("This is no picture: upload a file.")
    return uploaded(path)


def read_upload(value: Any) -> Image.Image:
    """The picture in a `picture_input`, as `read_picture` reads it.

    Raises:
        VisitorError: there is none, or it cannot be used.
    """
    return read_picture(upload_path(value))


def embedded_upload(loading: Loading, value: Any, kept: tuple[str, torch.Tensor] | None) -> tuple[str, torch.Tensor]:
    """The embedding of the picture in a `picture_input`, computed once as long as the same one is there.

    Args:
        loading: the explorer.
        value: what the `picture_input` hands over.
        kept: what this gave the last time; or None.

    Returns:
        Path and raw embedding, (d,).

    Raises:
        VisitorError: as `read_upload`.
    """
    # Uploads lie in folders named by a hash of their content, so that a path stands for a picture.
    path = upload_path(value)
    if kept is not None and path is not None and kept[0] == str(path):
        return kept
    read = read_upload(value)  # first: what cannot be read is told while the explorer is still being loaded
    return str(path), loading.get().embed_picture(read)


def collection_button(
    loading: Loading, picture: gr.Image, text: str = "Take a picture of the collection"
) -> gr.Button:
    """A button that puts a random picture of the collection into a `picture_input`."""
    button = gr.Button(text, size="sm")

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
    """Rows of pictures that have little in common, the first one first.

    Each is the one farthest from those before it, by the cosine of embeddings without their mean, among the
    collection's first thousand.
    """
    embeddings = explorer.embeddings[0 : min(len(explorer.embeddings), _LOOKED_AT)].double()
    directions = torch.nn.functional.normalize(embeddings - embeddings.mean(dim=0), dim=1)
    rows, nearest = [0], directions @ directions[0]
    while len(rows) < min(number, len(directions)):
        nearest[rows] = torch.inf
        rows.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, directions @ directions[rows[-1]])
    return rows


def example_pictures(loading: Loading, picture: gr.Image) -> gr.Gallery:
    """A row of small pictures of the collection, one of which is put into a `picture_input` when it is chosen.

    It is empty, and takes no room, until `examples_of` has filled it.
    """
    gallery = gr.Gallery(
        label="Or choose an example",
        show_label=True,
        columns=EXAMPLES,
        object_fit="cover",
        height="auto",
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
    """What fills `example_pictures`: (path of a thumbnail, what it shows)."""
    return [(explorer.thumbnail(row), explorer.caption(row)) for row in diverse_rows(explorer)]
