"""What the parts of IVEDiff's second training are worth (the paper's tables 2 to 6, on a small network): arms that
begin at one network of pictures and learn from the same clips, in the same order, for the same steps.

Judged on unseen clips of the sprite world whose object is hidden, and made anew from a picture of it: under its own
mask with depth (*texture transfer*), and under a rectangle without (*object modification*). *Warp error*: between
neighbouring frames along the true flow, where both see a point, inside what was hidden, x 1000 (published figures are
of whole frames and x 10). *PSNR*: to the clip itself, there. *Error of v*: of hidden cells, mean over t = 300, 500, 700
of 1000. Means over clips with 95 % intervals (bootstrap over clips, seeds averaged), and paired differences to the
frame-wise network.

*Cost*: seconds a frame of one evaluation under guidance, best of rounds in turn; and of a step of the second training,
from clips that were coded once, against one that codes them in every step, as a loop without a store does.

*Long clips*: `edit=ivediff` on clips of a few and of many frames, with windows that share 8 frames of 16, in fresh
processes: peaks of memory. *Seams*: warp error inside the mask along the true flow, between frames of which one is the
first or the last of a window, against all others.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.watched import watched
from flows import graph
from flows.places import PROJECT
from flows.runners import Local
from flows.settings.compose import settings
from retake.clip import open_clip
from retake.diffusion.families.ivediff.motion_reference import Base, Form
from retake.diffusion.families.ivediff.network import EditingNetwork
from retake.diffusion.sampling.windows import Windows
from retake.diffusion.schedule import Schedule
from retake.formats import open_series
from retake.metrics import warp_error
from retake.report.intervals import bootstrap
from retake.store import Store
from retake.synthetic.world import World
from retake.training import autoencoder, editing_clips, ivediff, judging, shipped
from retake.training.editing_clips import Clips
from retake.training.editing_samples import Hidden, filled, hidden
from retake.training.ivediff import Eyes, Masking
from retake.training.lessons import SCHEDULE
from retake.training.loop import Plan, Slice, averaged, train


class Arm(NamedTuple):
    """How the second training goes. steps: as a share of those of the run; 0: motion does not learn."""

    masking: Masking = Masking()
    carries: bool = True
    form: Form = "difference"
    base: Base = "flow"
    steps: float = 1.0
    shuffled: bool = False  # at test, flow is that of other frames


FRAME_WISE = "frame by frame"
ARMS = {
    FRAME_WISE: Arm(steps=0),
    "+ motion modules": Arm(Masking(0.0), carries=False),
    "+ masked modelling": Arm(carries=False),
    "+ motion reference": Arm(),
    "the same, flow of other frames at test": Arm(shuffled=True),
}
"""The paper's table 2, and its table 1's rows; and a control."""
MORE = {
    "nothing masked": Arm(Masking(0.0)),
    "25 % masked": Arm(Masking(0.25)),
    "50 % masked": Arm(Masking(0.5)),
    "the same cells in every frame": Arm(Masking(frame_wise=False)),
    "stride 1": Arm(Masking(strides=(1,))),
    "stride 2": Arm(Masking(strides=(2,))),
    "noisy latents masked (eq. 10 as it stands)": Arm(Masking(where="noise")),
    "offset learnt whole": Arm(base="learnt"),
    "eq. 6 as it stands": Arm(form="literal"),
}
"""Its tables 3 to 6, and the readings that it leaves open, for `run(arms={**ARMS, **MORE})`: hours of one core."""
MODEL = ("model=embedded_ivediff", "edit=ivediff")
KINDS = {"texture transfer": "object", "object modification": "rectangle"}
FRAMES = 8
HELD_OUT = editing_clips.SEED + 10_000_000
TIMES = (300, 500, 700)
SMOKE = {
    "arms": {FRAME_WISE: ARMS[FRAME_WISE], "ours": Arm(shuffled=True)},
    "seeds": 1,
    "steps": 1,
    "clips": 2,
    "judged_on": 2,
}
SMOKE |= {"levels": 1, "rounds": 1, "frames": (2, 3)}
LONG, BOX = "sprites:captioned:2003", "masks.box=[10,22,37,49]"


def run(
    arms: Mapping[str, Arm] = ARMS,
    seeds: int = 2,
    steps: int = 240,
    clips: int = 1_500,
    judged_on: int = 8,
    levels: int = 8,
    rounds: int = 5,
    frames: tuple[int, int] = (25, 100),
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Tables of both applications, of costs and of long clips. folder: keeps clips and arms; a run that was stopped
    goes on there."""
    with tempfile.TemporaryDirectory() as name:
        home = (folder or Path(name)) / version()[:12]
        vae = shipped.load("vae")
        eyes, encode = Eyes(vae, shipped.load("clip").vision_model, "cpu"), autoencoder.frame_by_frame(vae)
        editing_clips.render(home / "editing", clips, encode, 4)
        editing_clips.render(home / "held-out", judged_on, encode, 4, seed=HELD_OUT)
        data = Clips(editing_clips.shards(home / "editing", clips))
        unseen = Clips(editing_clips.shards(home / "held-out", judged_on))
        found: dict[str, list[dict[str, list[float]]]] = {}
        for seed in range(seeds):
            for label, arm in arms.items():
                if arm.steps == 0 and seed > 0:
                    continue
                place = home / f"{seed}-{'-'.join(map(str, arm._replace(shuffled=False)))}-{steps}-{clips}"
                network = taught(place, arm, eyes, data, round(steps * arm.steps), seed)
                file = home / f"judged-{place.name}-{arm.shuffled}-{judged_on}-{levels}.json"
                if not file.exists():
                    file.write_text(json.dumps(judged(network, eyes, unseen, arm.shuffled, levels)))
                found.setdefault(label, []).append(json.loads(file.read_text()))
                print(
                    seed, label, {k: round(float(np.mean(v)), 4) for k, v in found[label][-1].items()}, file=sys.stderr
                )
        title = f"{steps} steps of 3 windows out of {clips} clips, {seeds} seeds, {judged_on} unseen clips"
        return [*rows(found, title), *costs(eyes, data, rounds), *long_clips(*frames)]


def version() -> str:
    """Digest of the network of pictures that ships, around which arms learn."""
    weights = sorted((shipped.HERE / "embedded_ivediff").glob("*/*.safetensors"))
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in weights if "motion" not in path.parent.name)
    ).hexdigest()


def taught(folder: Path, arm: Arm, eyes: Eyes, data: Clips, steps: int, seed: int) -> EditingNetwork:
    """A network of clips around the one of pictures that ships, after so many steps; the mean of its weights."""
    torch.manual_seed(seed)
    adapter = shipped.load("motion").unet.state_dict()
    image = shipped.load("ivediff_image")
    network = ivediff.clip_network(image, adapter, arm.form, arm.base, arm.carries).train()
    if steps:
        plan = Plan(steps, 5e-4, muon=0.005, warmup=40, cooldown=0.8, average=0.98)
        loss = ivediff.clip_loss(network, eyes, data, arm.masking, 3, 0.6, seed)
        train(folder, network, loss, plan, Slice(), lambda line: None)
        averaged(folder, network)
    return network.eval().requires_grad_(False)


def judged(network: EditingNetwork, eyes: Eyes, data: Clips, shuffled: bool, levels: int) -> dict[str, list[float]]:
    """Values by clip: "warp error, texture transfer" and the like."""
    found: dict[str, list[float]] = {}
    for n in range(len(data)):
        some = data.take([n], range(FRAMES))
        for name, kind in KINDS.items():
            given = hidden(network, eyes, some, kind)
            if shuffled:
                order = torch.from_numpy(1 + np.random.default_rng(n).permutation(FRAMES - 1))
                flow = given.inputs["flow"]
                given.inputs["flow"] = torch.cat([flow[:, :1], flow[:, order]], 1)
            z = filled(network, eyes, given, levels, 3.0, n)
            shown = judging.decoded(eyes.vae, z)[0]
            inside = given.area[0].numpy() > 0
            truth, made = (x.astype(np.float64) / 255 for x in (some.frames[0].numpy(), shown))
            error = np.square(made - truth).mean(-1)[inside].mean() if inside.any() else float("nan")
            values = {
                "warp error": 1000 * warped(HELD_OUT + n, shown, inside),
                "PSNR": -10 * float(np.log10(max(error, 1e-6))),
                "error of v": error_of_v(network, eyes, given, some.latents.float(), n),
            }
            for what, value in values.items():
                found.setdefault(f"{what}, {name}", []).append(value)
    return found


def warped(seed: int, shown: np.ndarray, inside: np.ndarray) -> float:
    """Mean warp error inside what was hidden, along the true flow of the clip of that seed."""
    scene, _ = editing_clips.drawn(seed)
    world, errors = World(scene), []
    for t in range(len(shown) - 1):
        flow = world.flow(t, t + 1), world.flow(t + 1, t)
        errors.append(warp_error.pair(shown[t], shown[t + 1], *flow, inside[t])[1])
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else float("nan")


@torch.inference_mode()
def error_of_v(network: EditingNetwork, eyes: Eyes, given: Hidden, x0: Tensor, seed: int) -> float:
    """Of hidden cells."""
    schedule, mask = Schedule.from_config(SCHEDULE), given.inputs["mask"]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    told = ivediff.told_of(network, eyes, given.pictures, torch.ones(len(x0), dtype=torch.bool))
    errors = []
    for t in TIMES:
        at = torch.full((len(x0),), t)
        made = network(
            schedule.noised(x0, noise, at), at[:, None].expand(x0.shape[:2]).float(), {**given.inputs, **told}
        )
        square = (made - schedule.target(x0, noise, at)).square() * mask
        errors.append(float(square.sum() / (mask.sum() * x0.shape[2]).clamp(min=1)))
    return float(np.mean(errors))


def rows(found: Mapping[str, Sequence[Mapping[str, list[float]]]], title: str) -> Iterator[dict[str, Any]]:
    """A table an application: means over clips of means over seeds, and differences to the first arm."""
    by = {label: {what: np.mean([one[what] for one in some], 0) for what in some[0]} for label, some in found.items()}
    first = by[next(iter(by))]
    for name in KINDS:
        for label, values in by.items():
            row: dict[str, Any] = {"table": f"{name[0].upper()}{name[1:]}: {title}", "arm": label}
            for what in ("warp error", "PSNR", "error of v"):
                own, base = values[f"{what}, {name}"], first[f"{what}, {name}"]
                both = np.isfinite(own) & np.isfinite(base)
                row[what] = told(bootstrap(own[both].tolist()))
                if label != next(iter(by)):
                    row[f"{what}: difference"] = told(bootstrap((own - base)[both].tolist()), "+")
            yield row


def told(of: Mapping[str, Any], sign: str = "") -> str:
    if of["mean"] is None:
        return "-"
    mean, low, high = (format(of[name], f"{sign}.3g") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def costs(eyes: Eyes, data: Clips, rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds a frame of an evaluation, and of steps of training, best of rounds in turn."""
    image = shipped.load("ivediff_image")
    clip = ivediff.clip_network(copy.deepcopy(image), shipped.load("motion").unet.state_dict()).eval()
    given = hidden(clip, eyes, data.take([0], range(FRAMES)), "object")
    z, t = torch.randn(given.inputs["masked"].shape), torch.full((1, FRAMES), 500.0)

    def evaluated(carries: bool, frame_wise: bool) -> Any:
        def work() -> None:
            clip.propagates, clip.frame_wise = carries, frame_wise
            with torch.inference_mode():
                for yes in (True, False):
                    told = ivediff.told_of(clip, eyes, given.pictures, torch.tensor([yes]))
                    clip(z, t, {**given.inputs, **told})
            clip.propagates, clip.frame_wise = True, False

        return work

    loss = ivediff.clip_loss(clip, eyes, data, Masking(), 3, 0.6, 0)
    step = iter(range(1_000_000))
    shown = data.take([0, 1, 0]).frames[:, : 2 * ivediff.FRAMES + 1].numpy()
    code = autoencoder.frame_by_frame(eyes.vae)
    works = {
        "frame by frame": evaluated(False, True),
        "with motion modules": evaluated(False, False),
        "with the motion reference network, too": evaluated(True, False),
        "step": lambda: loss(next(step))[0].backward(),
        "coding": lambda: code(shown),
    }
    best = dict.fromkeys(works, np.inf)
    for _ in range(rounds):
        for label, work in works.items():
            begun = time.perf_counter()
            work()
            best[label] = min(best[label], time.perf_counter() - begun)
    base = best["frame by frame"]
    for label in list(works)[:3]:
        row = {"table": "Cost of an evaluation under guidance", "network": label, "s a frame": best[label] / FRAMES}
        yield row | {"to frame by frame": best[label] / base}
    for label, seconds in (("from coded clips", best["step"]), ("coding in every step", best["step"] + best["coding"])):
        row = {"table": "Cost of a step of the second training, 3 windows", "step": label, "s": seconds}
        yield row | {"to coded": seconds / best["step"]}


def long_clips(short: int, long: int) -> Iterator[dict[str, Any]]:
    """Memory and seams."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as name:
        peaks = {}
        for count in (short, long):
            picture = f"edit.reference={PROJECT}/params/evaluation/sprites/all-00.png"
            order = ["edit", f"{LONG}:{long}", f"{name}/{count}", str(count), *MODEL, picture, BOX, "edit.steps=4"]
            watched("benchmarks.stages", ["prepare", *order])
            peaks[count] = watched("benchmarks.stages", ["measure", *order])["both"]
        yield {
            "table": f"Long clips: peak of the edit in {long} frames, against {short}",
            "peak, MB": peaks[long] / 1e6,
            f"peak on {short} frames, MB": peaks[short] / 1e6,
            "ratio": peaks[long] / peaks[short],
        }
        at, others = seams(Path(name) / "seams", long)
        yield {
            "table": f"Seams: warp error inside the mask x 1000, {long} frames",
            "where a window begins or ends": 1000 * at,
            "elsewhere": 1000 * others,
            "ratio": at / others if others else float("nan"),
        }


def seams(store: Path, count: int, steps: int = 25) -> tuple[float, float]:
    """Mean warp errors of an edit between frames where a window begins or ends, and between all others."""
    clip = open_clip(f"{LONG}:{count}")
    picture = f"edit.reference={PROJECT}/params/evaluation/sprites/all-00.png"
    p = settings([*MODEL, picture, f"edit.steps={steps}", "masks=given", "masks.own=true"], clip.spec)
    runner = Local(Store(store, lambda line: None))
    made = graph.edit_graph(runner, clip, p, until="decode", report=False)
    shown, world = open_series(runner.store, made["decode"]), clip.world  # type: ignore[attr-defined]
    spans = Windows(count, 16, p.edit.overlap).spans
    edges = {span.start - 1 for span in spans[1:]} | {span.stop - 1 for span in spans[:-1]}
    errors: dict[bool, list[float]] = {True: [], False: []}
    for t in range(count - 1):
        flow = world.flow(t, t + 1), world.flow(t + 1, t)
        errors[t in edges].append(warp_error.pair(shown[t], shown[t + 1], *flow, world.mask(t, 0))[1])
    return tuple(float(np.nanmean(errors[where])) if errors[where] else 0.0 for where in (True, False))  # type: ignore[return-value]
