"""A dataset of many clips: what a clip costs as their number grows, what it costs to find that nothing is to do, and
whether the bad ones, and a process that is killed at random, change anything.

Clips are 128x96, two frames, one in twenty of them bad, in ten ways (`poison`); two edits of each by `propagate`.
*make* is the first run, in processes of which one for every hundred clips is killed with SIGKILL at random, until one
comes through; *again* the same command afterwards. CPU-seconds are of the command and all its children. Memory is the
most that the command's own process held. *At rest* is ten times as large a dataset with nothing to do: a manifest that
names every clip of the largest one ten times, with the states and folders that a run leaves. Beside it `dvc repro` with
nothing to do over as many foreach stages, each of which copies a file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from flows.places import CODE
from retake.synthetic import World, reference_image, scene
from retake.video import encode, write_png

SIZES = (100, 1000)
EDITS = "dataset.edits=[{id: whole, settings: {edit: {strength: 1.0}}}, {id: half, settings: {edit: {strength: 0.5}}}]"
SMALL = ("frames.last=1", "report.tile=64", "masks.box=[16,16,64,72]", "metrics.names=[region]", "--json")
EVERY = 20  # one clip in so many is bad
PER_KILL = 100  # clips for each process that is killed: no size has more of them than another
TIMES = 10  # as many rows as clips of the largest dataset, at rest
SMOKE = {"sizes": (2,), "beside": False}


def run(sizes: tuple[int, ...] = SIZES, beside: bool = True) -> list[dict[str, Any]]:
    """Rows of two tables: costs by the number of clips, and what became of the clips."""
    costs, fates = [], []
    for size in sizes:
        home = Path(tempfile.mkdtemp(prefix="retake-datasets-"))
        try:
            bad = write_clips(home, size)
            kills = size // PER_KILL
            made = [measured(home, kill=n < kills, seed=n) for n in range(kills + 1)]
            again = measured(home)
            dvc = dvc_nothing_to_do(home / "dvc", size) if beside else None
            costs.append(cost(size, made, again, dvc) | kept(home / "store" / "retake", home / "datasets", size))
            fates.append(fate(size, bad, made, again, home / "datasets"))
            if size == max(sizes):
                costs.append(cost(size * TIMES, [], at_rest(home, bad), None))
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return [*costs, *fates]


def write_clips(home: Path, count: int) -> dict[str, str]:
    """Clips in home/clips and a picture; the code that each of the bad ones must get, by name."""
    (home / "clips").mkdir(parents=True)
    write_png(home / "cat.png", reference_image("patchwork", 64)[..., :3])
    bad: dict[str, str] = {}
    base = World(scene("drift", width=128, height=96, frames=2))
    frames = [base.frame(t) for t in range(2)]
    for n in range(count):
        path = home / "clips" / f"clip-{n:05d}.mp4"
        if n % EVERY == EVERY // 2:
            ways = poison(n, (home / "clips/clip-00000.mp4").read_bytes())
            code, content = ways[n // EVERY % len(ways)]
            path = written(path, content)
            bad[path.stem] = code
        else:
            marked = [frame.copy() for frame in frames]
            for frame in marked:  # no two clips are the same
                frame[-8:, :32] = [[n % 256, n // 256 % 256, 128]]
            encode(path, iter(marked), 24.0)
        os.utime(path, (1, 1))
    return bad


def poison(seed: int, whole: bytes) -> list[tuple[str, bytes | list[Any]]]:
    """Ten ways to be bad: the code that each must get, and the bytes of a video or the pictures of a folder."""
    rng = np.random.default_rng(seed)

    def picture(height: int, width: int) -> np.ndarray:
        return rng.integers(0, 255, (height, width, 3), np.uint8)

    return [
        ("E401", b""),
        ("E402", b"text" * 50),
        ("E402", rng.bytes(3000)),
        ("E413", whole[:400]),
        ("E410", whole[: len(whole) // 2]),
        ("E403", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nother.mp4\n"),
        ("E409", sound()),
        ("E412", [picture(96, 128), picture(48, 64)]),
        ("E420", [picture(96, 128), b"\x89PNG\r\n\x1a\n and no more"]),
        ("E220", [np.full((96, 128, 3), 128, np.uint8)] * 2),  # no object to be found
    ]


def written(path: Path, content: bytes | list[Any]) -> Path:
    """A video with these bytes, or a folder of pictures in its place."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    path = path.with_suffix("")
    path.mkdir()
    for t, picture in enumerate(content):
        place = path / f"{t}.png"
        place.write_bytes(picture) if isinstance(picture, bytes) else write_png(place, picture)
    return path


def sound() -> bytes:
    """A file with a tone and no picture."""
    import io

    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return sink.getvalue()


def at_rest(home: Path, bad: dict[str, str]) -> dict[str, Any]:
    """What it costs to find that nothing is to do where every clip stands in a manifest under TIMES names. A job's mark
    does not hold its name, so that the states of the one are those of the other."""
    clips = sorted((home / "clips").iterdir())
    names = {path.stem: [f"{path.stem}-{n}" for n in range(TIMES)] for path in clips}
    rows = [f"{name},{path}" for path in clips for name in names[path.stem]]
    (home / "many.csv").write_text("\n".join(["id,clip", *rows]) + "\n")
    once, many = home / "datasets" / "clips", home / "datasets" / "many"
    many.mkdir()
    lines = (json.loads(line) for line in (once / "states.jsonl").read_text().splitlines())
    last = {line["job"]: line for line in lines}
    with (many / "states.jsonl").open("w") as log:
        for job, line in last.items():
            clip, _, edit = job.partition("/")
            for name in names[clip]:
                moved = {"job": f"{name}/{edit}", "report": line.get("report", "").replace(f"/{clip}/", f"/{name}/")}
                log.write(json.dumps(line | moved) + "\n")
    for folder in once.glob("*/*"):
        for name in names.get(folder.name, ()):
            shutil.copytree(folder, many / folder.parent.name / name, copy_function=os.link)
    first = measured(home, "many.csv")  # which writes the gallery and the tables
    wanted = Counter(cached=2 * TIMES * (len(clips) - len(bad)), quarantined=2 * TIMES * len(bad))
    assert Counter(first["report"]["counts"]) == wanted
    assert not first["report"]["stages"], "something was looked up"
    return measured(home, "many.csv")


def measured(home: Path, manifest: str = "clips", kill: bool = False, seed: int = 0) -> dict[str, Any]:
    """One call of the command: CPU-seconds with children, peak bytes, its JSON, whether it was killed."""
    environment = os.environ | {
        "RETAKE_STORE": str(home / "store"),
        "RETAKE_DATASETS": str(home / "datasets"),
        "PYTHONPATH": str(CODE),
    }
    environment.pop("PREFECT_API_URL", None)
    words = ["dataset", str(home / manifest), f"edit.reference={home / 'cat.png'}", EDITS, *SMALL]
    out = home / "out.json"
    begun = time.perf_counter()
    with out.open("wb") as sink:
        child = psutil.Popen(
            [sys.executable, "-m", "flows", *words],
            cwd=CODE,
            env=environment,
            stdout=sink,
            stderr=subprocess.DEVNULL,
        )
        luck = random.Random(seed)
        ends = begun + luck.uniform(5, 30) if kill else float("inf")
        peak, spent = 0, 0.0
        while child.poll() is None:
            try:
                peak = max(peak, child.memory_info().rss)
                own = child.cpu_times()
                living = [one.cpu_times() for one in child.children(recursive=True)]
                spent = max(
                    spent, sum(t.user + t.system for t in [own, *living]) + own.children_user + own.children_system
                )
            except psutil.NoSuchProcess:
                continue
            if time.perf_counter() > ends:
                for one in [*child.children(recursive=True), child]:
                    one.send_signal(signal.SIGKILL)
            time.sleep(0.05)
    killed = child.returncode == -signal.SIGKILL
    report = json.loads(out.read_text()) if not killed else {}
    return {"cpu": spent, "peak": peak, "seconds": time.perf_counter() - begun, "report": report, "killed": killed}


def cost(size: int, made: list[dict[str, Any]], again: dict[str, Any], dvc: float | None) -> dict[str, Any]:
    ours = again["cpu"]
    return {
        "table": "Costs",
        "clips x edits": f"{size} x 2" + ("" if made else ", at rest"),
        "make, CPU-s a clip": sum(one["cpu"] for one in made) / size if made else None,
        "peak, MB": max(one["peak"] for one in made) / 1e6 if made else None,
        "again, CPU-s": ours,
        "again, s": again["seconds"],
        "again, peak, MB": again["peak"] / 1e6,
        "dvc repro, nothing to do, CPU-s": dvc,
        "dvc / ours": dvc / ours if dvc else None,
    }


def fate(
    size: int, bad: dict[str, str], made: list[dict[str, Any]], again: dict[str, Any], datasets: Path
) -> dict[str, Any]:
    """What became of the clips, and whether it is what should have. datasets: where states.jsonl lies."""
    jobs = made[-1]["report"]["jobs"]
    aside = {job["job"].partition("/")[0]: job["code"] for job in jobs if job["state"] == "quarantined"}
    reasons = Counter(job["code"] for job in jobs if job["state"] == "quarantined")
    (log,) = datasets.rglob("states.jsonl")
    begun = Counter(line["job"] for line in map(json.loads, log.read_text().splitlines()) if line["state"] == "begun")
    return {
        "table": "Fates",
        "clips x edits": f"{size} x 2",
        "kills": sum(one["killed"] for one in made),
        "done": sum(job["state"] in ("ok", "cached") for job in jobs),
        "wanted": 2 * (size - len(bad)),
        "set aside": len(aside),
        "bad ones": len(bad),
        "exactly these, for these reasons": aside == bad,
        "for": ", ".join(f"{code} {count}" for code, count in sorted(reasons.items())),
        "edits begun twice": sum(count > 1 for count in begun.values()),
        "made again by the second run": again["report"]["stages"].get("ran", 0),
    }


def kept(store: Path, datasets: Path, size: int) -> dict[str, Any]:
    """What lies on disk for each clip."""
    records = [path.stat().st_size for path in (store / "records").glob("*/*") if len(path.name) == 64]
    objects = [path.stat().st_size for path in (store / "objects").rglob("*") if path.is_file()]
    (log,) = datasets.rglob("states.jsonl")
    return {
        "records a clip": len(records) / size,
        "bytes a record": sum(records) / len(records),
        "objects a clip": len(objects) / size,
        "MB a clip": sum(objects) / 1e6 / size,
        "bytes of states a clip": log.stat().st_size / size,
    }


def dvc_nothing_to_do(folder: Path, count: int) -> float:
    """CPU-seconds of `dvc repro` where all of `count` foreach stages are up to date."""
    folder.mkdir()
    items = "".join(f"      - c{n:05d}\n" for n in range(count))
    stages = f"stages:\n  copy:\n    foreach:\n{items}    do:\n      cmd: cp in/${{item}} out-${{item}}\n"
    stages += "      deps: ['in/${item}']\n      outs: ['out-${item}']\n"
    (folder / "dvc.yaml").write_text(stages)
    (folder / "in").mkdir()
    for n in range(count):
        (folder / "in" / f"c{n:05d}").write_text(str(n))

    def dvc(*words: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, check=True, capture_output=True)
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    dvc("init", "--no-scm")
    # Running a thousand stages takes DVC many minutes; committing what stands there gives the same dvc.lock.
    for n in range(count):
        shutil.copy(folder / "in" / f"c{n:05d}", folder / f"out-c{n:05d}")
    dvc("commit", "--force")
    return dvc("repro")
