"""Steering (`edit=moft`) of clips that are given: sprites that rest, told to go.

Of one sprite, told to go right and up; and of two, side by side and of different hues, told to part. The clip is made
of its own inversion, or of noise within the areas in which objects are and shall be (`edit.source=noise`), which are
then drawn anew from the prompt. *Followed*, *speed*, *hue*, *shape*, *drift* and *sharp* as in steering.py; *both*: the
share of clips of two in which both go where they are told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded import MODELS
from benchmarks.steering import Begun, Bench, interval, means
from retake import video
from retake.diffusion.model import Model
from retake.synthetic import clips, grammar
from retake.synthetic.scene import Scene
from retake.synthetic.world import World

APART = 13.0  # pixels of 64 that each of two sprites lies off the middle
SPEED = 1.0  # told, pixels a frame
SMOKE = {"count": 1, "steps": 4}


def run(models: Mapping[str, Model] = MODELS, count: int = 6, steps: int = 25) -> list[dict[str, Any]]:
    """Rows of the tables of each model: of `count` clips of one sprite, and as many of two."""
    rows: list[dict[str, Any]] = []
    sources = {
        "inversion": ("edit.source=inversion", f"inversion.steps={steps}"),
        "noise": ("edit.source=noise", f"edit.steps={steps}"),
    }
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as name:
        for label, model in models.items():
            given = Given(Path(name) / label, model, steps)
            for source, words in sources.items():
                found = [given.alone(n, way, words) for n in range(count) for way in ("right", "up")]
                title = f"{label}: {len(found)} edits of one sprite, {steps} steps"
                rows.append({"table": title, "source": source, **interval(found), **means(found)})
            for source, words in sources.items():
                pairs = [given.parted(n, words) for n in range(count)]
                both = float(np.mean([min(one["followed"] for one in pair) for pair in pairs]))
                each = means([one for pair in pairs for one in pair])
                del each["hue"]  # the main hue of the picture, which only one of two can be
                rows.append({"table": f"{label}: {count} clips of two sprites", "source": source, "both": both, **each})
    return rows


class Given:
    """Clips of resting sprites, and their edits, in a folder."""

    def __init__(self, folder: Path, model: Model, steps: int) -> None:
        self.bench, self.folder, self.model = Bench(folder, model, steps), folder, model

    def alone(self, n: int, way: str, words: Sequence[str]) -> dict[str, float]:
        """The scores of a clip whose sprite is told to go a way."""
        subject = self.subject(n)
        clip, begun = self.written(f"alone-{n}", self.scene(subject, n), [subject])
        aim = {"direction": way, "speed": SPEED}
        return self.bench.seen(begun[0], self.bench.edited(clip, begun[0].folder, str(subject), [aim], words), way)

    def parted(self, n: int, words: Sequence[str]) -> list[dict[str, float]]:
        """The scores of both sprites of a clip, the left told to go left and the right one right."""
        some = [self.subject(n), self.subject(n + 2, ground="")]
        off = APART / 64 * self.model.width
        scene = clips.joined(self.scene(some[0], n), self.scene(some[1], n + 50), (-off, 0.0))
        clip, begun = self.written(f"parted-{n}", scene, some)
        ways = "left", "right"
        aims = [{"direction": way, "speed": SPEED} for way in ways]
        frames = self.bench.edited(clip, begun[0].folder, grammar.together(*some), aims, (*words, "masks.values=ids"))
        return [self.bench.seen(one, frames, way) for one, way in zip(begun, ways, strict=True)]

    def subject(self, n: int, ground: str | None = None) -> grammar.Subject:
        hue, shape = list(grammar.HUES)[n % len(grammar.HUES)], grammar.SHAPES[n % len(grammar.SHAPES)]
        ground = list(grammar.GROUNDS)[n % len(grammar.GROUNDS)] if ground is None else ground
        return grammar.Subject(shape=shape, hue=hue, texture="plain", direction="resting", ground=ground)

    def scene(self, subject: grammar.Subject, n: int) -> Scene:
        limits = clips.Limits(size=self.model.width, frames=self.model.frames)
        return clips.scene_of(subject, n, np.random.default_rng([n, 3]), limits)

    def written(self, name: str, scene: Scene, subjects: Sequence[grammar.Subject]) -> tuple[Path, list[Begun]]:
        """The clip of a scene, and what is true of each of its sprites; the folder holds the masks of all."""
        world, clip, to = World(scene), self.folder / f"{name}.mp4", self.folder / name
        frames = np.stack([world.frame(t) for t in range(world.frames)])
        if not clip.exists():
            for t in range(world.frames):
                # One object is white, as `masks.values` has it unless told otherwise; several have their numbers.
                ids = world.surfaces(t) + 1
                video.write_png(to / f"{t:05d}.png", (255 * (ids > 0) if len(subjects) == 1 else ids).astype(np.uint8))
            video.encode(clip, iter(frames), 24, crf=12)
        masks = (np.stack([world.mask(t, n) for t in range(world.frames)]) for n in range(len(subjects)))
        return clip, [Begun(one, 0, frames, mask, to) for one, mask in zip(subjects, masks, strict=True)]
