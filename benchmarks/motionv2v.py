"""MotionV2V (`edit=motionv2v`) beside `move`, `timetomove` and its controls: `retake evaluate motionv2v` on held-out
pairs of the sprite world, of which the edited clip is known exactly (docs/evaluation.md says what the values are).

*the target, coded* is the exact clip through the model's autoencoder: what a perfect sample would score. *Squared error
of v* is that of the network alone and with its branch, at four times of the schedule. Real clips are split at their
middle frame, as the paper does (its fig. 11): the first half, backwards, is the source, the second the target, and
every method is told the tracks of both; figures are means over clips. The last table is the time of a sample with and
without the branch, and of a training step beside a plain loop of forward, backward and AdamW on the same loss, in turn
in one run.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedded import REAL, through
from benchmarks.moca import Question, compared
from flows import graph
from flows.experiments import pair_scores
from flows.experiments.pairs import read_pairs
from flows.places import CODE
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import SpriteClip, open_clip
from retake.exchange.tracks import PointTracks, write_npz
from retake.formats import open_series
from retake.metrics.common.values import mean
from retake.metrics.region import psnr, ssim_map
from retake.networks.clip import load as load_clip
from retake.store import Store
from retake.synthetic.world import World
from retake.training.video_autoencoder import FRAMES

MODEL = ("model=embedded_dit",)
POINTS = tuple(f"points_{count}" for count in (1, 2, 4, 8, 16, 32, 64))
QUESTIONS = (
    Question("Methods", ("copy", "move", "timetomove", "motionv2v", "moved_area"), "move", 24),
    Question("Controls", ("motionv2v", "no_branch", "shuffled", "first_frame", "one_colour"), "motionv2v", 24),
    Question("Points", ("motionv2v", *POINTS), "motionv2v", 8),
    Question("Jitter (motionv2v: 0.2 sigmas)", ("motionv2v", "jitter_0", "jitter_1", "jitter_4"), "motionv2v", 8),
)
METHODS = {
    "copy": ("edit=move", "edited_tracks=program", "edited_tracks.edits=[{do: move, by: [0, 0]}]"),
    "move": ("edit=move",),
    "timetomove": ("edit=timetomove",),
    "motionv2v": ("edit=motionv2v",),
    "no branch": ("edit=motionv2v", "edit.scale=0"),
}
PACE = 8.0  # frames a second of the halves of real clips
SMOKE = {
    "questions": (Question("One pair", ("copy", "move"), "copy", 1),),
    "real": None,
    "steps": 1,
    "repeats": 1,
    "batch": 1,
    "count": 1,
}


def run(
    questions: Sequence[Question] = QUESTIONS,
    beside: Sequence[str] = (),
    real: Path | None = REAL,
    steps: int = 50,
    repeats: int = 5,
    batch: int = 8,
    count: int = 32,
) -> list[dict[str, Any]]:
    """Rows of all tables. beside: what is typed, too."""
    from retake.diffusion.loading.load import load

    backbone = load(settings(list(MODEL)).model)
    rows = [row for question in questions for row in compared(question, beside, "motionv2v", question.pairs > 8)]
    rows += coded(backbone, max(question.pairs for question in questions))
    if real is not None:
        rows += split_clips(sorted(real.glob("*.mp4")), beside)
    rows += known_clips(backbone, count)
    return [*rows, *sampled(backbone, steps, repeats), *trained(repeats, batch)]


def coded(backbone: Any, count: int) -> Iterator[dict[str, Any]]:
    """Scores of the exact targets through the autoencoder, by category."""
    rows = read_pairs(CODE / "params/evaluation/sprites/counterfactuals.csv")[:count]
    judge = load_clip("judge", "cpu")
    found: dict[str, list[dict[str, float | None]]] = {"all": []}
    for category, clip in ((row.category, open_clip(row.clip)) for row in rows):
        assert isinstance(clip, SpriteClip)
        world = World(clip.pair.target)
        frames = np.stack([world.frame(t) for t in range(world.frames)])
        scores = pair_scores.scores(clip.pair, through(backbone, frames[None])[0], judge)
        for kind in ("all", category):
            found.setdefault(kind, []).append(scores)
    for category, scores in found.items():
        values = {name: mean(known(one[name]) for one in scores) for name in pair_scores.DESCRIPTIONS}
        yield {"table": "The target, coded: means", "category": category, **values}


def known(value: float | None) -> float:
    return math.nan if value is None else value


# ---- real clips --------------------------------------------------------------------------------------------------


def split_clips(paths: Sequence[Path], beside: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Means over real clips of what each method makes of their split halves."""
    scores: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as name:
        for path in paths:
            folder = Path(name) / path.stem
            words, target = split(path, folder)
            for method, own in METHODS.items():
                taken = [word for word in words if not (method == "copy" and word.startswith("edited_tracks"))]
                edited = settings([*MODEL, *taken, *own, *(beside if method not in ("copy", "move") else ())])
                run = Local(Store(folder / "store"))
                made = graph.edit_graph(run, open_clip(str(folder / "source")), edited, "decode")
                result = open_series(run.store, made["decode"])
                shown = np.stack([result[t] for t in range(len(target))])
                error = np.square((shown.astype(np.float64) - target) / 255).mean()
                alike = statistics.fmean(ssim_map(a, b).mean() for a, b in zip(shown, target, strict=True))
                scores.setdefault(method, []).append((float(error), alike))
    for method, found in scores.items():
        l2, ssim = (statistics.fmean(values) for values in zip(*found, strict=True))
        yield {
            "table": f"Real clips split at their middle: {len(found)} clips",
            "method": method,
            "L2": l2,
            "PSNR of it, dB": psnr(l2),
            "SSIM": ssim,
        }


def split(path: Path, folder: Path) -> tuple[list[str], np.ndarray]:
    """Write the halves of a clip, small: settings that tell the tracks of both, and the frames of the second, uint8
    [F, 64, 64, 3]."""
    from retake.video import Selection, write_png

    folder.mkdir()
    last = 2 * FRAMES - 1
    whole = [rgb for _, rgb in islice(open_clip(str(path)).read(Selection(fps=PACE), (64, 64), 24.0), last)]
    whole += whole[-2::-1][: last - len(whole)]  # a short clip goes back from its end
    halves = {"source": whole[FRAMES - 1 :: -1], "target": whole[FRAMES - 1 :], "whole": whole}
    for name, frames in halves.items():
        for t, frame in enumerate(frames):
            write_png(folder / name / f"{t:03d}.png", frame)
    for t in range(FRAMES):
        write_png(folder / "nothing" / f"{t:03d}.png", np.zeros((64, 64), np.uint8))
    run = Local(Store(folder / "store"))
    tracking = settings(["tracks.queries=grid", f"tracks.frame={FRAMES - 1}", "tracks.reseed=0", "tracks.spacing=6"])
    made = graph.edit_graph(run, open_clip(str(folder / "whole")), tracking, "tracks", report=False)
    series = open_series(run.store, made["tracks"])
    xy, seen = dense(series, last)
    for name, order in (("source", range(FRAMES - 1, -1, -1)), ("target", range(FRAMES - 1, last))):
        times = list(order)
        blocks = lambda times=times: iter([(xy[times], seen[times])])  # noqa: E731
        write_npz(folder / f"{name}.npz", PointTracks(np.arange(xy.shape[1]), FRAMES, (64, 64), blocks))
    words = ["masks=given", f"masks.path={folder / 'nothing'}", "tracks=given", f"tracks.path={folder / 'source.npz'}"]
    words += ["edited_tracks=given", f"edited_tracks.path={folder / 'target.npz'}", "metrics.names=[]"]
    return words, np.stack(halves["target"])


def dense(series: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tracks of all frames, xy float32 [F, P, 2] and visible bool [F, P]; where a point is lost its last place."""
    ids = np.unique(np.concatenate([series.chunk(index)["ids"] for index in range(series.chunks())]))
    xy, seen = np.full((count, len(ids), 2), np.nan, np.float32), np.zeros((count, len(ids)), bool)
    for t in range(count):
        known, places, visible = series[t]
        columns = np.searchsorted(ids, known)
        xy[t, columns], seen[t, columns] = places, visible
    return xy, seen


# ---- loss ----------------------------------------------------------------------------------------------------------


def known_clips(backbone: Any, count: int) -> Iterator[dict[str, Any]]:
    """How well the network denoises clips of the kind that it was trained on, and the targets of pairs."""
    from benchmarks.branch_depth import HELD_OUT, TIMES, losses
    from benchmarks.motion_probe import drawn
    from benchmarks.overfit import coded as paired
    from benchmarks.overfit import told
    from retake.training import shipped

    base, branch = shipped.load("transformer"), shipped.load("control")
    with tempfile.TemporaryDirectory() as name:
        pairs = paired(Path(name), told(backbone, HELD_OUT, count))
    own = dict.fromkeys(pairs, drawn(backbone, count).latents)
    cases = {
        "clips of the kind it was trained on": (None, own),
        "targets of pairs": (None, pairs),
        "targets of pairs, with the branch": (branch, pairs),
    }
    for what, (beside, data) in cases.items():
        found = {f"t = {t}": error for t, error in zip(TIMES, losses(beside, base, data), strict=True)}
        yield {"table": f"Squared error of v, {count} clips, no words", "what": what, **found}


# ---- time --------------------------------------------------------------------------------------------------------


def sampled(backbone: Any, steps: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of a sample of one clip without and with a branch."""
    import torch

    from retake.diffusion.backbone import Condition
    from retake.diffusion.families.cogvideox.control import ControlBranch
    from retake.diffusion.sampling.ddim import noise, sample
    from retake.training.motionv2v import VIDEOS

    grid = backbone.grid(backbone.frames, backbone.height, backbone.width)
    said = backbone.condition([""])
    control = torch.zeros(1, grid.frames, VIDEOS * grid.channels, *grid[2:])
    both = Condition(*({**side, "control": control} for side in (said.positive, said.negative or {})))
    with tempfile.TemporaryDirectory() as folder:
        ControlBranch.of(backbone.parts.look("network"), VIDEOS).save_pretrained(folder)

        def sampling(condition: Any) -> None:
            sample(backbone, noise(0, range(grid.frames), grid[1:]), condition, steps=steps)

        def beside_branch() -> None:
            with backbone.controlled(Path(folder)):
                sampling(both)

        found = in_turn({"the model alone": lambda: sampling(said), "with its branch": beside_branch}, repeats)
    for what, seconds in found.items():
        yield {
            "table": f"Time of a sample, {backbone.frames} frames, {steps} steps",
            "what": what,
            "seconds": seconds,
            "to the model alone": seconds / found["the model alone"],
        }


def trained(repeats: int, batch: int) -> Iterator[dict[str, Any]]:
    """Seconds of a training step of the branch, by our loop and a plain one; steps at once."""
    import torch

    from retake.diffusion.families.cogvideox.control import ControlBranch
    from retake.training import motionv2v, shipped
    from retake.training.loop import Plan, Slice, train
    from retake.training.video_autoencoder import LATENT, SIDE

    base = shipped.load("transformer")
    channels = base.transformer.config.in_channels
    data = {name: torch.randn(16, LATENT, channels, SIDE, SIDE).half() for name in motionv2v.Told._fields}
    made = {name: ControlBranch.of(base.transformer, motionv2v.VIDEOS).train() for name in ("ours", "plain")}
    losses = {name: motionv2v.loss(one, base, data, batch, 0.5, 0, "cpu") for name, one in made.items()}
    optimiser = torch.optim.AdamW(made["plain"].parameters(), 1e-3)
    steps = 4

    def plain() -> None:
        for step in range(steps):
            losses["plain"](step)[0].backward()
            optimiser.step()
            optimiser.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(steps, 1e-3, muon=0.01, warmup=1)
        places = iter(Path(folder) / str(n) for n in range(repeats))

        def ours() -> None:
            train(next(places), made["ours"], losses["ours"], plan, Slice(), lambda line: None)

        found = in_turn({"a plain loop": plain, "ours: Muon, moving average, state and curve": ours}, repeats)
    for what, seconds in found.items():
        yield {
            "table": f"Time of a training step of the branch, {batch} pairs at once",
            "what": what,
            "seconds": seconds / steps,
            "to a plain loop": seconds / found["a plain loop"],
        }


def in_turn(what: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each, in turn, so that both see the machine alike."""
    seconds: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(repeats):
        for name, one in what.items():
            begun = time.perf_counter()
            one()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in seconds.items()}
