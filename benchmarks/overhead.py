"""What keys, store, chunks and hand-out cost, against the same library functions in a plain script without a store.

Clip: the sprite scene drift at 854x480, 60 frames, as an MP4. In one process, five rounds, the order changing from
round to round: the plain script (benchmarks/plain.py, everything in memory); and the edit with the Local runner on an
empty store, followed by the same edit again, fully cached. Both edits compose the settings, and hand out the report
page, which the plain script does not make. Ratios are taken within a round, then the median; those of CPU time suffer
less from other work on the machine. Threads of OpenMP (torch colours flow for the report) wait without spinning, on
both sides: spinning beside other work doubles the CPU time of that stage at random.

Then the command line, each call a fresh process with warm file caches: a fully cached `retake edit`, `retake plan` of
it, `retake --help`, and Python itself doing nothing; median of five, and whether torch or prefect was imported.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import plain
from benchmarks.table import cell
from flows.editing import edit
from flows.places import CODE
from flows.runners import Local
from flows.settings.compose import settings
from retake.artifact import Artifact
from retake.dvc import cache_dir
from retake.stage import Stage
from retake.store import Store
from retake.synthetic import World, reference_image, scene
from retake.video import encode, write_png

ROUNDS = 5
REST = "settings, hand-out"
Round = dict[str, Any]
CALLS = 5
TITLE = f"Command line, whole process, median of {CALLS} calls"
ASK = """
import json, sys
from pathlib import Path
from retake.launcher import main
target = Path(sys.argv.pop(1))
try:
    main()
    status = 0
except SystemExit as stop:
    status = stop.code or 0
target.write_text(json.dumps([status, [name for name in ("torch", "prefect") if name in sys.modules]]))
"""
SMOKE = {"rounds": 1, "frames": 3, "width": 160, "height": 96, "calls": 1}


def run(
    rounds: int = ROUNDS, frames: int = 60, width: int = 854, height: int = 480, calls: int = CALLS
) -> list[dict[str, Any]]:
    """Rows of three tables: ratios, stages, command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, which is later
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        scratch = Path(folder)
        clip, overrides = prepare(scratch, frames, width, height)
        plain.edit(clip, settings(overrides), scratch / "warm")  # imports, decoder process, file cache
        taken = [one_round(scratch / str(n), clip, overrides, n % 2 == 0) for n in range(rounds)]
        output = command_line(scratch, clip, overrides, calls)
    return [*ratios(taken), *stages(taken), *output]


def prepare(scratch: Path, frames: int, width: int, height: int) -> tuple[str, list[str]]:
    """Write clip and reference; returns the clip's path and the overrides of the edit."""
    world = World(scene("drift", width=width, height=height, frames=frames))
    clip = scratch / f"retake-bench-{os.getpid()}.mp4"
    encode(clip, (world.frame(t) for t in range(frames)), world.fps)
    write_png(scratch / "reference.png", reference_image("ball"))
    box = world.box(0, 0)
    assert box is not None
    loose = [box[0] - 8, box[1] - 8, box[2] + 8, box[3] + 8]
    return str(clip), [f"masks.box={loose}", f"edit.reference={scratch / 'reference.png'}"]


def one_round(folder: Path, clip: str, overrides: list[str], plain_first: bool) -> Round:
    """Watches over the plain script, the cold and the cached edit: whole, and by stage."""
    whole, stages_of = plain.Watch(), {}
    made: dict[str, Any] = {}

    def script() -> None:
        with whole.timed("plain"):
            stages_of["plain"] = plain.edit(clip, settings(overrides), folder / "plain")

    def pipeline() -> None:
        for name in ("cold", "cached"):
            runner = Observed(Store(folder / "store"))
            stages_of[name] = runner.watch
            with whole.timed(name):
                made[name] = edit.edit(clip, overrides, runner=runner, folder=folder / "edit")
        assert {o.status for o in made["cold"].outcomes} == {"ran"}
        assert {o.status for o in made["cached"].outcomes} == {"cached"}

    for work in (script, pipeline) if plain_first else (pipeline, script):
        work()
    shutil.rmtree(folder)
    stored = sum(o.artifact.bytes for o in made["cold"].outcomes)
    return {"whole": whole, "stages": stages_of, "bytes": stored}


@dataclass
class Observed(Local):
    """Local, with a watch over each stage call."""

    watch: plain.Watch = field(default_factory=plain.Watch)

    def __call__(self, stage: Stage, params: Any, *, implementation: str = "", **inputs: Any) -> Artifact:
        with self.watch.timed(stage.name):
            return super().__call__(stage, params, implementation=implementation, **inputs)


def ratios(taken: list[Round]) -> list[dict[str, Any]]:
    """The two ratios, with the seconds behind them as context."""
    names = {"plain": "plain script", "cold": "edit, empty store", "cached": "edit, fully cached"}
    rows = []
    for name, text in names.items():
        time_ratios = [r["whole"].seconds[name] / r["whole"].seconds["plain"] for r in taken]
        cpu_ratios = [r["whole"].cpu[name] / r["whole"].cpu["plain"] for r in taken]
        rows.append(
            {
                "table": f"Pipeline against plain script, medians of {len(taken)} rounds",
                "": text,
                "time, ratio to plain": statistics.median(time_ratios),
                "least to most": f"{cell(min(time_ratios))} to {cell(max(time_ratios))}",
                "CPU time, ratio to plain": statistics.median(cpu_ratios),
                "least to most, CPU": f"{cell(min(cpu_ratios))} to {cell(max(cpu_ratios))}",
                "seconds (context)": statistics.median(r["whole"].seconds[name] for r in taken),
                "CPU s (context)": statistics.median(r["whole"].cpu[name] for r in taken),
            }
        )
    rows[1]["stored, MB"] = statistics.median(r["bytes"] for r in taken) / 1e6
    looked = statistics.median(sum(r["stages"]["cached"].seconds.values()) for r in taken)
    rows[2]["looking up 8 stages, ms"] = 1000 * looked
    return rows


def stages(taken: list[Round]) -> list[dict[str, Any]]:
    """Where the difference is, stage by stage; the rest is settings and hand-out."""
    rows = []
    for name in (*taken[0]["stages"]["cold"].cpu, REST):
        row: dict[str, Any] = {"table": "By stage, medians", "stage": name}
        for unit in ("cpu", "seconds"):
            ours, theirs = (statistics.median(part(r, who, unit, name) for r in taken) for who in ("cold", "plain"))
            title = {"cpu": "CPU s", "seconds": "s"}[unit]
            row |= {f"plain script, {title}": theirs, f"edit, empty store, {title}": ours}
            if unit == "cpu":
                row["CPU ratio"] = ours / theirs if theirs and name != REST else None
        rows.append(row)
    return rows


def part(taken: Round, who: str, unit: str, name: str) -> float:
    """Seconds or CPU seconds of one stage, or of what is no stage."""
    by_stage = getattr(taken["stages"][who], unit)
    # The plain script has no region: one object's masks are it.
    return by_stage.get(name, 0.0) if name != REST else getattr(taken["whole"], unit)[who] - sum(by_stage.values())


def command_line(scratch: Path, clip: str, overrides: list[str], times: int) -> list[dict[str, Any]]:
    """Whole processes, from exec to exit."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    env |= {"RETAKE_STORE": str(scratch / "cli"), "NO_COLOR": "1"}
    before = os.environ.get("RETAKE_STORE")
    os.environ["RETAKE_STORE"] = str(scratch / "cli")
    try:
        done = edit.edit(clip, overrides, runner=Local(Store(cache_dir(CODE) / "retake")))
        calls = {
            "retake edit, fully cached": ["edit", clip, *overrides],
            "retake plan": ["plan", clip, *overrides],
            "retake --help": ["--help"],
        }
        rows = [call_row(name, args, scratch, env, times) for name, args in calls.items()]
        nothing = [timed([sys.executable, "-c", "pass"], env) for _ in range(times)]
        return [*rows, {"table": TITLE, "command": "python -c pass", "seconds": statistics.median(nothing)}]
    finally:
        shutil.rmtree(done.folder.parent, ignore_errors=True)
        os.environ.pop("RETAKE_STORE")
        if before is not None:
            os.environ["RETAKE_STORE"] = before


def call_row(name: str, args: list[str], scratch: Path, env: dict[str, str], times: int) -> dict[str, Any]:
    """Median seconds of a command, and what it imported."""
    retake = str(Path(sys.executable).with_name("retake"))
    output = scratch / "output.json"
    timed([sys.executable, "-c", ASK, str(output), *args], env)  # which also warms up
    seconds = [timed([retake, *args], env) for _ in range(times)]
    status, names = json.loads(output.read_text())
    assert status == 0, f"{name}: status {status}"
    return {
        "table": TITLE,
        "command": name,
        "seconds": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "imports torch": "torch" in names,
        "imports prefect": "prefect" in names,
    }


def timed(command: list[str], env: dict[str, str]) -> float:
    """Seconds from start to exit. Raises CalledProcessError when it fails."""
    begun = time.perf_counter()
    subprocess.run(command, env=env, cwd=CODE, check=True, capture_output=True)
    return time.perf_counter() - begun
