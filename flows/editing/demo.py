"""The demo: render a small clip, edit it, change one setting, and show what the cache did; and an example of every
method."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any, NamedTuple

from flows.editing import edit
from flows.places import CODE, OUTS, PROJECT, open_store
from flows.runners import Local
from flows.settings.overrides import quoted
from flows.terminal.console import Console
from retake.errors import ConfigError, did_you_mean

SCENE = "zoom"


class Example(NamedTuple):
    """Words that follow `retake edit` as they stand, and what to expect of them."""

    command: str
    expect: str


SMALL = "The small model that ships knows the sprite world at 64 pixels only"
EXAMPLES = {
    "propagate": Example(
        "sprites:crowd edit.reference=params/dataset/ball.png",
        "The picture is carried along by tracks and flow; no model. What turns into view is mirrored.",
    ),
    "move": Example(
        "sprites:drift edit=move 'edited_tracks.edits=[{do: move, by: [60, 0], frames: [0, 20]}]'",
        "The object goes 60 pixels further to the right; what it hid comes from other frames. No model.",
    ),
    "timetomove": Example(
        "sprites:captioned:7 edit=timetomove 'edit.prompt=a dotted green star over moss' edit.steps=25 "
        "'edited_tracks.edits=[{do: move, by: [12, 0], frames: [0, 15]}]'",
        f"{SMALL}: the star goes further to the right, drawn anew as a ragged one.",
    ),
    "motionv2v": Example(
        "sprites:path_source:2005 model=embedded_dit edit=motionv2v masks=given masks.own=true "
        "tracks=given tracks.own=true edited_tracks=given edited_tracks.own=true",
        f"{SMALL}: a blurred object that follows its new tracks in part.",
    ),
    "moft": Example(
        "sprites:captioned:7 model=embedded edit=moft 'edit.prompt=a dotted green star over moss' inversion.steps=25 "
        "'edit.targets=[{object: 1, direction: right, speed: 2}]'",
        f"{SMALL}: the star, which went straight down, goes right, too; the ground around it becomes blotches.",
    ),
    "sdedit": Example(
        "sprites:captioned:2020 edit=sdedit 'edit.prompt=a striped yellow star moving right over water' "
        "inversion.steps=25",
        f"{SMALL}: the blue star is yellow; in its first frames it is half there.",
    ),
    "moca": Example(
        "sprites:captioned:2020 edit=moca edit.reference=params/evaluation/sprites/hue-04.png "
        "'edit.reference_text=a striped yellow star' 'edit.source_prompt=a striped blue star moving right over water'",
        f"{SMALL}: the picture's yellow mixes into the blue star, which keeps its shape and its way.",
    ),
    "ivediff": Example(
        "sprites:captioned:2003 model=embedded_ivediff edit=ivediff depth=given depth.own=true "
        "edit.reference=params/evaluation/sprites/all-00.png",
        f"{SMALL}: the cross takes the picture's green and keeps its shape and its way; the marble becomes blotches.",
    ),
}
"""By method. Every one was run and looked at with the models that ship."""


def example(name: str, console: Console) -> dict[str, Any]:
    """Run a method's example. Raises ConfigError E206 for a method that has none."""
    if name not in EXAMPLES:
        raise ConfigError("E206", f"there is no example of {name!r}", did_you_mean(name, list(EXAMPLES)))
    command, expect = EXAMPLES[name]
    console.say(f"{expect}\n\nretake edit {command}")
    clip, *words = shlex.split(command)
    runner = Local(open_store(), console, console.outcome)
    done = edit.edit(clip, [word.replace("=params/", f"={CODE}/params/") for word in words], runner=runner)
    console.end()
    return done.as_json()


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
