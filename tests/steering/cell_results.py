"""Results of SwordBench made of given gains or curves."""

from dataclasses import replace
from itertools import chain

import pandas as pd

from hf_msae.steering import SwordBenchResult


def result(gains, shared=0.0, figures=None, equal=False):
    """A result of {(method, seed[, hash of the task]): gains in biased, unbiased and, if any, aligned rows}."""
    cells = [
        {
            **{"task": "t", "backbone": "b", "method": method, "seed": seed, "perfect": None, "shared": shared},
            **{"biased": biased, "unbiased": unbiased, "aligned": [*chain(*aligned)], "doses": [], "cross": []},
            **{"task_sha256": "".join(sha256) or f"{seed}", "figures": (figures or {}).get((method, seed), [])},
            **({"equal_dose": {"biased": biased, "unbiased": unbiased, "aligned": []}} if equal else {}),
        }
        for (method, seed, *sha256), (biased, unbiased, *aligned) in gains.items()
    ]
    return SwordBenchResult.of_cells(cells)


NAMES = ("dose", "success", "damage", "over_correction")


def dosed(**curves):
    """A result of {method: (dose, success, damage, over-correction) at the parts 1, 2 and so on}."""
    doses = [
        {
            **{"task": "t", "method": method, "seed": seed, "part": part},
            **dict(zip(NAMES, map(float, each), strict=True)),
        }
        for method, curve in curves.items()
        for part, each in enumerate(curve, 1)
        for seed in (0, 1)
    ]
    for record in doses:
        record |= {f"{name}{end}": record[name] for name in NAMES for end in ("_low", "_high")}
    frame = pd.DataFrame(doses)
    return replace(result({(name, 0, "x"): ([1.0], [0.0]) for name in curves}), doses=frame)
