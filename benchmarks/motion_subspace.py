"""What the motion subspace of MoAlign keeps of a video encoder's features, and what it drops.

*Flow*: heads trained on the same clips of the sprite world in the same order for the same steps, judged on clips that
none has seen: end-point error, in pixels of a frame of 64 from one tube of two frames to the next, of all that the next
tube shows and of what moves by half a pixel or more. Peers: no flow at all; a decoder on all of the encoder's channels,
without the narrow place, of as many weights; heads as narrow as the subspace, but made without flow (principal
components, a random projection); and the whole head over an encoder with its initial weights. The shipped one had more
steps.

*Appearance*: shares of unseen clips whose hue and shape a linear probe tells from the mean of a clip's features over
its sprite, and end-point error of the flow that one tells from single tokens: what is left of appearance and of motion
in so many channels. Chance is the share of the commonest name.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.probes import guessed, told
from retake.networks.video_mae import VideoMAE
from retake.synthetic.grammar import Subject
from retake.synthetic.world import World
from retake.training import motion_clips, motion_subspace, shipped, video_mae
from retake.training.loop import Plan, Slice, averaged, train
from retake.training.motion_clips import SCALE, Clips, Study
from retake.training.motion_subspace import WIDTH, MotionSubspace

HELD_OUT = motion_clips.SEED + 10_000_000  # seed of the first clip that nothing has seen
PIXELS = motion_clips.LIMITS.size / SCALE  # in a unit of flow
STRAIGHT = 40  # channels at which a decoder without the narrow place has as many weights
MOVES = 0.5  # pixels
SMOKE = {"clips": 4, "held_out": 4, "steps": 1}


def run(clips: int = 1_000, held_out: int = 300, steps: int = 1_500) -> list[dict[str, Any]]:
    """Two tables."""
    encoder = VideoMAE(shipped.load("video_mae").videomae, "embedded", torch.device("cpu"))
    torch.manual_seed(0)
    untaught = VideoMAE(video_mae.network().videomae, "untaught", torch.device("cpu"))
    ours = shipped.load("motion_subspace")
    with tempfile.TemporaryDirectory() as name:
        seen, seen_blind = studied(Path(name) / "seen", [encoder, untaught], motion_clips.SEED, clips)
        unseen, unseen_blind = studied(Path(name) / "unseen", [encoder, untaught], HELD_OUT, held_out)
        narrow = {"principal components": components(seen), "a random projection": random_projection()}
        rows = [{"head": "none: no flow", **errors(None, unseen)}]
        makes = {
            "the subspace": lambda: motion_subspace.network(video_mae.WIDTH),
            "all channels, as many weights": lambda: Straight(video_mae.WIDTH, STRAIGHT),
            **{f"{WIDTH} channels, {label}": lambda to=to: Narrowed(to) for label, to in narrow.items()},
        }
        for label, make in makes.items():
            rows.append({"head": label, **errors(taught(Path(name) / label, make, seen, steps), unseen)})
        head = taught(Path(name) / "blind", makes["the subspace"], seen_blind, steps)
        rows.append({"head": "the subspace, encoder untaught", **errors(head, unseen_blind)})
        rows.append({"head": "the subspace, as shipped", **errors(ours, unseen)})
    table = f"flow: {clips} clips, {steps} steps, judged on {held_out} others"
    rows = [{"table": table, **row} for row in rows]
    spaces = {
        f"the subspace, {WIDTH}": ours.motion,
        **{f"{label}, {WIDTH}": (lambda x, to=to: x @ to) for label, to in narrow.items()},
        f"all of the encoder, {video_mae.WIDTH}": lambda x: x,
    }
    table = f"appearance: linear probes on {clips} clips, judged on {held_out} others"
    rows += [{"table": table, "channels": label, **probed(of, seen, unseen)} for label, of in spaces.items()]
    chance = {name: Counter(of).most_common(1)[0][1] / held_out for name, of in named(unseen).items()}
    return [
        *rows,
        {"table": table, "channels": "chance, no flow", **chance, "flow, pixels": errors(None, unseen)["all"]},
    ]


class Scenes(NamedTuple):
    """Clips without latents: as training reads them, all of them at once, how much of each token their sprite covers
    (float32 [N, T, h, w]), and what they show."""

    clips: Clips
    whole: Study
    covered: Tensor
    subjects: list[Subject]


def studied(folder: Path, encoders: Sequence[VideoMAE], first: int, count: int) -> list[Scenes]:
    """Clips of the seeds from `first` on, as each of the encoders sees them."""
    side, seeds = encoders[0].grid().height, range(first, first + count)
    drawn = [motion_clips.drawn(seed) for seed in seeds]
    covered = torch.stack([places(World(one.scene), side) for one in drawn])
    made = []
    for n, encoder in enumerate(encoders):
        motion_clips.render(folder / str(n), count, no_latents, encoder.clips, seed=first)
        clips = motion_clips.read(motion_clips.shards(folder / str(n), count))
        made.append(Scenes(clips, clips.take(range(count)), covered, [one.subject for one in drawn]))
    return made


def no_latents(frames: Any) -> Tensor:
    return torch.zeros(len(frames), 1, 1, 1, 1)


def places(world: World, side: int) -> Tensor:
    """How much of each token of a clip its sprite covers, float32 [T, side, side]."""
    masks = torch.stack([torch.from_numpy(world.mask(t, 0)) for t in range(1, world.frames, motion_clips.TUBE)])
    return F.avg_pool2d(masks.float()[:, None], masks.shape[-1] // side)[:, 0]


class Straight(MotionSubspace):
    """A decoder on all channels."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__(width, width)
        self.head, self.between = nn.Identity(), nn.Conv3d(features, width, (2, 1, 1))


class Narrowed(MotionSubspace):
    """A decoder on channels that a fixed matrix [D, width] makes."""

    def __init__(self, to: Tensor) -> None:
        super().__init__(to.shape[1], to.shape[1])
        self.head = nn.Identity()
        self.register_buffer("to_channels", to)

    def motion(self, features: Tensor) -> Tensor:
        return features @ self.to_channels


def components(data: Scenes) -> Tensor:
    """The directions [D, WIDTH] along which tokens differ most."""
    tokens = data.whole.features.flatten(0, 3).float()
    picked = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:20_000]]
    return torch.linalg.svd(picked - picked.mean(0), full_matrices=False).Vh[:WIDTH].T.contiguous()


def random_projection() -> Tensor:
    mix = torch.randn(video_mae.WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
    return mix / video_mae.WIDTH**0.5


def taught(folder: Path, make: Any, data: Scenes, steps: int) -> Any:
    """A head after so many steps, the same for all: the mean of its weights."""
    torch.manual_seed(0)
    model, plan = make(), Plan(steps, 1e-3, muon=0.03, cooldown=0.6)
    loss = motion_subspace.loss(model, data.clips, 16, 0, "cpu")
    train(folder, model, loss, plan, Slice(), say=lambda _: None)
    return averaged(folder, model).eval()


@torch.inference_mode()
def errors(model: Any, data: Scenes) -> dict[str, float]:
    """End-point error in pixels, of everything and of what moves. model None: of no flow."""
    whole = data.whole
    flow = whole.flow.float()
    made = torch.zeros_like(flow) if model is None else batched(lambda x: model(x, flow.shape[-2:]), whole.features)
    moves = whole.seen & (flow.norm(dim=2) * PIXELS >= MOVES)
    found = {"all": whole.seen, "what moves": moves}
    return {name: PIXELS * motion_subspace.endpoint(made, flow, where) for name, where in found.items()}


@torch.inference_mode()
def probed(of: Any, seen: Scenes, unseen: Scenes) -> dict[str, float]:
    """Shares of hues and shapes told from features that `of` makes of the encoder's, and the error of told flow."""
    known, asked = batched(of, seen.whole.features), batched(of, unseen.whole.features)
    ours, theirs = over_sprites(known, seen), over_sprites(asked, unseen)
    shares = {name: guessed(ours, names, theirs, named(unseen)[name]) for name, names in named(seen).items()}
    (flow, _), (true, shown) = by_token(seen.whole), by_token(unseen.whole)
    pairs = [torch.cat([x[:, :-1], x[:, 1:]], -1).flatten(0, 3) for x in (known, asked)]
    made = told(pairs[0], flow, pairs[1])
    return {**shares, "flow, pixels": PIXELS * float((made - true)[shown].norm(dim=1).mean())}


def over_sprites(features: Tensor, data: Scenes) -> Tensor:
    """The mean [N, D] of features [N, T, h, w, D] over each clip's sprite."""
    weights = data.covered[..., None]
    return (features * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1e-6)


def by_token(data: Study) -> tuple[Tensor, Tensor]:
    """The flow of each token to the next tube [N, 2], and which tokens the next tube shows."""
    by = data.flow.shape[-1] // data.features.shape[2]
    small, shown = motion_clips.pooled(data.flow.float().flatten(0, 1), data.seen.flatten(0, 1), by)
    return small.movedim(1, -1).flatten(0, 2), shown.flatten()


def named(data: Scenes) -> dict[str, list[str]]:
    return {"hue": [one.hue for one in data.subjects], "shape": [one.shape for one in data.subjects]}


def batched(of: Any, features: Tensor) -> Tensor:
    return torch.cat([of(some.float()) for some in features.split(50)])
