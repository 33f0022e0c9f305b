"""The parts of the embedded models in one folder: which there are, what each learns from, and their training."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from retake.diffusion.families.common.conditioning import image_states
from retake.errors import ConfigError
from retake.machine.disk import write_atomic
from retake.networks import video_mae as video_encoder
from retake.networks.video_mae import VideoMAE
from retake.recipe import digest
from retake.synthetic.clips import Limits
from retake.training import (
    alignment,
    autoencoder,
    editing_clips,
    encoders,
    fours,
    ivediff,
    motion_clips,
    motion_subspace,
    motionv2v,
    moving,
    shipped,
    transformer,
    unet,
    video_autoencoder,
    video_mae,
)
from retake.training.fours import Coder, Encode
from retake.training.lessons import Teacher, loss
from retake.training.loop import Plan, Slice, averaged, progress, train
from retake.training.pictures import Data
from retake.training.sizes import Course, Size
from retake.weights.local import require

PARTS = (
    "vae",
    "clip",
    "judge",
    "unet",
    "motion",
    "video_vae",
    "transformer_frames",
    "transformer",
    "control",
    "video_mae",
    "motion_subspace",
    "aligned",
    "aligned_lora",
    "ivediff_image",
    "ivediff",
)
LEARNS_FROM = {
    "unet": ("vae", "clip"),
    "motion": ("vae", "clip", "unet"),
    "transformer_frames": ("video_vae",),
    "transformer": ("video_vae", "transformer_frames"),
    "control": ("video_vae", "transformer"),
    "motion_subspace": ("video_vae", "video_mae"),
    "aligned": ("video_vae", "transformer", "video_mae", "motion_subspace"),
    "aligned_lora": ("video_vae", "transformer", "video_mae", "motion_subspace"),
    "ivediff_image": ("vae", "clip", "unet"),
    "ivediff": ("vae", "clip", "motion", "ivediff_image"),
}
EDITING = ("ivediff_image", "ivediff")
"""Parts that learn to edit by a picture."""
STUDIED = ("motion_subspace", "aligned", "aligned_lora")
"""Parts that learn from clips that motion is studied on."""
ENCODER = "encoder.txt"  # in the folder of such a part: what those clips were seen by
COURSES = {"unet": unet, "motion": unet, "transformer_frames": transformer, "transformer": transformer}
"""The modules of the denoisers: what their fours are and how they read captions."""
SEED = 20  # of initial weights; parts differ by their place in PARTS


class PairCoding(NamedTuple):
    """How pairs become what the control branch reads: clips of `size` pixels a side, `cell` pixels a latent cell."""

    encode: Encode
    size: int
    cell: int


@dataclass
class Workshop:
    """A training in a folder: makes its parts, and hands out those that are finished."""

    folder: Path
    size: Size
    device: str
    share: tuple[int, int] = (0, 1)  # (k, n): the k-th of n processes that render fours together
    on_shipped: bool = False  # parts that ship count as finished
    further: bool = False  # another round: a part begins as it ships, at half the rates
    say: Callable[[str], None] = print
    look: Callable[[Workshop, str], object] | None = None  # at a denoiser in training, now and then
    encoder: str | None = None  # weights of another video encoder than `video_mae`, by their reference
    clips: Sequence[tuple[Path, list[str]]] = ()  # files of real clips that a part learns from, too, with captions
    _factors: dict[tuple[str, int], float] = field(default_factory=dict, repr=False)

    def make(self, part: str, minutes: float) -> bool:
        """Work on a part for at most so long; whether it is finished. Fours that it learns from are rendered first."""
        self.ready(part)
        until = time.monotonic() + 60 * minutes
        if part in COURSES and not self.rendered(part, until):
            return False
        if part == "control" and not self.paired(until):
            return False
        if part in EDITING and not self.masked(until):
            return False
        if part in STUDIED:
            if not self.studied(until):
                return False
            (self.folder / part).mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / part / ENCODER, self.studies_folder().name)
        model, plan, loss = self.lesson(part)
        said = f"{part}: {sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters"
        self.say(f"{said}, step {progress(self.folder / part)['step']} of {plan.steps}")
        sitting = Slice((until - time.monotonic()) / 60)
        look = partial(self.look, self, part) if self.look is not None and part in COURSES else None
        return train(self.folder / part, model, loss, plan, sitting, self.say, look)

    def wanted(self, part: str | None) -> list[str]:
        """The parts to be made, in order. One that is named is made though it ships."""
        if part is None:
            return [name for name in PARTS if not self.finished(name)]
        return [part] if not self.finished(part) or self.as_shipped(part) else []

    def ready(self, part: str) -> None:
        """Raises ConfigError E247 unless the parts that it learns from are finished: what half a network gave would be
        kept as if it were the whole one's; and unless it ships, where it shall go on from there."""
        known = ("video_mae",) if self.encoder is not None else ()
        if missing := [one for one in LEARNS_FROM.get(part, ()) if one not in known and not self.finished(one)]:
            raise ConfigError(
                "E247",
                f"{part} needs {' and '.join(missing)}, not finished in {self.folder}",
                f"First: --part {missing[0]}. Or leave --part out: parts are then made in their order.",
            )
        if part in STUDIED:
            self.one_encoder(part)
        if self.further and (part not in shipped.LOADERS or not shipped.ships(part)):
            raise ConfigError("E247", f"{part} does not ship: there is nothing to go on from", "Leave --further out.")

    def one_encoder(self, part: str) -> None:
        """Raises ConfigError E247 where a part, or the subspace that it learns from, was begun with another encoder."""
        known = self.folder / part / ENCODER
        if part != "motion_subspace":
            own = self.encoder is not None or not self.as_shipped("video_mae")
            if own and self.as_shipped("motion_subspace"):
                raise ConfigError(
                    "E247",
                    "the motion subspace that ships is of the video encoder that ships, and this is another",
                    "First: retake train moalign --stage subspace, with the same --encoder and --folder.",
                )
            if not known.exists():
                known = self.folder / "motion_subspace" / ENCODER
        if known.exists() and known.read_text() != self.studies_folder().name:
            raise ConfigError(
                "E247",
                f"{known.parent} was begun with another video encoder or autoencoder",
                "Give its --encoder, or begin in another --folder.",
            )

    def finished(self, part: str) -> bool:
        return progress(self.folder / part)["step"] >= self.plan_of(part).steps or self.as_shipped(part)

    def as_shipped(self, part: str) -> bool:
        """Whether a part is taken as it ships: it may be, and was not begun here."""
        return self.on_shipped and not progress(self.folder / part)["step"] and shipped.ships(part)

    def plan_of(self, part: str) -> Plan:
        of = getattr(self.size, "clip" if part == "judge" else part)
        plan = of.plan if isinstance(of, Course) else of
        return replace(plan, rate=plan.rate / 2, muon=plan.muon / 2) if self.further else plan

    def rendered(self, part: str, until: float = math.inf) -> bool:
        """Render what a denoiser learns from, until a moment of time.monotonic(); whether all is there."""
        course, to = self.course(part), self.folder / "fours" / self.eyes(part)
        wanted = [path for name, count in course.fours.items() for path in fours.shards(to, name, count)]
        if not all(path.exists() for path in wanted):
            coder = self.coder(part)
            for name, count in course.fours.items():
                fours.render(to, name, COURSES[part].KINDS[name], count, coder, until, self.share)
        return all(path.exists() for path in wanted)

    def paired(self, until: float = math.inf) -> bool:
        """Render the pairs that the control branch learns from, until a moment of time.monotonic(); whether all are
        there."""
        if all(path.exists() for path in motionv2v.shards(self.folder / "pairs", self.size.pairs)):
            return True
        return motionv2v.render(self.folder / "pairs", self.size.pairs, *self.pair_coding(), until, self.share)

    def pair_coding(self) -> PairCoding:
        size = Limits().size
        return PairCoding(video_autoencoder.clip_by_clip(self.video_vae()), size, size // video_autoencoder.SIDE)

    def masked(self, until: float = math.inf) -> bool:
        """Render the clips that the editing networks learn from, until a moment of time.monotonic(); whether all are
        there."""
        if all(path.exists() for path in editing_clips.shards(self.folder / "editing", self.size.editing)):
            return True
        encode = autoencoder.frame_by_frame(self.vae())
        space = Limits().size // editing_clips.SIDE
        return editing_clips.render(self.folder / "editing", self.size.editing, encode, space, until, self.share)

    def studied(self, until: float = math.inf) -> bool:
        """Make what the motion subspace learns from, until a moment of time.monotonic(); whether all is there."""
        if all(path.exists() for path in self.studies()):
            return True
        encode = video_autoencoder.clip_by_clip(self.video_vae())
        features = partial(self.video_encoder().on_grid, rows=alignment.TOKENS, columns=alignment.TOKENS)
        return motion_clips.render(self.studies_folder(), self.size.studied, encode, features, until, self.share)

    def studies(self) -> list[Path]:
        """The shards of clips of the sprite world, with the encoder's features and flow."""
        return motion_clips.shards(self.studies_folder(), self.size.studied)

    def studies_folder(self) -> Path:
        """Another one for every encoder and autoencoder: what one of them saw is never taken for what another sees."""
        sources = [Path(self.encoder_folder()), *shipped.folders("video_vae")]
        if not self.as_shipped("video_vae"):
            sources[1:] = [self.folder / "video_vae" / "state.safetensors"]
        files = [file for one in sources for file in (sorted(one.glob("*.*")) if one.is_dir() else [one])]
        return self.folder / f"studied-{digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])[:8]}"

    def features(self) -> int:
        """Channels of the features that the motion subspace is of."""
        state = self.folder / "motion_subspace" / "state.safetensors"
        if not state.exists():
            return self.video_encoder().width
        with safe_open(state, "pt") as file:
            return int(file.get_slice("weight/head.0.weight").get_shape()[1])

    def encoder_folder(self) -> str:
        """The folder of the video encoder: of another than ours, of the one that ships, or one in which that which was
        taught here is written."""
        if self.encoder is not None:
            return str(require(self.encoder))
        if self.as_shipped("video_mae"):
            return str(shipped.folders("video_mae")[0])
        folder = self.folder / f"video_encoder-{progress(self.folder / 'video_mae')['step']}"
        if not folder.exists():
            part = folder.with_suffix(".part")
            self.taught("video_mae").mae.save_pretrained(part)
            part.rename(folder)
        return str(folder)

    def video_encoder(self) -> VideoMAE:
        """The video encoder whose features are studied."""
        return video_encoder.load(self.encoder or self.encoder_folder(), self.device)

    def course(self, part: str) -> Course:
        return getattr(self.size, part)

    def eyes(self, part: str) -> str:
        """The autoencoder by which a denoiser sees."""
        return "video_vae" if COURSES[part] is transformer else "vae"

    def coder(self, part: str) -> Coder:
        if self.eyes(part) == "video_vae":
            return Coder(
                video_autoencoder.clip_by_clip(self.video_vae()), None, Limits(frames=video_autoencoder.FRAMES)
            )
        tower = self.taught("clip").vision_model

        def portray(portraits: Any) -> Tensor:
            return image_states(tower, autoencoder.tensor(portraits)).cpu()

        return Coder(autoencoder.frame_by_frame(self.vae()), portray, Limits())

    def lesson(self, part: str) -> tuple[Any, Plan, Any]:
        """A part's fresh network, its plan and its loss."""
        size, device = self.size, self.device
        plan, seed = self.plan_of(part), SEED + PARTS.index(part)
        model = self.fresh(part)
        if part == "vae":
            data = Data(size.pictures, Limits().size, size.vae_batch, seed)
            return model, plan, autoencoder.loss(model, data, device)
        if part in ("clip", "judge"):
            data = Data(size.pictures, Limits().size, size.clip_batch, seed)
            return model, plan, encoders.loss(model, encoders.tokenizer(), data, device)
        if part == "video_vae":
            clips = moving.pool(
                self.folder / part / "clips.npy", seed, size.moving, video_autoencoder.FRAMES, Limits().size
            )
            return model, plan, video_autoencoder.loss(model, clips, size.video_vae_batch, seed, device)
        if part == "control":
            data = motionv2v.read(self.folder / "pairs", size.pairs)
            base = self.taught("transformer")
            return model, plan, motionv2v.loss(model, base, data, size.control_batch, 0.5, seed, device)
        if part == "video_mae":
            data = video_mae.pool(self.folder / part, size.moving)
            return model, plan, video_mae.loss(model, data, size.video_mae_batch, seed, device)
        if part == "motion_subspace":
            data = motion_clips.read(self.studies(), self.clips)
            return model, plan, motion_subspace.loss(model, data, size.motion_subspace_batch, seed, device)
        if part in ("aligned", "aligned_lora"):
            data, subspace = motion_clips.read(self.studies(), self.clips), self.taught("motion_subspace")
            how = alignment.How()
            return model, plan, alignment.loss(model, data, subspace, how, size.aligned_batch, 0.5, seed, device)
        if part in EDITING:
            own = editing_clips.shards(self.folder / "editing", size.editing)
            data = editing_clips.Clips([*own, *(path for path, _ in self.clips)])
            eyes = ivediff.Eyes(self.vae(), self.taught("clip").vision_model, device)
            if part == "ivediff_image":
                return model, plan, ivediff.image_loss(model, eyes, data, size.ivediff_image_batch, 1.0, seed)
            return model, plan, ivediff.clip_loss(model, eyes, data, ivediff.Masking(), size.ivediff_batch, 0.6, seed)
        lessons = self.course(part).lessons
        return model, plan, loss(model, self.teacher(part), lessons, plan.steps, size.half)

    def fresh(self, part: str) -> Any:
        """A part's network with initial weights."""
        torch.manual_seed(SEED + PARTS.index(part))
        model: Any
        if self.further:
            return shipped.load(part).train().requires_grad_(True).to(self.device)
        if part == "vae":
            model = autoencoder.network().to(memory_format=torch.channels_last)
        elif part in ("clip", "judge"):
            towers = encoders.CONDITIONER if part == "clip" else encoders.JUDGE
            model = encoders.network(towers, len(encoders.tokenizer()))
        elif part == "video_vae":
            model = video_autoencoder.network()
        elif part == "unet":
            model = unet.Student(unet.of_frames(), self.taught("clip").text_model.train().requires_grad_(True))
        elif part == "motion":
            model = self.taught("unet").train().requires_grad_(True)
            model.unet = unet.of_clips(model.unet)
        elif part == "transformer_frames":
            model = transformer.Student(transformer.network(), transformer.text_tower())
        elif part == "video_mae":
            model = video_mae.network()
        elif part == "motion_subspace":
            model = motion_subspace.network(self.features())
        elif part in ("aligned", "aligned_lora"):
            student = self.taught("transformer").train().requires_grad_(True)
            lora = alignment.LORA if part == "aligned_lora" else None
            model = alignment.Aligned(student, self.taught("motion_subspace").config.width, lora=lora)
        elif part == "ivediff_image":
            known = self.taught("unet").unet.requires_grad_(True)
            model = ivediff.image_network(known, copy.deepcopy(known)).train()
        elif part == "ivediff":
            model = ivediff.clip_network(self.taught("ivediff_image"), self.taught("motion").unet.state_dict()).train()
        elif part == "transformer":
            model = self.taught("transformer_frames").train().requires_grad_(True)
        else:
            from retake.diffusion.families.cogvideox.control import ControlBranch

            model = ControlBranch.of(self.taught("transformer").transformer, motionv2v.VIDEOS)
        return model.to(self.device)

    def trained(self, part: str) -> Any:
        """A part's network with the moving average of what it has learnt so far, ready to infer."""
        return averaged(self.folder / part, self.fresh(part)).eval().requires_grad_(False)

    def taught(self, part: str) -> Any:
        """A finished part that others learn from: as trained here, else as it ships."""
        return shipped.load(part).to(self.device) if self.as_shipped(part) else self.trained(part)

    def vae(self) -> Any:
        """The image autoencoder, its latents scaled to unit variance."""
        return self._scaled("vae", partial(autoencoder.measured, limits=Limits(), count=self.size.scaled_on))

    def video_vae(self) -> Any:
        """The video autoencoder, its latents scaled to unit variance."""
        limits = Limits(frames=video_autoencoder.FRAMES)
        measured = partial(video_autoencoder.measured, limits=limits, count=self.size.scaled_on)
        return self._scaled("video_vae", measured)

    def _scaled(self, part: str, measured: Callable[[Any], float]) -> Any:
        coder = self.taught(part)
        if not self.as_shipped(part):  # which says its factor
            key = part, progress(self.folder / part)["step"]
            if key not in self._factors:
                self._factors[key] = round(measured(coder), 4)
            coder.register_to_config(scaling_factor=self._factors[key])
        return coder

    def teacher(self, part: str) -> Teacher:
        course, module = self.course(part), COURSES[part]
        seed = SEED + PARTS.index(part) + (len(PARTS) if self.further else 0)
        folder = self.folder / "fours" / self.eyes(part)
        data = {name: fours.read(folder, name, count) for name, count in course.fours.items()}
        frames = video_autoencoder.LATENT if module is transformer else unet.FRAMES
        return Teacher(data, module.tokenised, frames, course.power, module.TOLD, seed, self.device)
