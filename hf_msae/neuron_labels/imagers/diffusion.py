"""Pictures made by a text-to-image model on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from transformers.utils import logging

from ..._utils.checks import check_integers
from ..._utils.fingerprint import weights_sha256
from ..._utils.images import to_rgb
from .base import CannotDrawError, Imager, Prompts

logger = logging.get_logger(__name__)

_ATTEMPTS = 3
_NEXT_ATTEMPT = 2**32  # added to a seed whose picture is black


class DiffusersImager(Imager):
    """Makes pictures with a text-to-image pipeline of diffusers.

    Each picture has a random generator of its own, on the CPU, so it depends on its seed and not on the others of a
    batch or the device, up to rounding.

    A safety checker that dislikes a picture returns a black one, and so does half precision that overflows. Black
    pictures would count as pictures of the concept; they are made again with another seed, up to twice, and then the
    concept cannot be drawn.

    Args:
        model: Hub id or folder of a text-to-image model, or a loaded pipeline. A loaded one stays where it is.
        style: "plain" for "a picture of ...", "photo" for a realistic photograph from an angle and in a light that
            depend on the seed, or a prompt of yours with {} in the concept's place.
        num_inference_steps: Number of denoising steps; by default the pipeline's.
        guidance_scale: Weight of the prompt; by default the pipeline's.
        height: Height of the pictures in pixels; by default the model's.
        width: Width of the pictures in pixels; by default the model's.
        negative_prompt: What pictures should not show.
        dtype: Type of the weights of a model that is loaded. By default bfloat16 or float16 on a GPU, whichever it
            computes with, and float32 on the CPU.
        device: Where the pipeline runs; by default the CPU, or where a loaded one is.
        batch_size: Pictures that are made together. Affects only speed and memory.
        offload: Keeps a model that is larger than the GPU's memory on the CPU: "model" moves whole parts to the GPU as
            they are needed, and "sequential" layers, which is slow and takes the least memory.
        revision: Commit, tag or branch on the Hub.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        model: Any,
        style: str = "plain",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 4,
        offload: Literal["model", "sequential"] | None = None,
        revision: str | None = None,
    ) -> None:
        check_integers("num_inference_steps", batch_size=(batch_size, 1), num_inference_steps=(num_inference_steps, 1))
        if offload not in (None, "model", "sequential"):
            raise ValueError(f'offload must be "model", "sequential" or None, got {offload!r}')
        self.prompts, self.batch_size = Prompts(style), batch_size
        given = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "height": height,
            "width": width,
            "negative_prompt": negative_prompt,
        }
        self.options = {name: value for name, value in given.items() if value is not None}
        is_name = isinstance(model, str | os.PathLike)
        self.name = os.fspath(model) if is_name else type(model).__name__
        device = torch.device(device or "cpu")
        if offload is not None and device.type == "cpu":
            raise ValueError(
                'offload keeps parts of a pipeline on the CPU until a GPU needs them: name it, as in device="cuda"'
            )
        self.pipeline = _load(self.name, device, dtype, revision) if is_name else model
        self._weights = {
            name: weights_sha256(part)  # before offloading, which may take the weights away
            for name, part in self.pipeline.components.items()
            if isinstance(part, torch.nn.Module)
        }
        if offload == "model":
            self.pipeline.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        elif is_name:
            self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)

    @property
    def settings(self) -> dict[str, Any]:
        """Hashes of the weights of all parts, the scheduler, and the options."""
        scheduler = getattr(self.pipeline, "scheduler", None)
        config = dict(getattr(scheduler, "config", {}))  # with notes about where it is from
        config = {name: value for name, value in config.items() if not name.startswith("_")}
        return {
            "imager": "diffusers",
            "pipeline": type(self.pipeline).__name__,
            "weights": self._weights,
            "scheduler": type(scheduler).__name__,
            "scheduler_config": json.loads(json.dumps(config, default=str)),
            "style": self.prompts.style,
            **self.options,
        }

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Make one picture for each seed."""
        pictures: dict[int, Image.Image] = {}
        missing = list(dict.fromkeys(map(int, seeds)))
        why = ""
        for attempt in range(_ATTEMPTS):
            for start in range(0, len(missing), self.batch_size):
                made, held_back = self._batch(concept, missing[start : start + self.batch_size], attempt)
                pictures |= made
                why = why or held_back
            missing = [seed for seed in missing if seed not in pictures]
            if not missing:
                return [pictures[int(seed)] for seed in seeds]
            logger.warning(f"{len(missing)} pictures of {concept!r} are black ({why})")
        raise CannotDrawError(f"{self.name} makes black pictures of {concept!r}, in {_ATTEMPTS} attempts each: {why}")

    @torch.no_grad()
    def _batch(self, concept: str, seeds: list[int], attempt: int) -> tuple[dict[int, Image.Image], str]:
        """Return the pictures of seeds that are not black, and why others are."""
        options = dict(self.options)
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(seeds)
        output = self.pipeline(
            prompt=[self.prompts(concept, seed) for seed in seeds],
            generator=[torch.Generator("cpu").manual_seed(seed + attempt * _NEXT_ATTEMPT) for seed in seeds],
            **options,
        )
        flags = getattr(output, "nsfw_content_detected", None) or [False] * len(seeds)
        pictures, why = {}, ""
        for seed, picture, flag in zip(seeds, output.images, flags, strict=True):
            picture = to_rgb(picture)
            if flag:
                why = "the safety checker holds them back"
            elif picture.getextrema() == ((0, 0), (0, 0), (0, 0)):
                why = why or 'perhaps half precision overflows; try dtype="float32"'
            else:
                pictures[seed] = picture
        return pictures, why


def _load(name: str, device: torch.device, dtype: str | torch.dtype | None, revision: str | None) -> Any:
    try:
        from diffusers import AutoPipelineForText2Image
    except ImportError as error:
        raise ImportError('text-to-image models need a package: pip install "hf_msae[label]"') from error
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    if dtype is None and device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    dtype = dtype or torch.float32
    # Older versions of diffusers do not know `dtype`, and newer ones warn about `torch_dtype`.
    return AutoPipelineForText2Image.from_pretrained(name, dtype=dtype, revision=revision).to(dtype)
