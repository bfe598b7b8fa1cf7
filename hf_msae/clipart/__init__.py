"""The second world: public-domain drawings by hundreds of people, with their own titles and tags."""

from .loading import SPLITS, load_clipart

__all__ = ["SPLITS", "load_clipart"]
