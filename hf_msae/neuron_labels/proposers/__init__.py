"""Where concepts come from: language models, or a vocabulary."""
