"""The methods, one file each. Importing this package registers them."""

from . import (  # noqa: F401
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
