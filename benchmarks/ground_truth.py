"""How near the priors and `propagate` come to the truth, in the sprite world, where the truth is known.

Clips: the scenes still, drift, zoom, cross and fast, 320x180, 48 frames, three seeds each; every figure is the mean
over the seeds. The only prompt is the object's true box on frame 0, moved outwards by 10 % of its size on each side.

Flow, masks and tracks are measured against what the world says. The edit is measured against the world rendered again
with the reference picture as the sprite's texture, inside the sprite's true mask. Its peers, in the same run: the
picture stretched over the mask's box in every frame, the picture pasted where it was on frame 0 (both through our
masks), and the source left as it is; and `propagate` itself on the world's true flow, masks and tracks, which tells the
method's own error from that of the priors. `affine alone` is `propagate` with edit.residual=0.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import box_paste, static_paste
from benchmarks.series import KeptFrames, true_priors
from flows import graph
from flows.runners import Local
from flows.settings.compose import Settings, settings
from retake.clip import SpriteClip
from retake.formats import FlowSeries, RegionSeries, TrackSeries, open_series
from retake.imaging.colour.coding import VIEW
from retake.imaging.composite import composite
from retake.methods import Inputs, Patch, propagate
from retake.store import Store
from retake.synthetic import World, reference_image
from retake.video import write_png

SCENES = ("still", "drift", "zoom", "cross", "fast")
SEEDS = (0, 1, 2)
SPRITE = 0
NEAR = 2  # px
INTERIOR = 4  # px that a pixel must be from the true mask's edge to count as interior

Scores = dict[str, float]
SMOKE = {"scenes": ("captioned",), "seeds": (0,)}  # 16 frames of 64x64


def run(scenes: Sequence[str] = SCENES, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """Rows of five tables; a row is a scene."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for scene in scenes:
        clips = [measure(f"sprites:{scene}:{seed}", seed) for seed in seeds]
        for table in clips[0]:
            means = {name: mean(clip[table][name] for clip in clips) for name in clips[0][table]}
            rows.setdefault(table, []).append({"table": table, "scene": scene, **means})
    return [row for table in rows.values() for row in table]


def measure(spec: str, seed: int) -> dict[str, Scores]:
    """All scores of one clip, by table."""
    clip = SpriteClip(spec)
    world: World = clip.world
    picture = reference_image("patchwork", 256, seed)[..., :3]
    exact = world.with_sprite_texture(SPRITE, picture)
    truth = [exact.frame(t) for t in range(world.frames)]
    inside = [world.mask(t, SPRITE) for t in range(world.frames)]
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder:
        scratch = Path(folder)
        write_png(scratch / "picture.png", picture)
        write_png(scratch / "first.png", truth[0])
        write_png(scratch / "last.png", truth[-1])
        run = Local(Store(scratch / "store"))
        chosen = (f"masks.box={loosened(world)}", "edit.fit=stretch", "metrics.names=[]")
        carried = [*chosen, f"edit.reference={scratch / 'picture.png'}"]
        one = [*chosen, f"edit.anchors={{0: {scratch / 'first.png'}}}"]
        two = [
            *chosen,
            f"edit.anchors={{0: {scratch / 'first.png'}, {world.frames - 1}: {scratch / 'last.png'}}}",
        ]
        p, alone = settings(carried), settings([*carried, "edit.residual=0"])
        made = graph.edit_graph(run, clip, p, "decode")
        open_ = {name: open_series(run.store, artifact) for name, artifact in made.items()}
        source = list(open_["frames"])

        def score(frames: Iterable[np.ndarray]) -> Scores:
            return score_edit(truth, inside, frames)

        def final(overrides: list[str]) -> list[np.ndarray]:
            return list(open_series(run.store, graph.edit_graph(run, clip, settings(overrides), "decode")["decode"]))

        edits = {
            "propagate": score(open_["decode"]),
            "affine alone": score(final([*carried, "edit.residual=0"])),
            "propagate, true priors": score(laid(source, edited(world, source, p, scratch))),
            "affine alone, true priors": score(laid(source, edited(world, source, alone, scratch))),
            "box paste": score(laid(source, [box_paste(open_["region"], picture)])),
            "static paste": score(laid(source, [static_paste(open_["region"], picture)])),
            "source": score(source),
        }
        anchors = {"one": final(one), "two": final(two)}
        ends = slice(world.frames // 2, None)
        return {
            "Optical flow (dis, medium)": score_flow(world, open_["optical_flow"]),
            "Masks (grabcut) and tracks (lucas_kanade)": score_masks(inside, open_["region"])
            | score_tracks(world, open_["tracks"]),
            "Edit: PSNR inside the true mask, dB (higher is better)": {name: s["psnr"] for name, s in edits.items()},
            f"Edit: PSNR {INTERIOR} px and more inside the true mask, dB": {n: s["interior"] for n, s in edits.items()},
            "Edit: mean absolute colour error inside the true mask, of 255": {n: s["error"] for n, s in edits.items()},
            "Hand-edited frames (exact render) as anchors: PSNR inside the true mask, dB": {
                "first frame": score(anchors["one"])["psnr"],
                "first and last": score(anchors["two"])["psnr"],
                "first frame, second half": score_edit(truth[ends], inside[ends], anchors["one"][ends])["psnr"],
                "first and last, second half": score_edit(truth[ends], inside[ends], anchors["two"][ends])["psnr"],
            },
        }


def loosened(world: World, by: float = 0.1) -> list[float]:
    """The sprite's true box on frame 0, each side moved outwards by a fraction of the box's size, kept in the frame."""
    box = world.box(0, SPRITE)
    assert box is not None
    dx, dy = by * (box[2] - box[0]), by * (box[3] - box[1])
    return [
        max(0.0, box[0] - dx),
        max(0.0, box[1] - dy),
        min(float(world.width), box[2] + dx),
        min(float(world.height), box[3] + dy),
    ]


def edited(world: World, source: list[np.ndarray], p: Settings, scratch: Path) -> list[Patch]:
    """`propagate` on the world's own flow, masks and tracks."""
    frames = KeptFrames(source, [t / world.fps for t in range(world.frames)], world.fps)
    inputs = Inputs(frames, scratch)
    return list(propagate.edit(None, None, true_priors(world), inputs, p.edit, np.random.default_rng(0)))


def laid(source: list[np.ndarray], patches: list[Patch]) -> list[np.ndarray]:
    """Patches over the source, as the decode stage does it at working size."""
    edits = [(np.array(p.box), rgb, alpha) for p in patches for rgb, alpha in zip(p.rgb, p.alpha, strict=True)]
    height, width = source[0].shape[:2]
    return [composite([rgb], VIEW, edit, (width, height))[0] for rgb, edit in zip(source, edits, strict=True)]


def score_flow(world: World, flow: FlowSeries) -> Scores:
    """End-point error in pixels over pixels that the other frame shows; precision and recall of those it hides.

    Occlusion is also scored with NEAR px to spare and NEAR px off the frame's border: hidden slivers are often
    narrower than a pixel.
    """
    errors: dict[str, list[np.ndarray]] = {"forward": [], "backward": []}
    on_sprite = []
    exact, near = Tally(), Tally()
    off_border = np.zeros((world.height, world.width), bool)
    off_border[NEAR:-NEAR, NEAR:-NEAR] = True
    for t in range(len(flow)):
        for way, a, b, ours, hidden in (
            ("forward", t, t + 1, flow.forward(t), flow.occluded_forward(t)),
            ("backward", t + 1, t, flow.backward(t), flow.occluded_backward(t)),
        ):
            away = np.linalg.norm(ours - world.flow(a, b), axis=-1)
            covered = world.occlusion(a, b)
            errors[way].append(away[~covered])
            on_sprite.append(away[~covered & world.mask(a, SPRITE)])
            exact.add(hidden, covered, hidden & covered, hidden & covered)
            hidden, covered = hidden & off_border, covered & off_border
            near.add(hidden, covered, hidden & widened(covered), covered & widened(hidden))
    every = np.concatenate(errors["forward"] + errors["backward"])
    return {
        "EPE forward, px": float(np.concatenate(errors["forward"]).mean()),
        "EPE backward, px": float(np.concatenate(errors["backward"]).mean()),
        "95th percentile, px": float(np.percentile(every, 95)),
        "EPE on the sprite, px": float(np.concatenate(on_sprite).mean()),
        "occlusion precision": exact.precision,
        "recall": exact.recall,
        f"precision, {NEAR} px to spare": near.precision,
        f"recall, {NEAR} px to spare": near.recall,
    }


@dataclass
class Tally:
    """Counts of pixels that were claimed, that are true, and that are right about each."""

    claimed: int = 0
    true: int = 0
    claimed_right: int = 0
    true_found: int = 0

    def add(self, claimed: np.ndarray, true: np.ndarray, claimed_right: np.ndarray, true_found: np.ndarray) -> None:
        self.claimed, self.true = self.claimed + int(claimed.sum()), self.true + int(true.sum())
        self.claimed_right += int(claimed_right.sum())
        self.true_found += int(true_found.sum())

    @property
    def precision(self) -> float:
        return self.claimed_right / self.claimed if self.claimed else float("nan")

    @property
    def recall(self) -> float:
        return self.true_found / self.true if self.true else float("nan")


def widened(mask: np.ndarray) -> np.ndarray:
    """A mask grown by NEAR px."""
    import cv2

    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * NEAR + 1,) * 2, np.uint8)) > 0


def score_masks(inside: Sequence[np.ndarray], masks: RegionSeries) -> Scores:
    """IoU with the true mask, over frames in which the object is seen or claimed to be."""
    overlaps = []
    for t, truth in enumerate(inside):
        ours = masks[t]
        if union := (ours | truth).sum():
            overlaps.append(float((ours & truth).sum() / union))
    return {"mask IoU": statistics.mean(overlaps), "least": min(overlaps), "last frame": overlaps[-1]}


def score_tracks(world: World, tracks: TrackSeries) -> Scores:
    """Distance to where the point under each track's first position truly is, where both say visible; precision and
    recall of visibility. From the frame after each track's first to the clip's end."""
    claims: dict[int, dict[int, np.ndarray]] = {}
    for t in range(len(tracks)):
        ids, xy, visible = tracks[t]
        for name, place in zip(ids[visible], xy[visible], strict=True):
            claims.setdefault(int(name), {})[t] = place
    births: dict[int, list[int]] = {}
    for name, places in claims.items():
        births.setdefault(min(places), []).append(name)
    errors, claimed, true, both = [], 0, 0, 0
    for birth, names in births.items():
        frames = range(birth + 1, world.frames)
        xy, seen = world.tracks(np.array([claims[name][birth] for name in names]), birth, frames)
        for column, name in enumerate(names):
            said = np.array([t in claims[name] for t in frames])
            agree = said & seen[:, column]
            ours = np.array([claims[name][t] for t in np.array(frames)[agree]]).reshape(-1, 2)
            errors.append(np.linalg.norm(ours - xy[agree, column], axis=-1))
            claimed, true, both = claimed + said.sum(), true + seen[:, column].sum(), both + agree.sum()
    every = np.concatenate(errors)
    return {
        "track error, px": float(every.mean()) if every.size else float("nan"),
        "track 95th percentile, px": float(np.percentile(every, 95)) if every.size else float("nan"),
        "visibility precision": float(both / claimed) if claimed else float("nan"),
        "visibility recall": float(both / true) if true else float("nan"),
    }


def score_edit(truth: Sequence[np.ndarray], inside: Sequence[np.ndarray], ours: Iterable[np.ndarray]) -> Scores:
    """Squared and absolute colour errors over all pixels of the true masks of a clip, pooled."""
    errors, deep = [], []
    for exact, mask, frame in zip(truth, inside, ours, strict=True):
        off = exact.astype(np.float32) - frame
        errors.append(off[mask])
        deep.append(off[interior(mask)])
    every, core = np.concatenate(errors), np.concatenate(deep)
    return {"psnr": psnr(every), "interior": psnr(core), "error": float(np.abs(every).mean())}


def interior(mask: np.ndarray) -> np.ndarray:
    """Pixels at least INTERIOR px inside a mask; the frame's border is no edge."""
    import cv2

    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > INTERIOR


def psnr(off: np.ndarray) -> float:
    """dB of 8-bit differences; NaN of none."""
    if off.size == 0:
        return float("nan")
    return float(10 * np.log10(255**2 / max(float(np.square(off).mean()), 1e-9)))


def mean(values: Iterable[float]) -> float:
    """Of those that exist."""
    known = [v for v in values if not np.isnan(v)]
    return statistics.mean(known) if known else float("nan")
