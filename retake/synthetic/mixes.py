"""Pairs of a clip and a picture to mix into its sprite, and the manifest of them.

    python -m retake.synthetic.mixes params/evaluation/sprites

A category says in what the picture differs from the sprite: hue, shape, texture, or all three. Every row knows the
words for both, and the box of the sprite in the first frame.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retake.synthetic import clips, grammar
from retake.synthetic.grammar import Subject
from retake.synthetic.world import World

CATEGORIES = ("hue", "shape", "texture", "all")
COUNT = 40
FIRST = 2_000  # seed of the first clip that is looked at; training draws from a million on
INSIDE = 3  # px that the sprite keeps from the frame's edge in the first frame, so that a box can stand around it
COLUMNS = (
    "id",
    "category",
    "clip",
    "masks.box",
    "edit.reference",
    "edit.reference_text",
    "edit.source_prompt",
    "edit.object",
    "edit.prompt",
)


@dataclass(frozen=True)
class Mix:
    """The sprite of `sprites:captioned:<seed>`, its box, and what is to be mixed into it."""

    id: str
    category: str
    seed: int
    subject: Subject
    box: tuple[int, int, int, int]
    target: Subject

    def picture(self) -> NDArray[np.uint8]:
        """The target cut out, uint8 [64, 64, 4]."""
        rng = np.random.default_rng([self.seed, 18])
        return clips.cutout(clips.scene_of(self.target, self.seed + 1, rng, clips.Limits()))

    def row(self) -> dict[str, str]:
        """Of the manifest; the picture stands beside it."""
        looks = Subject(self.target.shape, self.target.hue, self.target.texture)
        cells = (
            self.id,
            self.category,
            f"sprites:captioned:{self.seed}",
            str(list(self.box)),
            f"{self.id}.png",
            str(looks),
            str(self.subject),
            f"{self.subject.hue} {self.subject.shape}",
            str(self.target),
        )
        return dict(zip(COLUMNS, cells, strict=True))


def mixes(count: int = COUNT) -> Iterator[Mix]:
    """The first `count` mixes, the categories in turn, of clips in which the sprite moves."""
    made, seed = 0, FIRST - 1
    while made < count:
        seed += 1
        scene, subject, _ = clips.draw(seed)
        box = World(scene).box(0, 0)
        if subject.direction == "resting" or box is None:
            continue
        x0, y0, x1, y1 = box
        if min(x0, y0) < INSIDE or max(x1, y1) > scene.width - INSIDE:
            continue
        category = CATEGORIES[made % len(CATEGORIES)]
        wide = (x0 - 2, y0 - 2, x1 + 2, y1 + 2)
        yield Mix(
            f"{category}-{made // len(CATEGORIES):02d}", category, seed, subject, wide, changed(subject, category)
        )
        made += 1


def changed(subject: Subject, category: str) -> Subject:
    """The subject with the hue across the colour circle, the next shape or the next texture, or all three."""
    hues = sorted(grammar.HUES, key=grammar.HUES.__getitem__)
    hue = hues[(hues.index(subject.hue) + len(hues) // 2) % len(hues)]
    shape = grammar.SHAPES[(grammar.SHAPES.index(subject.shape) + 1) % len(grammar.SHAPES)]
    texture = grammar.TEXTURES[(grammar.TEXTURES.index(subject.texture) + 1) % len(grammar.TEXTURES)]
    new = {"hue": hue, "shape": shape, "texture": texture}
    return replace(subject, **(new if category == "all" else {category: new[category]}))


def manifest(found: list[Mix]) -> str:
    """CSV of mixes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(mix.row().values() for mix in found)
    return text.getvalue()


def main(arguments: list[str] | None = None) -> None:
    from retake.video import write_png

    parser = argparse.ArgumentParser(description="Write the manifest of sprite mixes and its pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    found = list(mixes(given.count))
    for mix in found:
        write_png(given.folder / f"{mix.id}.png", mix.picture())
    (given.folder / "pairs.csv").write_text(manifest(found))


if __name__ == "__main__":
    main()
