"""The main metrics as modules for Hugging Face's `evaluate`: thin wrappers of the functions in `hf_msae.metrics`.

    import evaluate
    from hf_msae.metrics import module_path

    fvu = evaluate.load(module_path("fvu"))                      # a local folder: works offline
    fvu.compute(predictions=reconstructions, references=embeddings)

`evaluate` passes everything through Arrow, row by row: for more than about ten thousand rows, use the functions or
accumulators directly.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import getdoc
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

_HERE = Path(__file__).parent


def module_path(name: str) -> str:
    """Return the folder of a metric's `evaluate` module, for `evaluate.load`.

    Args:
        name: "fvu", "cosine", "cknna" or "sparsity".

    Raises:
        ValueError: There is no module of that name.
    """
    known = sorted(folder.name.removeprefix("msae_") for folder in _HERE.glob("msae_*"))
    if name not in known:
        raise ValueError(f"there is no evaluate module {name!r}; the modules are {', '.join(known)}")
    return str(_HERE / f"msae_{name}")


def vectors_info(functions: list[Callable], **columns: str) -> evaluate.MetricInfo:
    """Return the `MetricInfo` of a metric whose inputs are vectors.

    Args:
        functions: Functions that compute it; their docstrings become its description.
        columns: Description of each input.
    """
    vector = datasets.Sequence(datasets.Value("float32"))
    return evaluate.MetricInfo(
        description="\n\n".join(f"{function.__name__}: {getdoc(function)}" for function in functions),
        citation="@inproceedings{zaigrajew2025msae, title={Interpreting CLIP with Hierarchical Sparse Autoencoders}, "
        "author={Zaigrajew, Vladimir and Baniecki, Hubert and Biecek, Przemyslaw}, booktitle={ICML}, year={2025}}",
        inputs_description="\n".join(f"{name}: {what}, one vector per sample." for name, what in columns.items()),
        features=datasets.Features(dict.fromkeys(columns, vector)),
        reference_urls=["https://arxiv.org/abs/2502.20578"],
    )


def matrix(rows: list) -> torch.Tensor:
    """Convert the rows that `evaluate` passes to a metric to a float32 tensor (N, width)."""
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))
