"""The concept explorer: what a model sees, in a browser. Needs gradio (the extra `space`) for its page."""

from .explorer import Concept, Explorer
from .inputs import VisitorError
from .settings import ExplorerSettings

__all__ = ["Concept", "Explorer", "ExplorerSettings", "VisitorError"]
