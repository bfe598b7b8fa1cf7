"""Publishing: releases in one commit, model cards, data sets of embeddings, and Spaces."""
