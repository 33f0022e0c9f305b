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
from retake.synthetic.scene import Scene
from retake.synthetic.world import World

CATEGORIES = ("hue", "shape", "texture", "all")
APPLICATION = "edit.application"
APPLICATIONS = {"texture_transfer": ("hue", "all"), "object_modification": ("shape", "all")}
"""Of IVEDiff, and the categories whose pictures serve them."""
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
        return clips.cutout(scene_of_picture(self.seed, self.target))

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


def scene_of_picture(seed: int, target: Subject) -> Scene:
    """What a mix's picture is cut out of."""
    return clips.scene_of(target, seed + 1, np.random.default_rng([seed, 18]), clips.Limits())


def exact(seed: int, looks: Subject, keeps_shape: bool) -> tuple[clips.Drawn, Scene]:
    """The clip of a seed, and what it is when its sprite looks as a mix's picture of `looks` (shape, hue, texture), in
    its own shape or in the picture's."""
    drawn = clips.draw(seed)
    own, shown = drawn.scene.sprites[0], scene_of_picture(seed, replace(drawn.subject, **said(looks))).sprites[0]
    changed = replace(own, hue=shown.hue, seed=shown.seed, texture=shown.texture)
    return drawn, replace(drawn.scene, sprites=(changed if keeps_shape else replace(changed, shape=shown.shape),))


def said(looks: Subject) -> dict[str, str]:
    """Of a subject's looks, what words say of them."""
    return {name: value for name in ("shape", "hue", "texture") if (value := getattr(looks, name))}


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


def triplets(found: list[Mix]) -> list[dict[str, str]]:
    """Rows of the sprite world's edition of the IVE-Benchmark: a clip, its exact mask, a picture and an application.
    Texture is taken from sprites of the same shape and of another, shape from sprites alike but for it and from others.
    """
    rows = []
    for mix in found:
        for application, sources in APPLICATIONS.items():
            if mix.category in sources:
                own = {name: value for name, value in mix.row().items() if name != "masks.box"}
                rows.append({**own, "id": f"{application}-{mix.id}", "category": application, APPLICATION: application})
    return sorted(rows, key=lambda row: row["id"].rpartition("-")[2])  # so that the first few are of every kind


def written(rows: list[dict[str, str]]) -> str:
    """CSV of rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
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
    (given.folder / "pairs.csv").write_text(written([mix.row() for mix in found]))
    (given.folder / "triplets.csv").write_text(written(triplets(found)))


if __name__ == "__main__":
    main()
