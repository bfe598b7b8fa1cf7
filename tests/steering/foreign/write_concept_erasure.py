"""Writes concept_erasure.npz: embeddings, a concept, and what concept-erasure makes of them.

Run with concept-erasure 0.2.4 (torch 2.13.0): `python write_concept_erasure.py`. LEACE runs without
`constrain_cov_trace`, which leaves traces of the concept. The quadratic eraser is given the true classes.
"""

from pathlib import Path

import numpy as np
import torch
from concept_erasure import LeaceFitter, QuadraticFitter

ROWS, D = 120, 10

generator = torch.Generator().manual_seed(0)
concept = (torch.arange(ROWS) % 3 == 0).long()
mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
x = torch.randn(ROWS, D, generator=generator, dtype=torch.float64) @ mixing + 3
x = x + concept[:, None] * torch.randn(D, generator=generator, dtype=torch.float64)
x[concept == 1] = x[concept == 1] * torch.linspace(0.5, 1.5, D, dtype=torch.float64)

found = {"X": x.numpy(), "concept": concept.bool().numpy()}
for shrinkage in (False, True):
    suffix = "shrunk" if shrinkage else "plain"
    fitter = LeaceFitter(D, 1, dtype=x.dtype, shrinkage=shrinkage, constrain_cov_trace=False)
    found[f"leace_{suffix}"] = fitter.update(x, concept).eraser(x).numpy()
    fitter = QuadraticFitter(D, 2, dtype=x.dtype, shrinkage=shrinkage)
    eraser = fitter.update(x, concept).eraser
    moved = [eraser.optimal_transport(z, x).numpy() for z in (0, 1)]
    found[f"quadratic_{suffix}"] = np.stack(moved)  # every row moved as one of each class
np.savez_compressed(Path(__file__).parent / "concept_erasure.npz", **found)
