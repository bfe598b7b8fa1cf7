"""Model cards now; releases, loading by name and converters stand on them."""

from .card import render_model_card, write_model_card

__all__ = ["render_model_card", "write_model_card"]
