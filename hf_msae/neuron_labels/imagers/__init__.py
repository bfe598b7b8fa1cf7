"""Where pictures of a concept come from: generators, datasets, or the renderer of the scenes."""
