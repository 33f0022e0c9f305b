"""Bit flips, cuts, and writes through a hard link, over everything that a store holds: the objects of every kind of
artifact, records, lists of chunks and the state that an interrupted stage goes on from.

Each wound is then met in one of the ways there are (read, copied out, linked out, verified, read as a series, found by
the next run), and the result made again. *Served*: bytes that are not those that were stored were handed to somebody.
*Not seen*: nothing was said of it. *Not healed*: what was made again is not what was there. *Left*: a damaged file is
still under its name.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers.fire import CHUNKED, STAGES, Ward, complete, digests, take, ward_of

from retake.errors import DamagedError
from retake.stage import Silent

WOUNDS = 10_000
SHARES = {"object": 80, "hard link": 10, "record": 5, "chunks": 5}  # of a hundred
SMOKE = {"wounds": 20}


def run(wounds: int = WOUNDS) -> list[dict[str, Any]]:
    """A row for each kind of wound."""
    with tempfile.TemporaryDirectory(prefix="retake-faults-") as folder:
        ward = ward_of(Path(folder))
        rows = []
        for what, share in SHARES.items():
            found = Counter[str]()
            for n in range(wounds * share // 100):
                found.update(HURT[what](ward, Path(folder), n))
                if n % 200 == 0:
                    print(f"damage: {what} {n} {dict(found)}", file=sys.stderr, flush=True)
            names = ("wounds", "flips", "cuts", "served", "not seen", "not healed", "left")
            rows.append({"table": "Damage to what is stored", "to": what} | {name: found[name] for name in names})
    return rows


def hurt_object(ward: Ward, out: Path, n: int, through: Callable[[Path], Path] = lambda path: path) -> Counter[str]:
    """Hurt a file of some stage's result, get at it, make it again."""
    name, cut, store = STAGES[n % len(STAGES)], n // len(STAGES) % 2 == 1, ward.store()
    artifact = ward.made[name]
    file = ward.rng.choice(artifact.files)
    path = store.object_path(file.sha256)
    ward.hurt(through(path), cut)
    found = Counter({"wounds": 1, "cuts" if cut else "flips": 1})
    try:
        take(store, artifact, file, out, ward.rng)
        found["served"] += 1
    except DamagedError:
        found["left"] += path.exists()
    found["not seen"] += not ward.heard
    again = ward.compute(store, name).digest
    found["not healed"] += again != artifact.digest or store.read(file) != ward.pristine[file.sha256]
    return found


def hurt_through_link(ward: Ward, out: Path, n: int) -> Counter[str]:
    """As `hurt_object`, through a name that was handed out by hard link."""

    def linked(path: Path) -> Path:
        name = out / f"link-{n}"
        os.link(path, name)
        return name

    found = hurt_object(ward, out, n, linked)
    (out / f"link-{n}").unlink()
    return found


def hurt_record(ward: Ward, out: Path, n: int) -> Counter[str]:
    """Hurt a record: its stage runs again, and nothing else does."""
    name, cut, store = STAGES[n % len(STAGES)], n % 3 == 0, ward.store()
    ward.hurt(ward.record(name), cut)
    run = complete(store, ward.spec, ward.p)
    ran = [o.stage for o in run.outcomes if o.status == "ran"]
    found = Counter({"wounds": 1, "cuts" if cut else "flips": 1})
    found["served"] += ran != [name]
    found["not seen"] += not ward.heard
    found["not healed"] += digests(run.made) != digests(ward.made)
    return found


class Interrupt(Silent):
    """Ctrl-C after the first committed chunk."""

    def progress(self, stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt


def hurt_chunks(ward: Ward, out: Path, n: int) -> Counter[str]:
    """Hurt what an interrupted stage left: its list of chunks, a chunk, the state to go on from."""
    name, store = CHUNKED[n % len(CHUNKED)], ward.store()
    ward.record(name).unlink()
    with suppress(KeyboardInterrupt):
        ward.compute(store, name, Interrupt())
    key = ward.record(name).name
    partial = json.loads(store.partial_path(key).read_text().splitlines()[0])
    files = [store.object_path(file["sha256"]) for file in [*partial["files"], *partial["states"]]]
    cut = random.Random(n).random() < 0.5
    ward.hurt(ward.rng.choice([store.partial_path(key), *files]), cut)
    found = Counter({"wounds": 1, "cuts" if cut else "flips": 1})
    found["not healed"] += ward.heal(out) != digests(ward.made)
    found["not seen"] += not ward.heard
    return found


HURT: dict[str, Callable[[Ward, Path, int], Counter[str]]] = {
    "object": hurt_object,
    "hard link": hurt_through_link,
    "record": hurt_record,
    "chunks": hurt_chunks,
}
