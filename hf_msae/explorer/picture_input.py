"""Where visitors put their pictures: a component, what it hands over, and a button for a picture of the collection."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from .inputs import MAX_SIDE, VisitorError, read_picture

if TYPE_CHECKING:
    from .app import Loading


def picture_input(label: str, **settings: Any) -> gr.Image:
    """A place for a picture: upload, paste, or camera.

    Gradio would open an uploaded file before any function of ours sees it, so that a file that is no picture, or one
    of a billion pixels, ends in an error of its own. Events that take this component therefore say `preprocess=False`
    and hand what they get to `read_upload`.

    Args:
        label: above it.
        settings: further ones of `gr.Image`.
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
    if not isinstance(path, str) or "\0" in path:
        raise VisitorError("This is no picture: upload a file.")
    found = Path(path).resolve()
    if not found.is_relative_to(Path(get_upload_folder()).resolve()):
        raise VisitorError("This is no uploaded picture: upload a file.")
    return found


def read_upload(value: Any) -> Image.Image:
    """The picture in a `picture_input`, as `read_picture` reads it.

    Raises:
        VisitorError: there is none, or it cannot be used.
    """
    return read_picture(upload_path(value))


def collection_button(
    loading: Loading, picture: gr.Image, text: str = "Take a picture of the collection"
) -> gr.Button:
    """A button that puts a random picture of the collection into a `picture_input`."""
    from .app import answering

    button = gr.Button(text, size="sm")

    def take_picture() -> Image.Image:
        explorer = loading.get()
        found = explorer.picture(random.randrange(len(explorer.images)))
        found.thumbnail((MAX_SIDE, MAX_SIDE))
        return found

    button.click(answering(take_picture), outputs=picture, api_visibility="private", show_progress="minimal")
    return button
