"""Pictures made by a text-to-image model on a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

from huggingface_hub.errors import HTTPError
from PIL import Image, UnidentifiedImageError

from ..._utils.images import readable_formats, to_rgb
from ..services import Service, ServiceError
from .base import CannotDrawError, Imager, Prompts

_REFUSED = (400, 413, 422)  # the service does not want this prompt
_MOST_PIXELS = 2**26  # a small file can hold a picture that fills the memory


class BadPictureError(ValueError):
    """What a service sent is not a picture that can be used."""


class InferenceImager(Imager):
    """Makes pictures with a service, through `huggingface_hub.InferenceClient.text_to_image`.

    Requests are repeated after errors that may pass (`services.with_retries`), and after an answer that is no picture
    or a damaged one. Only the usual formats of pictures are decoded, up to 67 million pixels.

    The key is read from an environment variable whenever pictures are made. It is not in the settings, messages, logs
    or the printed form of the imager.

    Args:
        model: Id of the model.
        provider: The provider of the model, such as "hf-inference" or "fal-ai"; by default the first one in your
            settings on the Hub that serves it.
        base_url: Address of an endpoint that serves the model, instead of a provider.
        api_key_variable: Name of the environment variable with the key. By default, providers get HF_TOKEN or the
            token that you logged in with, and an endpoint at `base_url` gets none.
        style: "plain" for "a picture of ...", "photo" for a realistic photograph from an angle and in a light that
            depend on the seed, or a prompt of yours with {} in the concept's place.
        num_inference_steps: Number of denoising steps; by default the service's.
        guidance_scale: Weight of the prompt; by default the service's.
        height: Height of the pictures in pixels; by default the service's.
        width: Width of the pictures in pixels; by default the service's.
        negative_prompt: What pictures should not show.
        timeout: Seconds that a request may take.
        retries: How often a request is repeated at most.
        wait: Seconds before the first repetition.
        sleep: Waits.
        concurrency: Number of pictures that are asked for at the same time, as the service allows. They come back in
            the order of their seeds.
        price: Of a picture, in the currency of the budget's cost.

    Raises:
        ValueError: `base_url` is not an HTTP address or has a password or query, both it and a provider are given, or
            an option is out of range.
    """

    def __init__(
        self,
        model: str,
        provider: str | None = None,
        base_url: str | None = None,
        api_key_variable: str | None = None,
        style: str = "plain",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        wait: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        concurrency: int = 4,
        price: float = 0.0,
    ) -> None:
        if price < 0:
            raise ValueError(f"price must not be negative, got {price}")
        place = (model, provider, base_url, api_key_variable)
        self.service = Service("InferenceImager", *place, timeout, retries, wait, sleep, concurrency)
        self.model, self.prompts, self.price = model, Prompts(style), price
        given = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "height": height,
            "width": width,
            "negative_prompt": negative_prompt,
        }
        self.options = {name: value for name, value in given.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """The model, where it is, and the options. Which version of the model answers, only the service knows."""
        return {
            "imager": "inference",
            "model": self.model,
            "provider": self.service.provider,
            "base_url": self.service.base_url,
            "style": self.prompts.style,
            **self.options,
        }

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Ask for one picture for each seed; the concept cannot be drawn if the service refuses the prompt."""
        key, made = self.service.key(), []

        def one(seed: int, stop: Event) -> Image.Image:
            picture = self._picture(self.prompts(concept, int(seed)), int(seed), key, stop)
            made.append(seed)
            return picture

        try:
            return self.service.map(one, seeds)
        except ServiceError as error:
            if error.status in _REFUSED:
                raise CannotDrawError(f"the service refuses to draw {concept!r}: {error}", len(made)) from None
            raise

    def check(self) -> None:
        """See whether there is a key and a model; see `Service.check`."""
        self.service.check()

    def _picture(self, prompt: str, seed: int, key: str | None, stop: Event) -> Image.Image:
        service = self.service
        client = service.client(key, model=service.base_url, provider=service.provider)
        # The options of the model are its own; an endpoint has one model.
        model = None if service.base_url is not None else self.model

        def ask() -> Image.Image:
            try:
                picture = client.text_to_image(prompt, model=model, seed=seed, **self.options)
            except HTTPError:  # some are ValueErrors as well
                raise
            except (UnidentifiedImageError, KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
                raise BadPictureError(f"the answer is no picture ({type(error).__name__}: {error})") from error
            except Image.DecompressionBombError as error:
                raise ServiceError(f"{self!r} sent a picture that is too large: {error}") from error
            except (ValueError, StopIteration) as error:  # a request that cannot be made; it could not be later either
                said = str(error).replace(key, "***") if key else str(error)
                raise ServiceError(f"{self!r} cannot be asked: {said or 'no provider has the model'}") from None
            return _checked(picture, repr(self))

        return service.call(ask, key, (BadPictureError,), stop)

    def __repr__(self) -> str:
        return repr(self.service)


def _checked(picture: Image.Image, name: str) -> Image.Image:
    """Decode a picture that was only opened so far, if its format and size allow that."""
    if picture.format not in readable_formats():
        raise ServiceError(f"{name} sent a picture of the format {picture.format}, which is not read")
    if picture.width * picture.height > _MOST_PIXELS:
        raise ServiceError(f"{name} sent a picture of {picture.width} x {picture.height} pixels, which is too large")
    try:
        return to_rgb(picture, "the answer")
    except ValueError as error:
        raise BadPictureError(str(error)) from error
