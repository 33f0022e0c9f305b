"""A night of bad luck: 24 clips, 12 of them bad in ways of their own, two edits of each, and a process that is killed
over and over. Every good clip is done, exactly the bad ones are set aside, and a kill undoes next to nothing.

With a thousand clips and ten kills: `python -m benchmarks datasets`."""

from __future__ import annotations

import csv
import json
import random
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import zoo
from helpers.command import Shell, reference, sprite_clip

from retake.video import write_png

GOOD = 12
KILLS = 5
SMALL = ("frames.last=1", "report.tile=64", "metrics.names=[region]", "--json")


def poison(folder: Path, whole: bytes) -> dict[str, tuple[str, dict[str, str]]]:
    """Clips by name, with settings of their rows, each bad in its own way; the code that it must get stands first."""
    rng = np.random.default_rng(0)

    def file(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    def frames(name: str, *sizes: tuple[int, int]) -> None:
        (folder / name).mkdir()
        for n, (height, width) in enumerate(sizes):
            write_png(folder / name / f"{n}.png", rng.integers(0, 255, (height, width, 3), np.uint8))

    file("empty.mp4", b"")
    file("text.mp4", b"not a video at all\n" * 20)
    file("noise.mp4", rng.bytes(6000))
    file("cut.mp4", whole[: len(whole) // 4])
    file("playlist.mp4", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n")
    zoo.make_sound(folder / "sound.mp4")
    frames("sizes", (96, 160), (48, 80))
    frames("broken", (96, 160))
    (folder / "broken" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "none").mkdir()
    (folder / "flat").mkdir()
    for n in range(2):
        write_png(folder / "flat" / f"{n}.png", np.full((96, 160, 3), 128, np.uint8))
    ok, pixels = cv2.imencode(".bmp", np.zeros((4, 4, 3), np.uint8))
    assert ok
    file("picture.png", pixels.tobytes()[:20])
    box = {"masks.box": "[20,20,80,80]"}
    return {
        "empty.mp4": ("E401", box),
        "text.mp4": ("E402", box),
        "noise.mp4": ("E402", box),
        "cut.mp4": ("E410", box),
        "playlist.mp4": ("E403", box),
        "sound.mp4": ("E409", box),
        "sizes": ("E412", box),
        "broken": ("E420", box),
        "none": ("E410", box),
        "good-00.mp4": ("E221", {"masks.box": "[900,900,999,999]"}),
        "flat": ("E220", box),
        "good-01.mp4": ("E420", {**box, "edit.reference": str(folder / "picture.png")}),
    }


def test_every_good_clip_is_done_and_exactly_the_bad_ones_are_set_aside(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for n in range(GOOD):
        sprite_clip(folder / f"good-{n:02d}.mp4", frames=2, size=(160, 96 + 2 * n))
    cat = reference(tmp_path / "cat.png")
    bad = poison(folder, (folder / "good-00.mp4").read_bytes())
    rows = [(f"good-{n:02d}", f"good-{n:02d}.mp4", {"masks.box": "[20,20,80,80]"}) for n in range(GOOD)]
    rows += [(f"bad-{n:02d}", name, settings) for n, (name, (_, settings)) in enumerate(bad.items())]
    random.Random(1).shuffle(rows)
    with (folder / "all.csv").open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["id", "clip", "masks.box", "edit.reference"])
        for name, clip, settings in rows:
            writer.writerow([name, clip, settings["masks.box"], settings.get("edit.reference", str(cat))])
    assert len(rows) == GOOD + len(bad) == 24

    shell = Shell(tmp_path)
    edits = (
        "dataset.edits=[{id: whole, settings: {edit: {strength: 1.0}}}, {id: half, settings: {edit: {strength: 0.5}}}]"
    )
    words = ("dataset", folder / "all.csv", edits, *SMALL)
    log = tmp_path / "datasets" / "all" / "states.jsonl"
    luck, ends = random.Random(2), []
    for n in range(KILLS):
        child = shell.start(*words)
        goal = (n + 1) * 4 + luck.randrange(2)  # of 24
        deadline = time.monotonic() + 200
        while child.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count('"ok"') >= goal:
                break
            time.sleep(luck.uniform(0.01, 0.1))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        ends.append(child.returncode)
    assert ends == [-signal.SIGKILL] * KILLS  # none had come to its end before
    last = shell.start(*words)
    out, err = last.communicate(timeout=280)
    assert last.returncode == 3, err[-2000:]
    done = json.loads(out)

    by_job = {job["job"]: job for job in done["jobs"]}
    assert len(by_job) == 48
    for name, clip, _ in rows:
        for edit in ("whole", "half"):
            job = by_job[f"{name}/{edit}"]
            if name.startswith("good"):
                assert job["state"] in ("ok", "cached"), job
                assert (log.parent / "report" / name / edit / "report.html").exists()
            else:
                assert job["state"] == "quarantined", job
                assert job["code"] == bad[clip][0], job
    # Each job was finished once, whoever was killed; a killed one was begun once more.
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    finished = [line["job"] for line in lines if line["state"] in ("ok", "cached")]
    assert sorted(finished) == sorted(
        {f"{name}/{edit}" for name, _, _ in rows if name[0] == "g" for edit in ("whole", "half")}
    )
    begun = [line["job"] for line in lines if line["state"] == "begun"]
    assert len(begun) - len(set(begun)) <= KILLS
    assert shell("verify").code == 0
