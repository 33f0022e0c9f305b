"""Clips in fours that differ in one thing alone: shape, hue, texture, direction or speed.

Each clip of a four is drawn of the same numbers but for the one word, and is shown to a denoiser under the same noise
at the same time. What the word changes in the picture is then all that differs within the four, so that its share of
the gradient, a few hundredths in a batch of strangers, does not drown in what differs between strangers. And the rise
of the loss when captions are exchanged within a four says how well one word is heard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from retake.machine.disk import atomic_path
from retake.synthetic import clips, grammar
from retake.synthetic.grammar import Subject
from retake.synthetic.motion import Pose
from retake.synthetic.pairs import pair
from retake.synthetic.scene import Scene
from retake.synthetic.world import World
from retake.training.shards import missing

FOUR = 4
SHARD = 250
APART = 0.2  # from the middle: two objects of a clip, in widths of the frame
SECOND_RESTS = 0.3  # share of second objects that do not move
VALUES: dict[str, tuple[str, ...]] = {
    "shape": grammar.SHAPES,
    "hue": tuple(grammar.HUES),
    "texture": grammar.TEXTURES,
    "direction": grammar.DIRECTIONS,
    "speed": (*grammar.SPEEDS, "resting"),
}


@dataclass(frozen=True)
class Kind:
    """What fours are drawn of. shares: of the attributes in which they differ. seed: of the first. frames: of each
    clip, drawn by chance; None keeps them all. radius: of sprites, in widths of the frame; they are without texture
    then, and the camera rests; None leaves both to the world. jitter: they rest upright, so far from the middle at
    most, in widths of the frame; None lets them go where they say. turned: sprites of a radius head where they go, or
    stay upright. paired: another object beside, of another hue, which is named, too; the four differs in the first or
    in the second. counterfactual: source and target of two pairs of pairs.py in place of all this, uncaptioned."""

    shares: Mapping[str, float]
    seed: int
    frames: int | None = None
    radius: tuple[float, float] | None = None
    jitter: float | None = None
    turned: bool = True
    paired: bool = False
    counterfactual: bool = False


PLAIN = {
    "upright": Kind({"shape": 0.7, "hue": 0.3}, 11_000_000, 1, (0.25, 0.3), jitter=0.03),
    "loose": Kind({"shape": 0.8, "hue": 0.2}, 12_000_000, 1, (0.18, 0.33), jitter=0.15),
    "plain": Kind({"shape": 0.55, "direction": 0.3, "hue": 0.15}, 10_000_000, 2, (0.2, 0.33)),
}
"""Stills to begin with. A sprite heads where it moves, and while neither its heading nor its place can be seen, shapes
hardly differ; those of upright ones near the middle do from the first."""


@dataclass(frozen=True)
class Fours:
    """latents float16 [G, 4, F, C, h, w], scaled; cells uint8 [G, 4, F, h, w]: share of each that the sprite covers, of
    255; references float16 [G, 4, P, D]; captions and attributes, [G][4] and [G]."""

    latents: Tensor
    cells: Tensor
    references: Tensor
    captions: list[list[str]]
    attributes: list[str]


def draw(seed: int, kind: Kind, limits: clips.Limits) -> tuple[str, list[str], list[Scene]]:
    """The attribute in which a four differs ("pair" where it is two pairs), its captions and its scenes."""
    if kind.counterfactual:
        told = [pair(2 * seed + n, width=limits.size, height=limits.size, frames=limits.frames) for n in range(2)]
        return "pair", [""] * FOUR, [scene for one in told for scene in (one.target, one.source)]
    attribute, subjects, scenes = alone(seed, kind, limits)
    if not kind.paired:
        return attribute, [str(subject) for subject in subjects], scenes
    rng = np.random.default_rng([seed, 25])
    free = [hue for hue in grammar.HUES if hue not in {subject.hue for subject in subjects}]
    moving = rng.uniform() >= SECOND_RESTS
    other = Subject(
        shape=str(rng.choice(grammar.SHAPES)),
        hue=str(rng.choice(free)),
        texture=str(rng.choice(grammar.TEXTURES)),
        direction=str(rng.choice(grammar.DIRECTIONS)) if moving else "resting",
        speed=str(rng.choice(grammar.SPEEDS)) if moving else "",
    )
    beside = clips.scene_of(other, seed + 1, rng, limits)
    angle = rng.uniform(0, 2 * math.pi)
    apart = (APART * limits.size * math.cos(angle), APART * limits.size * math.sin(angle))
    both = [clips.joined(scene, beside, apart) for scene in scenes]
    said = other if rng.uniform() < clips.SAID["texture"] else replace(other, texture="")
    if rng.uniform() < 0.5:
        return attribute, [grammar.together(subject, said) for subject in subjects], both
    turned = [(replace(said, ground=subject.ground), replace(subject, ground="")) for subject in subjects]
    return attribute, [grammar.together(first, second) for first, second in turned], both


def alone(seed: int, kind: Kind, limits: clips.Limits) -> tuple[str, list[Subject], list[Scene]]:
    """The attribute in which a four of one object differs, its captions' subjects (what is left unsaid left out) and
    its scenes."""
    rng = np.random.default_rng([seed, 21])
    attribute = str(rng.choice(list(kind.shares), p=np.array(list(kind.shares.values())) / sum(kind.shares.values())))
    resting = attribute not in ("direction", "speed") and rng.uniform() < clips.RESTING
    one = Subject(
        shape=str(rng.choice(grammar.SHAPES)),
        hue=str(rng.choice(list(grammar.HUES))),
        texture=str(rng.choice(grammar.TEXTURES)) if kind.radius is None else "plain",
        direction="resting" if resting else str(rng.choice(grammar.DIRECTIONS)),
        speed="" if resting else str(rng.choice(grammar.SPEEDS)),
        ground=str(rng.choice(list(grammar.GROUNDS))),
    )
    said = {name: rng.uniform() < share for name, share in clips.SAID.items()}
    drawn = int(rng.integers(1 << 31))
    radius = float(rng.uniform(*(kind.radius or clips.RADIUS))) * limits.size
    place = (limits.size - 1) / 2 + rng.uniform(-1, 1, 2) * (kind.jitter or 0.0) * limits.size
    upright = (Pose(float(place[0]), float(place[1])),) * limits.frames
    subjects, scenes = [], []
    for value in rng.permutation(VALUES[attribute])[:FOUR]:
        value = str(value)
        if value == "resting":
            subject = replace(one, direction="resting", speed="")
        else:
            subject = replace(one, **{attribute: value})
        scene = clips.scene_of(subject, seed, np.random.default_rng(drawn), limits)
        if kind.radius is not None:
            moves = zip(scene.sprites[0].poses, scene.camera, strict=True)  # the camera's share is put back
            poses = tuple(pose._replace(x=pose.x + view.x, y=pose.y + view.y) for pose, view in moves)
            poses = poses if kind.turned else tuple(pose._replace(angle=0.0) for pose in poses)
            poses = poses if kind.jitter is None else upright
            sprite = replace(scene.sprites[0], radius=radius, poses=poses)
            scene = replace(scene, sprites=(sprite,), ground="sky", camera=(Pose(),) * limits.frames)
        scenes.append(scene)
        tells = kind.jitter is None and (said["direction"] or attribute in ("direction", "speed"))
        subjects.append(
            replace(
                subject,
                texture=subject.texture if said["texture"] or attribute == "texture" else "",
                direction=subject.direction if tells else None,
                ground=subject.ground if said["ground"] else "",
            )
        )
    return attribute, subjects, scenes


class Four(NamedTuple):
    """One of `Fours`."""

    latents: Tensor
    cells: Tensor
    references: Tensor
    captions: list[str]
    attribute: str


Encode = Callable[[NDArray[np.uint8]], Tensor]
"""Frames uint8 [4, F, H, W, 3] to scaled latents [4, f, C, h, w], f frames for F as `Fours` counts them."""


@dataclass(frozen=True)
class Coder:
    """How clips become what denoisers read. portray: portraits uint8 [4, H, W, 3] to states [4, P, D], or None."""

    encode: Encode
    portray: Encode | None
    limits: clips.Limits


def shards(folder: Path, name: str, count: int) -> list[Path]:
    return [folder / f"{name}-{first:06d}.safetensors" for first in range(0, count, SHARD)]


def render(
    folder: Path,
    name: str,
    kind: Kind,
    count: int,
    coder: Coder,
    until: float = math.inf,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Render `count` fours shard by shard; those that are there are kept. until, share: as in
    shards.missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, numbers in missing(shards(folder, name, count), count, SHARD, until, share):
        with atomic_path(path) as part:
            write(part, [one(kind.seed + n, kind, coder) for n in numbers])


def one(seed: int, kind: Kind, coder: Coder) -> Four:
    """The four of a seed."""
    attribute, captions, scenes = draw(seed, kind, coder.limits)
    whole, rng = coder.limits.frames, np.random.default_rng([seed, 22])
    at = np.arange(whole) if kind.frames is None else np.sort(rng.choice(whole, kind.frames, replace=False))
    worlds = [World(scene) for scene in scenes]
    frames = np.stack([[world.frame(int(t)) for t in at] for world in worlds])
    masks = np.stack([[world.surfaces(int(t)) >= 0 for t in at] for world in worlds])
    with torch.inference_mode():
        latents = coder.encode(frames).half()
        states = torch.zeros(FOUR, 0, 0, dtype=torch.float16)
        if coder.portray is not None:
            states = coder.portray(np.stack([clips.portrait(scene, size=coder.limits.size) for scene in scenes])).half()
    return Four(latents, covered(masks, latents), states, captions, attribute)


def covered(masks: NDArray[np.bool_], latents: Tensor) -> Tensor:
    """How much of each cell of latents [4, f, C, h, w] masks [4, F, H, W] cover, of 255. Where f is less than F, the
    first latent frame is the first frame, the others are of equally many."""
    share = torch.from_numpy(masks).float()
    share = F.adaptive_avg_pool2d(share, (latents.shape[-2], latents.shape[-1]))
    if latents.shape[1] < share.shape[1]:
        rest = share[:, 1:].unflatten(1, (latents.shape[1] - 1, -1)).mean(2)
        share = torch.cat([share[:, :1], rest], 1)
    return (255 * share).round().byte()


def write(path: Path, fours: Sequence[Four]) -> None:
    tensors = {
        "latents": torch.stack([four.latents for four in fours]),
        "cells": torch.stack([four.cells for four in fours]),
        "references": torch.stack([four.references for four in fours]),
    }
    told = {
        "captions": json.dumps([four.captions for four in fours]),
        "attributes": json.dumps([four.attribute for four in fours]),
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, told)


def read(folder: Path, name: str, count: int) -> Fours:
    """The first `count` fours. Raises FileNotFoundError when they have not all been rendered."""
    parts: dict[str, list[Tensor]] = {"latents": [], "cells": [], "references": []}
    captions: list[list[str]] = []
    attributes: list[str] = []
    for path in shards(folder, name, count):
        with safe_open(path, "pt") as file:
            for key, kept in parts.items():
                kept.append(file.get_tensor(key))
            captions += json.loads(file.metadata()["captions"])
            attributes += json.loads(file.metadata()["attributes"])
    whole = {key: torch.cat(kept) for key, kept in parts.items()}
    return Fours(**whole, captions=captions, attributes=attributes)
