"""Metrics as the page shows them: grouped by metric, a result beside its source, absent values with their reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAIRED = ("source", "delta")  # words in a value's name that make it the companion of another


@dataclass(frozen=True)
class Metric:
    """One score of the whole clip. `higher_is_better` is None where neither direction is better.

    group: the metric that it is a value of. network: what produced it, where a network did. reason: why there is no
    value, and what to do about it.
    """

    name: str
    value: float | None
    description: str = ""
    higher_is_better: bool | None = None
    unit: str = ""
    group: str = ""
    network: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the page: a value of the result, and the same of the source and their difference where they are
    measured. `prefix` + `short` is the value's name; curve and floor name per-frame curves, or are empty."""

    metric: Metric
    prefix: str
    short: str
    source: Metric | None = None
    delta: Metric | None = None
    curve: str = ""
    floor: str = ""

    @property
    def missing(self) -> bool:
        """Whether the value is missing for a stated reason."""
        return self.metric.value is None and bool(self.metric.reason)

    @property
    def state(self) -> str:
        """What is shown in place of the value: the reason's first word where it is one by itself ("unavailable: needs
        ..."), else "none"."""
        word, colon, _ = self.metric.reason.partition(": ")
        return word if colon and word.isalpha() else "none"

    @property
    def why(self) -> str:
        """The reason without the word that `state` says already."""
        return self.metric.reason.removeprefix(f"{self.state}: ")


@dataclass(frozen=True)
class Group:
    """The rows of one metric. `network` and `reason` are set where they hold for every row."""

    name: str
    rows: tuple[Row, ...]
    network: str = ""
    reason: str = ""


def groups(metrics: Sequence[Metric], curves: Mapping[str, object]) -> list[Group]:
    """The page's metrics in the order given, groups in the order of their first value; curves that no value has come
    last."""
    named = {metric.name for metric in metrics}
    every = [*metrics, *(Metric(name, None) for name in curves if name not in named)]
    found: dict[str, list[Metric]] = {}
    for metric in every:
        found.setdefault(metric.group, []).append(metric)
    return [group(name, members, curves) for name, members in found.items()]


def group(name: str, members: Sequence[Metric], curves: Mapping[str, object]) -> Group:
    """One metric's values: `x_source` and `x_delta` stand beside `x`, in whatever place their word has in the name."""
    by_name = {metric.name: metric for metric in members}
    beside: dict[str, dict[str, Metric]] = {}
    for metric in members:
        base, word = companion(metric.name)
        if word and base in by_name:
            beside.setdefault(base, {})[word] = metric
    taken = {metric.name for pair in beside.values() for metric in pair.values()}
    rows = []
    for metric in members:
        if metric.name in taken:
            continue
        pair = beside.get(metric.name, {})
        source, delta = pair.get("source"), pair.get("delta")
        prefix = f"{name}_" if name and metric.name.startswith(f"{name}_") else ""
        curve = metric.name if metric.name in curves else ""
        floor = source.name if source and curve and source.name in curves else ""
        rows.append(Row(metric, prefix, metric.name[len(prefix) :], source, delta, curve, floor))
    networks, reasons = {row.metric.network for row in rows}, {row.metric.reason for row in rows}
    reason = reasons.pop() if len(reasons) == 1 and all(row.missing and not row.curve for row in rows) else ""
    return Group(name, tuple(rows), networks.pop() if len(networks) == 1 else "", reason)


def companion(name: str) -> tuple[str, str]:
    """`warp_error_source_full` is `warp_error_full` of the source: ("warp_error_full", "source"); else (name, "")."""
    words = name.split("_")
    for word in PAIRED:
        if word in words[1:]:
            at = words.index(word, 1)
            return "_".join(words[:at] + words[at + 1 :]), word
    return name, ""
