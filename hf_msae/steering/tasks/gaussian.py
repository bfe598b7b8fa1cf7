"""A task of Gaussian features, in which detection, success, damage and over-correction have closed forms."""

from __future__ import annotations

import numpy as np

from .task import Task


def gaussian_task(
    num_rows: int = 4000,
    width: int = 64,
    num_concepts: int = 6,
    strength: float = 3.0,
    correlation: float = 0.9,
    overlap: float = 0.0,
    seed: int = 0,
) -> Task:
    """Draw features that are a sum of concepts, a label and noise, with known directions.

    A row is x = s (sum over concepts of c_k u_k + y w) + e: c_k and y are 0 or 1, each 1 in half of the rows, and e
    is standard normal in all coordinates. The directions are unit vectors; u_0, the bias, and w, the label's, have
    the cosine `overlap`, all others are orthogonal. In the training half, y = c_0 with the probability
    (1 + `correlation`) / 2; in the test half they are independent, and so are all other concepts.

    Then (Phi is the standard normal distribution function):

    - a concept is detected by its own direction with the AUROC Phi(s / sqrt 2),
    - taking x along u_0 to a constant leaves nothing of the bias, and of the label what is orthogonal to u_0:
      s sqrt(1 - overlap^2),
    - the counterfactual of a row is x + s (1 - 2 c_0) u_0, exactly,
    - a linear classifier sign(<v, x> + b), as that of the benchmark is, is right about a row of label 1 with the
      probability Phi((<v, m> + b) / |v|), m being the row without noise, and of label 0 with the rest. After removal
      along u_0, m and v are without their parts along it, but for the constant. Success, damage and over-correction
      are differences between means of these over rows.

    Args:
        num_rows: Rows, half of them for training.
        width: Width of the features.
        num_concepts: Number of concepts, of which the first is the bias.
        strength: The distance s between rows with a concept and without it, in standard deviations of the noise.
        correlation: Correlation of label and bias in the training rows, from -1 to 1.
        overlap: Cosine of the directions of label and bias.
        seed: Random seed.

    Returns:
        The task, with the directions in its provenance: `directions` (num_concepts, width) and `target_direction`.

    Raises:
        ValueError: There are more directions than coordinates, or a number is out of range.
    """
    if num_concepts + 1 > width:
        raise ValueError(f"{num_concepts} concepts and a label need a width of {num_concepts + 1}, but got {width}")
    for name, value in (("correlation", correlation), ("overlap", overlap)):
        if not -1 <= value <= 1:
            raise ValueError(f"{name} must lie between -1 and 1, got {value}")
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((width, num_concepts + 1)))[0].T
    directions = axes[:num_concepts]
    of_target = overlap * directions[0] + np.sqrt(1 - overlap**2) * axes[-1]
    split = np.where(np.arange(num_rows) < num_rows // 2, "train", "test")
    present = rng.random((num_rows, num_concepts)) < 0.5
    same = rng.random(num_rows) < np.where(split == "train", (1 + correlation) / 2, 0.5)
    target = np.where(same, present[:, 0], ~present[:, 0]).astype(int)
    features = strength * (present @ directions + target[:, None] * of_target)
    features = features + rng.standard_normal((num_rows, width))
    flip = strength * np.where(present[:, :1], -1, 1) * directions[0]
    return Task(
        name="gaussian",
        backbone="none",
        features=features.astype(np.float32),
        concepts={"bias": present[:, 0], **{f"concept {k}": present[:, k] for k in range(1, num_concepts)}},
        target=target,
        bias="bias",
        split=split,
        counterfactuals=(features + flip).astype(np.float32),
        provenance={
            "strength": strength,
            "correlation": correlation,
            "overlap": overlap,
            "seed": seed,
            "directions": directions.tolist(),
            "target_direction": of_target.tolist(),
        },
    )
