"""Hyperspectral patches of fields: data, features, models, and what these models rely on and where they fail."""
