"""The page of an evaluation: a table of variants, what failed, and the contact sheet. It loads nothing remote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: dark; }
body { margin: 24px; background: #161616; color: #e8e8e8; font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 20px; } h2 { font-size: 15px; margin: 24px 0 8px; }
table { border-collapse: collapse; } th, td { padding: 4px 12px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1px solid #555; vertical-align: bottom; }
tbody tr:nth-child(even) { background: #1f1f1f; } small { color: #a0a0a0; display: block; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; } dd { margin: 0; color: #a0a0a0; }
.better { color: #7fd08a; } .worse { color: #e58a7a; } .scroll { overflow-x: auto; } img { display: block; }
"""


MIN_PAIRS = 6  # pairs; the bootstrap of fewer says too little to colour a difference


def page(
    name: str,
    table: Sequence[Mapping[str, Any]],
    about: Mapping[str, tuple[tuple[str, str], str]],
    failed: Sequence[Mapping[str, str]],
    against: str | None,
    with_sheet: bool,
) -> str:
    """The page as HTML. table: rows of standings.table; about: value -> ((what it is, "higher" or "lower"), network);
    failed: pair, arm, seed and error; against: the arm that differences are to. The sheet is sheet.png beside it."""
    parts = [f"<!doctype html><meta charset=utf-8><title>{escape(name)}</title><style>{STYLE}</style>"]
    parts.append(f"<h1>{escape(name)}</h1>")
    base = f"; the difference to <b>{escape(against)}</b>, pair by pair, below it" if against else ""
    parts.append(
        f"<p>Means over pairs with their 95 % intervals (bootstrap over pairs){base}. A difference has a "
        f"colour where its interval leaves out zero and it rests on {MIN_PAIRS} pairs or more; "
        "where nothing differs, one in twenty has one all the same.</p>"
    )
    for category in dict.fromkeys(row["category"] for row in table):
        parts.append(f"<h2>{escape(category)}</h2><div class=scroll><table><thead><tr><th>variant</th>")
        parts += [heading(value, *what) for value, what in about.items()]
        parts.append("</tr></thead><tbody>")
        for row in table:
            if row["category"] == category:
                cells = "".join(cell(row["values"][value], what[0][1]) for value, what in about.items())
                parts.append(f"<tr><td>{escape(row['arm'])}</td>{cells}</tr>")
        parts.append("</tbody></table></div>")
    meant = "".join(f"<dt>{escape(value)}<dd>{escape(what[0][0])}" for value, what in about.items())
    parts.append(f"<h2>Values</h2><dl>{meant}</dl>")
    if failed:
        parts.append(f"<h2>{len(failed)} failed</h2><ul>{''.join(failures(failed))}</ul>")
    if with_sheet:
        parts.append("<h2>Middle frames</h2><div class=scroll><img src=sheet.png alt='contact sheet'></div>")
    return "\n".join(parts) + "\n"


def heading(value: str, what: tuple[str, str], network: str) -> str:
    text, direction = what
    by = f"<small>by {escape(network)}</small>" if network else ""
    way = f"<small>{escape(direction)} is better</small>" if direction else ""
    return f"<th title='{escape(text, quote=True)}'>{escape(value)}{way}{by}</th>"


def cell(value: Mapping[str, Any], direction: str) -> str:
    """A mean and its interval; below it the difference, coloured where its interval leaves out zero."""
    difference = value.get("difference")
    below = ""
    if difference and difference["mean"] is not None:
        low, high = difference["low"], difference["high"]
        sure = (low > 0) - (high < 0)
        sure = sure if difference["pairs"] >= MIN_PAIRS else 0
        kind = {1: "better", -1: "worse"}.get(sure * {"higher": 1, "lower": -1}.get(direction, 0), "")
        interval = f" [{low:+.3g}, {high:+.3g}]" if difference["pairs"] > 1 else ""
        below = f"<small class='{kind}'>{difference['mean']:+.3g}{interval}</small>"
    return f"<td title='{value['pairs']} pairs'>{escape(format_cell(value))}{below}</td>"


def format_cell(value: Mapping[str, Any]) -> str:
    """`0.82 [0.80, 0.84]`, or a dash where nothing was measured; of few pairs, how many; of one, and of
    numbers of a set, no interval."""
    if value["mean"] is None:
        return "-"
    if value.get("set"):
        return f"{value['mean']:.3g}"
    if value["pairs"] == 1:
        return f"{value['mean']:.3g} of 1"
    few = "" if value["pairs"] >= MIN_PAIRS else f" of {value['pairs']}"
    return f"{value['mean']:.3g} [{value['low']:.3g}, {value['high']:.3g}]{few}"


def failures(failed: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for one in failed:
        yield f"<li>{escape(one['pair'])} × {escape(one['arm'])} × {escape(one['seed'])}: {escape(one['error'])}</li>"
