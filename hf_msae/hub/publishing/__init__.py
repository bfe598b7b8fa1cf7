"""Publishing: releases in one commit, model cards, datasets of embeddings, and Spaces."""
