"""The concept explorer: what a model sees, in a browser. Needs gradio (the extra `space`) for its page."""

from ..hub.publishing.space_settings import ExplorerSettings
from .explorer import Concept, Explorer
from .inputs import VisitorError

__all__ = ["Concept", "Explorer", "ExplorerSettings", "VisitorError"]
