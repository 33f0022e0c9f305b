"""Means over many edits with bootstrap confidence intervals, and paired differences to one arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

ALL = "all pairs"

Values = Mapping[tuple[str, str, int], Mapping[str, float | None]]
"""(pair, arm, seed) -> value by name."""


def table(
    found: Values, categories: Mapping[str, str], arms: Sequence[str], values: Sequence[str], against: str | None
) -> list[dict[str, Any]]:
    """A row an arm, over all pairs and then, where there are several, by category: `{category, arm, values}`, a value
    being a `bootstrap` over pairs of the means over seeds, and with `against` the `difference` to that arm.

    categories: by pair. A pair without a value is left out of it, and of the difference where either is wanting.
    """
    several = list(dict.fromkeys(categories.values()))
    groups = {ALL: list(categories)}
    if len(several) > 1:
        groups |= {one: [pair for pair, category in categories.items() if category == one] for one in several}
    rows = []
    for group, pairs in groups.items():
        base = {value: mean_by_pair(found, pairs, against, value) for value in values} if against else {}
        for arm in arms:
            row: dict[str, Any] = {"category": group, "arm": arm, "values": {}}
            for value in values:
                own = mean_by_pair(found, pairs, arm, value)
                cell = bootstrap(list(own.values()))
                if against and arm != against:
                    cell["difference"] = bootstrap([v - base[value][p] for p, v in own.items() if p in base[value]])
                row["values"][value] = cell
            rows.append(row)
    return rows


def mean_by_pair(found: Values, pairs: Sequence[str], arm: str, value: str) -> dict[str, float]:
    """The mean of a value by pair, over the seeds that have it; pairs without it are left out."""
    wanted = set(pairs)
    of: dict[str, list[float]] = {}
    for (pair, by, _), measured in found.items():
        if by == arm and pair in wanted and (one := measured.get(value)) is not None:
            of.setdefault(pair, []).append(one)
    return {pair: fmean(some) for pair, some in of.items()}


def bootstrap(values: Sequence[float], draws: int = 2000) -> dict[str, Any]:
    """`{mean, low, high, pairs}`: the mean, its 95 % interval by the percentile bootstrap (Efron 1979, "Bootstrap
    methods"), always with the same draws, and how many values there are; None where there are none."""
    if not values:
        return {"mean": None, "low": None, "high": None, "pairs": 0}
    sample = np.asarray(values, np.float64)
    picked = np.random.default_rng(0).integers(0, len(sample), (draws, len(sample)))
    low, high = np.quantile(sample[picked].mean(1), (0.025, 0.975))
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high), "pairs": len(sample)}
