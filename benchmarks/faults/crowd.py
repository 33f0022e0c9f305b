"""Many processes that start on one key at the same moment; in half of the rounds the one that computes is killed, and
then the next one that does.

*Computed*: processes that made a chunk (one, and one more for each that was killed). *Chunks made again*: committed by
one that was killed, and made once more. *Waited*: the longest time from a kill to the first chunk of the one that went
on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.fire import complete_frames, crowd, lines, prefork, wait_for

MANY, ROUNDS = 32, 10
SMOKE = {"many": 3, "rounds": 2}


def run(many: int = MANY, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """A row without and one with kills."""
    forks = prefork()
    return [row(forks, many, rounds // 2, kills) for kills in (0, 2)]


def row(forks: Any, many: int, rounds: int, kills: int) -> dict[str, Any]:
    found, waited = Counter[str](), 0.0
    for n in range(rounds):
        with tempfile.TemporaryDirectory(prefix="retake-faults-") as folder:
            root, log = Path(folder) / "store", Path(folder) / "log"
            children = crowd(forks, root, log, many)
            dead: set[int] = set()
            for _ in range(kills):
                waited = max(waited, kill_who_computes(log, dead))
            for child in children:
                child.join(60)
            left = [child for child in children if child.pid not in dead]
            outcomes = [json.loads(line.removeprefix("outcome ")) for line in lines(log) if line.startswith("outcome")]
            found["failed"] += sum(child.exitcode != 0 for child in left)
            found["answers"] += len(outcomes)
            found["computed"] += len({line.split()[1] for line in lines(log) if line.startswith("computing")})
            commits = Counter(line for line in lines(log) if line.startswith("commit"))
            found["again"] += sum(times - 1 for times in commits.values())
            found["digests"] += len({digest for _, digest in outcomes} | {complete_frames(Path(folder) / "alone")}) - 1
        print(f"crowd: {kills} kills, round {n}: {dict(found)}", file=sys.stderr, flush=True)
    return {
        "table": f"{many} processes on one key, {rounds} rounds",
        "killed a round": kills,
        "answers": found["answers"],
        "computed": found["computed"],
        "chunks made again": found["again"],
        "failed or other results": found["failed"] + found["digests"],
        "waited, s": waited if kills else None,
    }


def kill_who_computes(log: Path, dead: set[int]) -> float:
    """Kill the process that makes chunks now; seconds until another one makes one."""

    def others() -> list[int]:
        pids = [int(line.split()[1]) for line in lines(log) if line.startswith("computing")]
        return [pid for pid in pids if pid not in dead]

    assert wait_for(lambda: bool(others()), 60)
    victim = others()[-1]
    os.kill(victim, signal.SIGKILL)
    dead.add(victim)
    begun = time.monotonic()
    assert wait_for(lambda: bool(others()), 60)
    return time.monotonic() - begun
