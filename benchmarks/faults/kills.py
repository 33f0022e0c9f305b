"""SIGKILL at random: whole edits (of 41 frames of 64x48, every stage on the CPU) in a process group that is killed at a
random moment of a random stage, on stores that live on from kill to kill.

After every kill: a damaged object or record, a list of chunks that does not hold what it names, a lock that is held, a
decoder process still there after five seconds. After every tenth: the edit is done undisturbed, and must give what one
that nobody killed gives. A chunk that was committed must never be made again.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.fire import STAGES, Front, complete, digests, lines, prefork, quiet, render

KILLS, EACH = 1000, 10  # EACH: kills of one store
SMOKE = {"kills": 1}


def run(kills: int = KILLS) -> list[dict[str, Any]]:
    """One row."""
    rng, forks, found = random.Random(0), prefork(), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="retake-faults-") as folder:
        base = Path(folder)
        spec, p = render(base, (64, 48), 41)
        plain = complete(quiet(base / "plain"), spec, p)
        seconds = {o.stage: o.recorded_seconds for o in plain.outcomes}
        number = 0
        while found["kills"] < kills:
            number += 1
            home, log = base / f"store{number}", base / f"log{number}"
            os.environ["RETAKE_STORE"] = str(home)
            front = Front(home / "retake", spec, p, log, seconds)
            for target in sorted(rng.choices(STAGES, k=EACH), key=STAGES.index):
                try:
                    found["kills"] += front.kill_once(forks, target, rng) is not None
                    front.check()
                except AssertionError as error:
                    found["harm"] += 1
                    print(f"kills: {error}", file=sys.stderr, flush=True)
            resumed = complete(quiet(front.root), spec, p, log)
            found["stores"] += 1
            found["other result"] += digests(resumed.made) != digests(plain.made)
            committed = Counter(line for line in lines(log) if line.startswith("commit"))
            found["chunks"] += len(committed)
            found["made again"] += sum(n - 1 for n in committed.values())
            print(f"kills: {dict(found)}", file=sys.stderr, flush=True)
    return [
        {
            "table": "SIGKILL at a random moment of an edit",
            "kills": found["kills"],
            "stores": found["stores"],
            "damage, stuck locks, orphans": found["harm"],
            "another result in the end": found["other result"],
            "chunks committed": found["chunks"],
            "of them made again": found["made again"],
        }
    ]
