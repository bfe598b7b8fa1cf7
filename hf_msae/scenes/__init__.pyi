from .captions import caption_scene, full_caption
from .loading import load_scenes
from .renderer import IMAGE_SIZE, render_array, render_scene
from .world import CONCEPTS, GROUPS, SPLITS, Scene, SceneObject, sample_scene
