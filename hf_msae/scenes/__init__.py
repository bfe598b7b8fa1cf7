"""Synthetic scenes: images and captions whose ground truth is known, and a small SigLIP trained on them."""

from .captions import caption_scene, full_caption
from .loading import load_scenes
from .renderer import IMAGE_SIZE, render_array, render_scene
from .world import CONCEPTS, GROUPS, SPLITS, Scene, SceneObject, sample_scene

__all__ = [
    "CONCEPTS",
    "GROUPS",
    "IMAGE_SIZE",
    "SPLITS",
    "Scene",
    "SceneObject",
    "caption_scene",
    "full_caption",
    "load_scenes",
    "render_array",
    "render_scene",
    "sample_scene",
]
