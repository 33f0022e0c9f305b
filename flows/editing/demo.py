"""The demo: render a small clip, edit it, change one setting, and show what the cache did."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flows.editing import edit
from flows.places import OUTS, PROJECT, open_store
from flows.runners import Local
from flows.settings.overrides import quoted
from flows.terminal.console import Console

SCENE = "zoom"


def run(console: Console) -> dict[str, Any]:
    """Three runs of one edit on artifacts/demo/clip.mp4: cold, again, and with another strength."""
    folder = OUTS / "demo"
    clip, reference, box = folder / "clip.mp4", folder / "reference.png", render(folder)
    settings = [f"masks.box={list(box)}", f"edit.reference={quoted(str(reference))}"]
    x0, y0, x1, y1 = box
    shown = f"{clip.relative_to(PROJECT)} --box {x0},{y0},{x1},{y1} edit.reference={reference.relative_to(PROJECT)}"
    results: dict[str, Any] = {}
    for title, extra in (("cold", []), ("the same again", []), ("one setting changed", ["edit.strength=0.6"])):
        console.say(f"\n# {title}\nretake edit {' '.join([shown, *extra])}")
        began = time.perf_counter()
        runner = Local(open_store(), console, console.outcome)
        done = edit.edit(str(clip), [*settings, *extra], runner=runner)
        took = time.perf_counter() - began
        ran = [o.stage for o in done.outcomes if o.status == "ran"]
        console.say(f"{took:.1f} s; ran: {', '.join(ran) or 'nothing'}")
        results[title] = done.as_json() | {"total_seconds": round(took, 2)}
    console.say(
        f"\nOpen the report in a browser:\n  {done.outputs['report']}\nand the video:\n  {done.outputs['video']}"
    )
    console.say(
        "Now your own clip: retake pick CLIP writes a page to drag a box on; then retake edit CLIP --box ... as above."
    )
    return results


def render(folder: Path) -> tuple[int, int, int, int]:
    """Write clip.mp4 and reference.png; returns a loose box of the sprite on frame 0."""
    from retake.synthetic import scenes
    from retake.synthetic.pictures import reference_image
    from retake.synthetic.world import World
    from retake.video import encode, write_png

    folder.mkdir(parents=True, exist_ok=True)
    world = World(scenes.scene(SCENE, width=480, height=270))
    write_png(folder / "reference.png", reference_image("patchwork", 256)[..., :3])
    if not (folder / "clip.mp4").exists():
        frames = (world.frame(t) for t in range(world.frames))
        encode(folder / "clip.mp4", frames, world.fps, crf=12)
    found = world.box(0, 0)
    assert found is not None, "the first sprite of a scene is in view on frame 0"
    x0, y0, x1, y1 = found
    return x0 - 6, y0 - 6, x1 + 6, y1 + 6
