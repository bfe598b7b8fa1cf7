"""The methods, one file each. Importing this package registers them."""

from . import (
    clarc,
    classifiers,
    components,
    inlp,
    joint_pattern,
    leace,
    mean_difference,
    msae,
    orthogonal,
    pattern,
    quadratic,
    sem,
    text,
)

__all__ = [
    "clarc",
    "classifiers",
    "components",
    "inlp",
    "joint_pattern",
    "leace",
    "mean_difference",
    "msae",
    "orthogonal",
    "pattern",
    "quadratic",
    "sem",
    "text",
]
