"""MoCA-Video beside its peers on pairs of the sprite world: `retake evaluate moca`, by the shipped judge.

Means over pairs with 95 % intervals, and differences to one arm, pair by pair: first its peers and presets with three
seeds, then a table a question of the paper. The pages with all pictures are artifacts/evaluations/.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PAIRS = Path(__file__).resolve().parents[1] / "params/evaluation/sprites/pairs.csv"


class Question(NamedTuple):
    """Arms to compare, and the one that differences are to; what is typed beside."""

    title: str
    arms: tuple[str, ...]
    against: str
    pairs: int = 24
    seeds: tuple[int, ...] = (0,)
    beside: tuple[str, ...] = ()
    frames: int | None = None  # of every clip; the sprite moves as far


PARTS = ("gate", "no_gate", "no_momentum", "no_residual", "constant")
QUESTIONS = (
    Question("Peers and presets", ("propagate", "sdedit", "recommended", "paper", "code"), "sdedit", 12, (0, 1, 2)),
    Question("What each part brings", ("recommended", *PARTS), "recommended"),
    Question("Masks anew in every step, with and without the gate", ("gate", "no_gate"), "gate"),
    Question("Where masks come from", ("recommended", "boxes", "attention"), "recommended"),
    Question("From which timestep (t')", ("below_200", "below_300", "below_400"), "below_300"),
    Question(
        "How long the momentum remembers (beta; recommended 0.9)", ("recommended", "beta_80", "beta_95"), "recommended"
    ),
    Question("Published schedule", ("published", "lookahead_8"), "published", 40),
    Question(
        "Fewer frames that are only looked at, on clips of 46 frames",
        ("lookahead_8", "lookahead_4", "lookahead_0"),
        "lookahead_8",
        beside=("frames.fps=24",),
    ),
    *(
        Question(f"Queue or windows, on clips of {n} frames", ("queue", "windows"), "queue", pairs, frames=n)
        for n, pairs in ((16, 40), (46, 24), (100, 12))
    ),
    Question(
        "Every fourth frame: motion beyond the gate",
        ("no_gate", "gate", "neighbour", "recommended"),
        "no_gate",
        beside=("frames.fps=2",),
    ),
)
SMOKE = {"questions": (Question("One pair", ("propagate", "sdedit"), "sdedit", 1),)}


def run(questions: Sequence[Question] = QUESTIONS) -> list[dict[str, Any]]:
    """A row an arm: values, and differences to another arm."""
    from retake.weights.local import require

    for name in ("embedded", "judge"):
        require(name)
    return [row for question in questions for row in answered(question)]


def answered(question: Question) -> list[dict[str, Any]]:
    """The rows of one question."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        lengthened = [f"evaluation.pairs={longer(Path(folder), question.frames)}"] if question.frames else []
        return compared(question, [*question.beside, *lengthened])


def longer(folder: Path, frames: int) -> Path:
    """A manifest of the shipped pairs whose clips have so many frames, in a folder."""
    with open(PAIRS, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["clip"] += f":{frames}"
        row["edit.reference"] = str(PAIRS.parent / row["edit.reference"])
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def compared(
    question: Question, beside: Sequence[str], name: str = "moca", by_category: bool = False
) -> list[dict[str, Any]]:
    """The rows of one question of an evaluation. beside: what is typed, too. by_category: a table for each, too."""
    from flows.experiments import evaluation
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console
    from retake.report import intervals
    from retake.report.evaluation_page import format_cell

    asked = [
        f"evaluation.first={question.pairs}",
        f"evaluation.seeds={list(question.seeds)}",
        f"evaluation.only={list(question.arms)}",
        f"evaluation.against={question.against}",
    ]
    done = evaluation.evaluate(Local(open_store()), Console(quiet=True), name, [*asked, *beside])
    title = f"{question.title}: {question.pairs} pairs, {len(question.seeds)} seed{'s'[: len(question.seeds) > 1]}"
    rows = []
    for row in done["table"]:
        of = {value: format_cell(cell) for value, cell in row["values"].items()}
        if row["category"] == intervals.ALL:
            rows.append({"table": title, "variant": row["arm"], **of})
        elif by_category:
            rows.append({"table": f"{question.title}: {row['category']}", "variant": row["arm"], **of})
    for row in done["table"]:
        cells = {value: cell.get("difference") for value, cell in row["values"].items()}
        if row["category"] == intervals.ALL and all(cells.values()):
            of = {value: format_cell(cell) for value, cell in cells.items() if cell}
            rows.append({"table": f"{question.title}: difference to {question.against}", "variant": row["arm"], **of})
    return rows
