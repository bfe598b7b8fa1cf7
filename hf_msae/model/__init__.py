"""The model: an MSAE as a transformers model, its config, its activation families, and its numeric core."""
