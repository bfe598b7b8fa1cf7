"""Small embeddings, and the ways in which they are stored."""

import datasets
import numpy as np
import pyarrow as pa

from hf_msae.embeddings import EmbeddingWriter

WIDTH = 5
X = np.random.default_rng(0).normal(size=(57, WIDTH)).astype(np.float32)


def vectors(x, name="image_embeds", **others):
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    return datasets.Dataset(pa.table({name: column, "label": [f"row {i}" for i in range(len(x))], **others}))


def written(folder, x=X, rows_per_shard=20, **settings):
    with EmbeddingWriter(folder, {"image_embeds": x.shape[1]}, rows_per_shard=rows_per_shard, **settings) as writer:
        writer.write({"image_embeds": x})
    return folder


def saved_npy(path, array):
    np.save(path, array)
    return path
