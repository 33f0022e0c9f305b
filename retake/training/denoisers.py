"""The two denoisers of the embedded models, and what they are taught.

The motion U-Net is taught as AnimateDiff is (Guo et al. 2024, sec. 4): first a U-Net on single frames, then motion
modules on clips. But the U-Net does not rest then, as AnimateDiff's does: single frames say nothing of a direction, so
it has learnt to pass the word over, and motion modules, which read no text, hardly hear it. The video transformer is
taught on clips at once. Clips have few frames at first, two or four: objects and their ways are learnt on these, where
a clip costs little.

Both predict v under a schedule without signal at its end; its noise is strong for long, because a clip repeats its
object in every frame, and where it is and which way it goes is decided while little of it can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retake.diffusion.families.cogvideox.transformer import evaluate, positions
from retake.diffusion.families.common.conditioning import text_states
from retake.diffusion.schedule import Schedule
from retake.training.autoencoder import CHANNELS
from retake.training.encoders import LENGTH, WIDTH
from retake.training.latents import Cache

SIDE = 16  # of a latent frame
FRAMES = 16
REFERENCE = 17  # states of a reference picture
UNET = (32, 64, 64)

ADAPTER: dict[str, Any] = {
    "block_out_channels": UNET,
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
    # None at the largest size: half the time of a step went there, and ways are decided at the smaller ones.
    "motion_transformer_layers_per_block": [0, 1, 1],
}

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.025,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}

# Shares of clips conditioned on nothing, the caption alone, the reference picture alone, both.
TOLD = (0.1, 0.55, 0.1, 0.25)


def unet() -> Any:
    """UNet2DConditionModel of 1.7 M parameters over latent frames [N, 8, 16, 16]."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=UNET,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def motion(of_frames: Any) -> Any:
    """The motion U-Net around a trained U-Net: 0.7 M parameters of motion modules beside its 1.6 M; all of them train.

    The modules' last layers start at zero, so that training starts from the U-Net's own pictures.
    """
    from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel

    adapter = MotionAdapter(**ADAPTER)
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    model: Any = UNetMotionModel.from_unet2d(of_frames, adapter)
    return model.requires_grad_(True)


def transformer(patch: int) -> Any:
    """CogVideoXTransformer3DModel of 1.9 M parameters over latent clips [B, 16, 8, 16, 16]."""
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=5,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=32,
        text_embed_dim=WIDTH,
        num_layers=5,
        sample_width=SIDE,
        sample_height=SIDE,
        sample_frames=FRAMES,
        patch_size=patch,
        temporal_compression_ratio=1,
        max_text_seq_length=LENGTH + REFERENCE,
        spatial_interpolation_scale=1.0,
        temporal_interpolation_scale=1.0,
    )


@dataclass(frozen=True)
class Lesson:
    """Part of a training: until the share `until` of its steps, `batch` clips of `frames` frames, evenly spread over
    the 16 that a clip has."""

    until: float
    frames: int
    batch: int


class Teacher:
    """Draws noisy clips and their conditions, by the number of the step."""

    def __init__(self, cache: Cache, encoder: Any, words: Any, seed: int, device: str, power: float) -> None:
        self.cache, self.seed, self.device, self.power = cache, seed, device, power
        self.schedule = Schedule.from_config(SCHEDULE)
        said = sorted({*cache.captions, ""})
        with torch.inference_mode():
            parts = [text_states(encoder, words, said[k : k + 256]) for k in range(0, len(said), 256)]
        self.states = torch.cat(parts).to(device)
        place = {caption: n for n, caption in enumerate(said)}
        self.caption = torch.tensor([place[c] for c in cache.captions])
        self.silent = place[""]

    def draw(self, step: int, lesson: Lesson) -> Mapping[str, Tensor]:
        """x0, noise and z [B, f, C, h, w], t [B], condition [B, L + P, D], at: the frames' numbers [f]."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        count, stride = lesson.batch, FRAMES // lesson.frames
        picked = torch.randint(len(self.cache.captions), (count,), generator=random)
        first = int(torch.randint(stride, (1,), generator=random))
        at = torch.arange(first, FRAMES, stride)
        x0 = self.cache.latents[picked][:, at].float().to(self.device)
        kind = torch.multinomial(torch.tensor(TOLD), count, True, generator=random)
        text = torch.where((kind == 1) | (kind == 3), self.caption[picked], self.silent)
        image = self.cache.references[picked].float() * (kind >= 2)[:, None, None]
        condition = torch.cat([self.states[text], image.to(self.device)], 1)
        u = torch.rand(count, generator=random) ** self.power
        t = (u * self.schedule.length).long().clamp(max=self.schedule.length - 1).to(self.device)
        noise = torch.randn(x0.shape, generator=random).to(self.device)
        z = self.schedule.noised(x0, noise, t)
        return {"x0": x0, "noise": noise, "z": z, "t": t, "condition": condition, "at": at}

    def loss(self, predicted: Tensor, drawn: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Squared error of v, and its mean over clips that are mostly noise (t of 700 and more)."""
        target = self.schedule.target(drawn["x0"], drawn["noise"], drawn["t"])
        each = (predicted.float() - target).square().flatten(1).mean(1)
        noisy = each.detach()[drawn["t"] >= 700]
        return each.mean(), {"noisy": float(noisy.mean()) if len(noisy) else float(each.detach().mean())}


Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


def lesson_of(lessons: tuple[Lesson, ...], step: int, steps: int) -> Lesson:
    return next(one for one in lessons if step < one.until * steps or one is lessons[-1])


def unet_loss(model: Any, teacher: Teacher, lessons: tuple[Lesson, ...], steps: int) -> Loss:
    """Single frames: a lesson's frames are taken as pictures of their own, each with its own timestep."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = teacher.draw(step, lesson_of(lessons, step, steps))
        x0, noise = drawn["x0"].flatten(0, 1), drawn["noise"].flatten(0, 1)
        repeats = drawn["x0"].shape[1]
        random = torch.Generator().manual_seed(step + 7)
        t = (torch.rand(len(x0), generator=random) ** teacher.power * teacher.schedule.length).long()
        t = t.clamp(max=teacher.schedule.length - 1).to(x0.device)
        z = teacher.schedule.noised(x0, noise, t)
        out = model(z, t, drawn["condition"].repeat_interleave(repeats, 0), return_dict=False)[0]
        return teacher.loss(out, {"x0": x0, "noise": noise, "t": t})

    return of


def motion_loss(model: Any, teacher: Teacher, lessons: tuple[Lesson, ...], steps: int) -> Loss:
    """Clips, one timestep each; of fewer frames, each stands at its own place in time."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = teacher.draw(step, lesson_of(lessons, step, steps))
        condition = drawn["condition"].repeat_interleave(drawn["z"].shape[1], 0)
        with placed(model, drawn["at"]):
            out = model(drawn["z"].transpose(1, 2), drawn["t"], condition, return_dict=False)[0]
        return teacher.loss(out.transpose(1, 2), drawn)

    return of


@contextmanager
def placed(model: Any, at: Tensor) -> Iterator[None]:
    """Within it, the motion modules take the frames that they are given for those with the numbers `at` [f]."""
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    def place(module: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return given[0] + module.pe[:, at]

    clocks = [module for module in model.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    hooks = [module.register_forward_hook(place) for module in clocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def transformer_loss(model: Any, teacher: Teacher, lessons: tuple[Lesson, ...], steps: int, half: bool) -> Loss:
    """Clips, one timestep each; of fewer frames, each stands at its own place in time."""

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        drawn = teacher.draw(step, lesson_of(lessons, step, steps))
        with torch.autocast(teacher.device, torch.bfloat16, enabled=half):
            out = spread(model, drawn["z"], drawn["t"], drawn["condition"], drawn["at"])
        return teacher.loss(out, drawn)

    return of


def spread(model: Any, z: Tensor, t: Tensor, condition: Tensor, at: Tensor) -> Tensor:
    """The transformer's output for frames that stand at the places `at` [f] of its clip rather than at 0 .. f - 1."""
    whole = positions(model, FRAMES, SIDE, SIDE, z.device)
    assert isinstance(whole, Tensor), "the embedded transformer has sines for positions"
    places = whole.unflatten(1, (FRAMES, -1))[:, at].flatten(1, 2)
    return evaluate(model, z, t[:, None].expand(z.shape[:2]), condition, places)
