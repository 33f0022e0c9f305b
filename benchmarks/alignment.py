"""Twins of the embedded transformer that go on learning from the same clips of the sprite world, in the same order and
for the same steps, each aligned with something else, or with nothing (MoAlign's tables 3 and 4, on a small model).

*Flow*: a ridge regression from what leaves a block, clips noised to a share t of the schedule, to the true flow of a
token between the two tubes of its latent frame; fitted on half of the unseen clips, judged on the other half. End-point
error in pixels a frame, of a frame of 64, of all that the next tube shows, and at the aligned block of what moves
alone, too. A regression makes squares least, and most of these pictures rests: what tells no flow at all has a smaller
error of the first kind than any row. Rows say something against one another.
Means over seeds, and the largest difference of a seed from its mean. Three peers have nothing to teach: another clip's
motion, that of the same clip with its tubes in another order, and a random projection of the encoder in place of the
subspace. *Loss*: squared error of v on unseen clips, at the same four times under the same noise.

*Generation*: clips drawn by the twins of the first seed, not those of the peers. Direction, hue, shape and speed as
in `embedded`; *off the walls*: mean change of an object's velocity from frame to frame where it is away from the edges,
which in this world nothing causes, in pixels a frame; *the same*: correlation of the object with itself a frame later,
its motion removed. *The data*: the same clips as the world renders them, through the autoencoder.

*Memory*: what a step of the published transformers would take, counted on the meta device: one clip of 49 frames of 480
x 720 against VideoMAE's features at 160 x 240, half precision, AdamW in float32, blocks run again for gradients.

*Cost*: seconds of a step, forward and backward, in turn in one process; the last row computes latents and features of
its clips in every step, as a loop does that keeps nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.embedded import MODELS, sampled, through
from benchmarks.probes import told
from retake.diffusion.cost import measure
from retake.diffusion.families.cogvideox.transformer import states
from retake.diffusion.loading.load import load
from retake.diffusion.schedule import Schedule
from retake.networks.video_mae import VideoMAE
from retake.synthetic import detector, walls
from retake.synthetic.clips import Limits, render
from retake.training import alignment, motion_clips, scores, shipped, transformer, video_autoencoder
from retake.training.alignment import Aligned, How
from retake.training.lessons import SCHEDULE
from retake.training.loop import Plan, Slice, averaged, train
from retake.training.motion_clips import SCALE, Clips

ARMS = {
    "nothing": How("none"),
    "MoAlign: motion, soft relations": How(),
    "VideoREPA: all channels, margin": How("margin", "raw"),
    "REPA: all channels, cosine": How("cosine", "raw"),
    "another clip's motion": How(of="another"),
    "motion in another order": How(of="shuffled"),
    "a random projection": How(features="random"),
}
LONG: dict[str, Any] = {
    "arms": {"nothing": How("none"), "MoAlign, weight 0.5": How(), "MoAlign, weight 0.1": How(weight=0.1)},
    "seeds": 1,
    "steps": 2_400,
    "made": 0,
    "rounds": 0,
    "published": (),
}
"""Ten times as long, for `run`: 80 minutes of one core."""
NOTHING_TO_TEACH = tuple(ARMS)[-3:]
TIMES = (0.1, 0.3, 0.5, 0.7)
HELD_OUT = motion_clips.SEED + 20_000_000
PIXELS = motion_clips.LIMITS.size / SCALE / motion_clips.TUBE  # a frame, in a unit of flow
MOVES = 0.25  # pixels a frame
NEAR = 0.28  # of the side: as near to an edge as the largest sprite turns, and a step
SMOKE = {
    "arms": {"nothing": How("none"), "MoAlign": How()},
    "seeds": 1,
    "steps": 1,
    "clips": 2,
    "held_out": 4,
    "made": 2,
    "levels": 1,
    "rounds": 1,
    "published": (),
}


def run(
    arms: Mapping[str, How] = ARMS,
    seeds: int = 3,
    peer_seeds: int = 2,
    steps: int = 240,
    batch: int = 4,
    clips: int = 2_000,
    held_out: int = 200,
    made: int = 16,
    levels: int = 25,
    rounds: int = 6,
    published: Sequence[str] = ("cogvideox_2b", "cogvideox_5b"),
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Three tables; without clips to be made, or rounds, not all of them. folder: keeps clips and twins; a run that was
    stopped goes on from there."""
    with tempfile.TemporaryDirectory() as name:
        home = folder or Path(name)
        subspace = shipped.load("motion_subspace")
        encode = video_autoencoder.clip_by_clip(shipped.load("video_vae"))
        encoder = VideoMAE(shipped.load("video_mae").videomae, "embedded", torch.device("cpu"))
        motion_clips.render(home / "clips", clips, encode, encoder.clips)
        data = motion_clips.read(motion_clips.shards(home / "clips", clips))
        motion_clips.render(home / "held-out", held_out, encode, encoder.clips, seed=HELD_OUT)
        held = motion_clips.read(motion_clips.shards(home / "held-out", held_out))
        unseen = Unseen(*held.take(range(held_out)), held.captions)
        found: dict[str, list[dict[str, float]]] = {label: [] for label in arms}
        first: dict[str, Aligned] = {}
        for seed in range(seeds):  # a seed of every arm before the next: what is stopped can be compared
            for label, how in arms.items():
                if label in NOTHING_TO_TEACH and seed >= peer_seeds:
                    continue
                place = home / f"{seed}-{label}-{steps}x{batch}-{clips}-{held_out}"
                twin = taught(place, how, data, subspace, steps, seed, batch)
                found[label].append(judged(place / "judged.json", twin, unseen))
                if label not in NOTHING_TO_TEACH:
                    first.setdefault(label, twin)
                print(seed, label, found[label][-1], file=sys.stderr, flush=True)  # the run takes long
    title = f"{steps} steps of {batch} out of {clips} clips, {seeds} seeds ({peer_seeds} of the peers)"
    rows = [row for label in arms for row in averages(label, found, title)]
    still = dict.fromkeys((f"t {share}" for share in TIMES), f"{no_flow(unseen):.3f}")
    rows += [{"table": row["table"], "aligned with": "no flow told", **still} for row in rows[:1]]
    rows += generated(first, made, levels) if made else []
    rows += costs(data, subspace, encode, encoder, batch, rounds) if rounds else []
    return [*rows, *memory(published)]


class Unseen(NamedTuple):
    """Clips that are judged on: tensors of `Study` with a first axis, and captions."""

    latents: Tensor
    features: Tensor
    flow: Tensor
    seen: Tensor
    captions: list[str]


def judged(file: Path, twin: Aligned, unseen: Unseen) -> dict[str, float]:
    """Errors by block and time, "block 3 @ 0.1", and "loss"; kept in a file beside the twin."""
    if not file.exists():
        file.write_text(json.dumps({**probed(twin, unseen), "loss": loss(twin, unseen)}))
    return json.loads(file.read_text())


def taught(folder: Path, how: How, data: Clips, subspace: Any, steps: int, seed: int, batch: int) -> Aligned:
    """A twin after so many steps, the mean of its weights."""
    torch.manual_seed(seed)
    student = shipped.load("transformer").train().requires_grad_(True)
    twin = Aligned(student, alignment.width_of(how, data, subspace))
    plan = Plan(steps, 2e-4, muon=0.002, warmup=30, cooldown=0.8, average=0.98)
    train(folder, twin, alignment.loss(twin, data, subspace, how, batch, 0.5, seed, "cpu"), plan, Slice(), said)
    averaged(folder, twin)
    return twin.eval().requires_grad_(False)


def said(line: str) -> None:
    """Nobody reads it."""


def noised(x0: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Latents at a share of the schedule, their time, and what the network should say of them."""
    schedule = Schedule.from_config(SCHEDULE)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((len(x0),), round(share * schedule.length))
    return schedule.noised(x0, noise, t), t, schedule.target(x0, noise, t)


@torch.inference_mode()
def probed(twin: Aligned, data: Unseen) -> dict[str, float]:
    """End-point errors by block and time; of what moves at the aligned block."""
    x0, half = data.latents.float(), len(data.captions) // 2
    flow, shown = by_latent(data, twin.student.transformer.config.patch_size, x0.shape[-1])
    blocks = [n for n in (twin.block - 1, twin.block, twin.block + 1) if n < twin.student.transformer.config.num_layers]
    silent = twin.student.text(transformer.tokenised([""])).last_hidden_state
    found: dict[str, float] = {}
    for share in TIMES:
        z, t, _ = noised(x0, share)
        left: dict[int, list[Tensor]] = {n: [] for n in blocks}
        for some, when in zip(z.split(8), t.split(8), strict=True):
            times = when[:, None].expand(some.shape[:2])
            read = states(twin.student.transformer, some, times, silent.expand(len(some), -1, -1), blocks)
            for n in blocks:
                left[n].append(read[n][:, 1:].movedim(2, -1))  # without the first latent frame
        for n in blocks:
            tokens = torch.cat(left[n])
            known, asked = tokens[:half].flatten(0, 3), tokens[half:].flatten(0, 3)
            made = told(known, flow[:half].flatten(0, 3), asked)
            off = PIXELS * (made - flow[half:].flatten(0, 3)).norm(dim=1)
            seen = shown[half:].flatten()
            found[f"block {n} @ {share}"] = float(off[seen].mean())
            if n == twin.block:
                moves = seen & (PIXELS * flow[half:].flatten(0, 3).norm(dim=1) >= MOVES)
                found[f"block {n}, what moves @ {share}"] = float(off[moves].mean())
    return found


def by_latent(data: Unseen, patch: int, side: int) -> tuple[Tensor, Tensor]:
    """Flow [N, f - 1, h, w, 2] of the tokens of all latent frames but the first, from the first of a frame's two tubes
    to the second; and which tokens the second shows."""
    flow, seen = data.flow[:, ::2].float(), data.seen[:, ::2]
    by = flow.shape[-1] // (side // patch)
    small, shown = motion_clips.pooled(flow.flatten(0, 1), seen.flatten(0, 1), by)
    return small.unflatten(0, flow.shape[:2]).movedim(2, -1), shown.unflatten(0, flow.shape[:2])


@torch.inference_mode()
def loss(twin: Aligned, data: Unseen) -> float:
    """Squared error of v over `TIMES`, each clip with its caption."""
    x0, words, errors = data.latents.float(), transformer.tokenised(data.captions), []
    for share in TIMES:
        for z, t, v, tokens in zip(*(x.split(8) for x in (*noised(x0, share), words)), strict=True):
            errors.append(float((twin(z, t, tokens)[0] - v).square().mean()) * len(z))
    return sum(errors) / len(x0) / len(TIMES)


def averages(label: str, found: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> list[dict[str, Any]]:
    """Rows of the tables of flow and of that of losses: mean, and the largest difference of a seed from it; and by how
    much each seed's mean over the times is below that of its twin that is aligned with nothing."""
    ours, plain = found[label], found[next(iter(found))]
    blocks = dict.fromkeys(key.partition(" @ ")[0] for key in ours[0] if key != "loss")

    def over(keys: Sequence[str]) -> dict[str, str]:
        shown, below = {}, []
        for key in keys:
            values = [one[key] for one in ours]
            middle = float(np.mean(values))
            name = f"t {key.partition(' @ ')[2]}" if key != "loss" else key
            shown[name] = f"{middle:.3f} ± {max(abs(value - middle) for value in values):.3f}"
        for one, other in zip(ours, plain, strict=False):  # peers have fewer seeds
            below.append(f"{1 - sum(one[key] for key in keys) / sum(other[key] for key in keys):.1%}")
        return {**shown, "below nothing's, by seed": " / ".join(below)}

    rows = [
        {"table": f"Flow, {block}: {title}", "aligned with": label, **over([f"{block} @ {share}" for share in TIMES])}
        for block in blocks
    ]
    return [*rows, {"table": f"Denoising: {title}", "aligned with": label, **over(["loss"])}]


def no_flow(data: Unseen) -> float:
    """The end-point error of a probe that tells no flow, pixels a frame, on the half that is judged on."""
    half = len(data.captions) // 2
    flow, shown = by_latent(data, 2, data.latents.shape[-1])
    return float(PIXELS * flow[half:].norm(dim=-1)[shown[half:]].mean())


def generated(twins: Mapping[str, Aligned], made: int, levels: int) -> list[dict[str, Any]]:
    """A row for the data, through the autoencoder, and for what each twin draws."""
    backbone = load(MODELS["embedded_dit"])
    limits = Limits(frames=backbone.frames)
    between = [walls.draw(HELD_OUT + n, limits) for n in range(made)]
    subjects = scores.asked(made, 7)
    prompts = [*map(str, subjects), *(drawn.caption for drawn in between)]
    data = [*scores.rendered(subjects, 7, limits), *(render(drawn.scene) for drawn in between)]
    rows = [drawn_row("the data, coded", through(backbone, np.stack(data)), subjects)]
    network: Any = vars(backbone)["parts"].use("network")
    for label, twin in twins.items():
        network.load_state_dict(twin.student.transformer.state_dict())
        rows.append(drawn_row(label, sampled(backbone, prompts, levels, 6.0), subjects))
    return [{"table": f"Generation: {made} clips that say where to go, {made} that do not", **row} for row in rows]


def drawn_row(label: str, shown: np.ndarray, subjects: Sequence[Any]) -> dict[str, Any]:
    """Scores of clips, the first of which say where their objects go."""
    found = scores.score(shown[: len(subjects)], subjects)
    low, middle, high = found.speed
    return {
        "aligned with": label,
        "direction": found.direction,
        "hue": found.hue,
        "shape": found.shape,
        "in frames": found.present,
        "speed: quartiles": f"{low:.2f} / {middle:.2f} / {high:.2f}",
        "the same": found.same,
        "off the walls": scores.mean_of_known([off_the_walls(clip) for clip in shown]),
    }


def off_the_walls(clip: np.ndarray) -> float:
    """Mean change of an object's velocity where no wall acts, pixels a frame; NaN where it is never seen there."""
    centres, side = detector.read(clip).centres.copy(), clip.shape[2]
    inside = (np.minimum(centres, side - 1 - centres) >= NEAR * side).all(1)
    centres[~inside] = np.nan
    change = np.hypot(*np.diff(centres, n=2, axis=0).T)
    return float(np.nanmean(change)) if np.isfinite(change).any() else float("nan")


def costs(
    data: Clips, subspace: Any, encode: Any, encoder: VideoMAE, batch: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Seconds of a step, best of rounds in turn: with nothing, with MoAlign's alignment, and with it where latents and
    features are computed in every step, as a loop without a store does; what it renders is not counted."""
    losses = {}
    for label, how in (("nothing", How("none")), ("MoAlign", How())):
        torch.manual_seed(0)
        twin = Aligned(
            shipped.load("transformer").train().requires_grad_(True), alignment.width_of(how, data, subspace)
        )
        losses[label] = alignment.loss(twin, data, subspace, how, batch, 0.5, 0, "cpu")
    seeds = range(HELD_OUT, HELD_OUT + batch)
    shown = np.stack([render(motion_clips.drawn(seed).scene) for seed in seeds])
    best: dict[str, float] = {}
    for step in range(rounds):
        spent = {}
        for label, of in losses.items():
            begun = time.perf_counter()
            of(step)[0].backward()
            spent[label] = time.perf_counter() - begun
        begun = time.perf_counter()
        with torch.inference_mode():
            encode(shown)
            encoder.clips(shown[:, 1:])
        spent["coding"] = time.perf_counter() - begun
        best = {label: min(best.get(label, np.inf), value) for label, value in spent.items()}
    plain, ours, coding = best["nothing"], best["MoAlign"], best["coding"]
    for label, seconds in (
        ("nothing", plain),
        ("MoAlign, from the studied clips", ours),
        ("MoAlign, coding each clip in each step", ours + coding),
    ):
        row = {"table": f"Cost: a step of {batch}, forward and backward", "aligned with": label}
        yield row | {"s a step": seconds, "to nothing": seconds / plain}


def memory(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of the published transformers, whole and with a LoRA."""
    teacher, tokens = torch.empty(1, 24, 10, 15, 64, device="meta"), torch.zeros(1, 226, device="meta")
    for name in names:
        for label, lora in (("its own weights", None), ("a LoRA of rank 128", 128)):
            model, z = on_meta(name, lora)
            found = {of: value / 2**30 for of, value in alignment.needed(model, z, tokens, teacher)._asdict().items()}
            row = {"table": "Memory of a step, GiB", "model": name, "learns": label, **found}
            yield row | {"in all": sum(found.values())}


def on_meta(name: str, lora: int | None = None) -> tuple[Aligned, Tensor]:
    """A published transformer on the meta device, with the paper's projection and no text tower; and latents of 49
    frames of 480 x 720."""
    backbone = measure.built(measure.PUBLISHED[name])
    network = backbone.parts.use("network").requires_grad_(True)
    network.enable_gradient_checkpointing()
    with torch.device("meta"):
        said = torch.empty(1, 226, network.config.text_embed_dim, dtype=network.dtype)
        text: Any = nn.Identity()
        text.forward = lambda tokens: SimpleNamespace(last_hidden_state=said)
        model = Aligned(transformer.Student(network, text), 64, 256, 3, lora).to(network.dtype)
        return model, torch.empty(1, *backbone.grid(49, backbone.height, backbone.width), dtype=network.dtype)
