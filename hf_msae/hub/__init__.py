"""Cards, and embeddings on the Hub; releases, loading by name and converters stand on them."""

from .activations import push_activations, render_activations_card
from .card import render_model_card, write_model_card

__all__ = ["push_activations", "render_activations_card", "render_model_card", "write_model_card"]
