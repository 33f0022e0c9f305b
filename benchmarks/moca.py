"""MoCA-Video beside its peers on pairs of the sprite world: `retake dataset evaluation=moca`, by the shipped judge.

12 pairs, three seeds, five arms on the embedded transformer; means over pairs with 95 % intervals, and differences to
sdedit, pair by pair. The page with all pictures is artifacts/evaluations/moca/.
"""

from __future__ import annotations

from typing import Any

PAIRS = 12
SEEDS = (0, 1, 2)
ARMS = ("propagate", "sdedit", "recommended", "paper", "code")


def run(pairs: int = PAIRS, seeds: tuple[int, ...] = SEEDS, arms: tuple[str, ...] = ARMS) -> list[dict[str, Any]]:
    """A row an arm: values, and differences to sdedit."""
    from flows import evaluation, job
    from flows.console import Console
    from flows.runners import Local
    from retake.report import standings
    from retake.report.comparison import told
    from retake.weights.local import require

    for name in ("embedded_dit", "embedded", "judge"):
        require(name)
    asked = [f"evaluation.first={pairs}", f"evaluation.seeds={list(seeds)}", f"evaluation.only={list(arms)}"]
    done = evaluation.evaluate(Local(job.open_store()), Console(quiet=True), "moca", asked)
    rows = []
    for row in done["table"]:
        if row["category"] == standings.ALL:
            of = {value: told(cell) for value, cell in row["values"].items()}
            rows.append({"table": f"{pairs} pairs, {len(seeds)} seeds", "arm": row["arm"], **of})
    for row in done["table"]:
        cells = {value: cell.get("difference") for value, cell in row["values"].items()}
        if row["category"] == standings.ALL and all(cells.values()):
            of = {value: told(cell) for value, cell in cells.items() if cell}
            rows.append({"table": "Against sdedit, pair by pair", "arm": row["arm"], **of})
    return rows
