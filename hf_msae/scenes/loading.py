"""Scenes as a Hugging Face dataset."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

from datasets import Dataset, Features, Image, Value

from .._utils.checks import check_integers
from .captions import caption_scene
from .renderer import render_scene
from .world import CONCEPTS, SPLITS, WORLD_VERSION, check_correlations, sample_scene

_SHARD = 500


def _generate(
    shards: list[list[int]], split: str, seed: int, correlations: tuple, world_version: int
) -> Iterator[dict]:
    # world_version is only there for the fingerprint of the cache, because another version draws other images.
    rules = {(cause, effect): probability for cause, effect, probability in correlations}
    for start, stop in shards:
        for index in range(start, stop):
            scene = sample_scene(split, seed, index, rules)
            stored = io.BytesIO()
            render_scene(scene).save(stored, "PNG", compress_level=1)
            present = scene.concepts
            yield {
                "image": {"bytes": stored.getvalue(), "path": None},
                "caption": caption_scene(scene),
                **{concept: concept in present for concept in CONCEPTS},
            }


def load_scenes(
    split: str,
    n: int,
    seed: int = 0,
    correlations: Mapping[tuple[str, str], float] | None = None,
    num_proc: int | None = None,
) -> Dataset:
    """Render scenes, or load them from the cache of 🤗 datasets if they were rendered before.

    Scene i of a split depends only on the seed and i, so 100 scenes are the first 100 of 5,000. Splits never share a
    scene.

    Args:
        split: "train", "validation" or "test".
        n: Number of scenes.
        seed: Random seed of the scenes.
        correlations: `{(if_present, then): probability}`; see `hf_msae.scenes.world.sample_scene`.
        num_proc: Number of processes that render; None renders in this one.

    Returns:
        A dataset with the columns image (96 x 96 RGB), caption, and a boolean for each of `CONCEPTS`.

    Raises:
        ValueError: The split or a concept is unknown, `n` is below 1, or a correlation is impossible.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    check_integers(n=(n, 1), seed=(seed, 0))
    n, seed = int(n), int(seed)
    rules = [(cause, effect, value) for (cause, effect), value in check_correlations(correlations).items()]
    features = Features(
        {"image": Image(), "caption": Value("string"), **{concept: Value("bool") for concept in CONCEPTS}}
    )
    # datasets divides lists in gen_kwargs among processes.
    shards = [[start, min(start + _SHARD, n)] for start in range(0, n, _SHARD)]
    return Dataset.from_generator(
        _generate,
        features=features,
        split=split,
        num_proc=min(num_proc, len(shards)) if num_proc else None,
        gen_kwargs={
            "shards": shards,
            "split": split,
            "seed": seed,
            "correlations": tuple(rules),
            "world_version": WORLD_VERSION,
        },
    )
