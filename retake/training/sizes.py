"""How much each part of the embedded models learns, by size: `cpu` is what ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from retake.training.lessons import Lesson
from retake.training.loop import Plan


@dataclass(frozen=True)
class Course:
    """A denoiser's training: its plan, lessons, how many fours of each kind are rendered for it, and the power by which
    times are drawn."""

    plan: Plan
    lessons: tuple[Lesson, ...]
    fours: Mapping[str, int]
    power: float


@dataclass(frozen=True)
class Size:
    """pictures: for the image autoencoder and the towers; moving: clips for the video autoencoder and the video
    encoder; pairs: for the control branch; studied: clips for the motion subspace and the alignment; editing:
    clips for IVEDiff. half: products of
    the denoisers in bfloat16. scaled_on: clips by which an autoencoder's latents are scaled."""

    pictures: int
    moving: int
    vae: Plan
    vae_batch: int
    clip: Plan
    clip_batch: int
    video_vae: Plan
    video_vae_batch: int
    unet: Course
    motion: Course
    transformer_frames: Course
    transformer: Course
    pairs: int
    control: Plan
    control_batch: int
    video_mae: Plan
    video_mae_batch: int
    studied: int
    motion_subspace: Plan
    motion_subspace_batch: int
    aligned: Plan
    aligned_lora: Plan
    aligned_batch: int
    editing: int
    ivediff_image: Plan
    ivediff_image_batch: int
    ivediff: Plan
    ivediff_batch: int
    half: bool = False
    scaled_on: int = 64


CPU = Size(
    pictures=12_000,
    moving=4_000,
    vae=Plan(3_000, 1e-3, cooldown=0.5),
    vae_batch=16,
    clip=Plan(3_000, 1e-3, cooldown=0.5),
    clip_batch=128,
    video_vae=Plan(5_500, 1e-3, muon=0.01, cooldown=0.6, decay=0.0),
    video_vae_batch=4,
    unet=Course(
        Plan(8_000, 1e-3, muon=0.01, cooldown=0.8),
        (
            Lesson(0.1, ("upright",), 1, 16, 5),
            Lesson(0.45, ("loose",), 1, 16, 5),
            Lesson(0.7, ("loose", "plain", "plain"), 1, 16, 4),
            Lesson(0.9, ("plain", "world", "world"), 1, 16, 2),
            Lesson(1.0, ("world",), 1, 16),
        ),
        {"upright": 1_500, "loose": 2_000, "plain": 3_000, "world": 4_000},
        power=0.7,
    ),
    motion=Course(
        Plan(2_000, 1e-3, muon=0.01, cooldown=0.8),
        (
            Lesson(0.3, ("world", "clips"), 4, 4, 3),
            Lesson(0.6, ("world", "clips"), 8, 2, 2),
            Lesson(1.0, ("world", "clips", "clips"), 16, 1),
        ),
        {"world": 4_000, "clips": 1_000},
        power=0.5,
    ),
    transformer_frames=Course(
        Plan(3_300, 1e-3, muon=0.02, cooldown=0.8),
        (
            Lesson(0.12, ("upright",), 1, 12, 5),
            Lesson(0.5, ("loose",), 1, 12, 5),
            Lesson(0.7, ("loose", "plain", "plain"), 1, 12, 4),
            Lesson(0.9, ("plain", "world", "world"), 1, 12, 2),
            Lesson(1.0, ("world",), 1, 12),
        ),
        {"upright": 1_500, "loose": 3_000, "plain": 750, "world": 750},
        power=0.5,
    ),
    transformer=Course(
        Plan(3_700, 1e-3, muon=0.01, cooldown=0.8),
        (
            Lesson(0.2, ("loose", "upright_moving"), 1, 12, 5),
            Lesson(1.0, ("upright_moving", "upright_moving", "world", "pair", "counterfactual"), 5, 2, 2),
        ),
        {"loose": 3_000, "upright_moving": 1_000, "world": 1_500, "pair": 750, "counterfactual": 250},
        power=0.5,
    ),
    pairs=2_000,
    control=Plan(4_000, 1e-3, muon=0.01, cooldown=0.8),
    control_batch=8,
    video_mae=Plan(1_200, 1e-3, muon=0.01, cooldown=0.6),
    video_mae_batch=16,
    studied=2_000,
    motion_subspace=Plan(3_000, 1e-3, muon=0.03, cooldown=0.6),
    motion_subspace_batch=16,
    aligned=Plan(1_000, 2e-4, muon=0.002, warmup=100, cooldown=0.8),
    aligned_lora=Plan(1_000, 1e-3, warmup=100, cooldown=0.8),
    aligned_batch=8,
    editing=4_000,
    ivediff_image=Plan(8_000, 5e-4, muon=0.005, cooldown=0.8),
    ivediff_image_batch=16,
    ivediff=Plan(1_600, 5e-4, muon=0.005, cooldown=0.8),
    ivediff_batch=3,
)


def larger(course: Course, steps: int, by: int, fours: Mapping[str, int]) -> Course:
    """The same lessons over so many steps, of `by` times as many fours each, out of more of them."""
    lessons = tuple(replace(lesson, fours=by * lesson.fours) for lesson in course.lessons)
    return Course(replace(course.plan, steps=steps), lessons, fours, course.power)


GPU = Size(
    pictures=30_000,
    moving=12_000,
    vae=Plan(6_000, 1e-3, cooldown=0.5),
    vae_batch=64,
    clip=Plan(4_000, 1e-3, cooldown=0.5),
    clip_batch=256,
    video_vae=replace(CPU.video_vae, steps=10_000),
    video_vae_batch=32,
    unet=larger(CPU.unet, 10_000, 4, {"upright": 4_000, "loose": 8_000, "plain": 8_000, "world": 16_000}),
    motion=larger(CPU.motion, 16_000, 8, {"world": 16_000, "clips": 12_000}),
    transformer_frames=larger(
        CPU.transformer_frames, 14_000, 8, {"upright": 2_000, "loose": 4_000, "plain": 4_000, "world": 12_000}
    ),
    transformer=larger(
        CPU.transformer,
        16_000,
        8,
        {"loose": 4_000, "upright_moving": 8_000, "world": 12_000, "pair": 6_000, "counterfactual": 2_000},
    ),
    pairs=20_000,
    control=Plan(20_000, 1e-3, muon=0.01, cooldown=0.8),
    control_batch=64,
    video_mae=Plan(20_000, 1e-3, muon=0.01, cooldown=0.6),
    video_mae_batch=128,
    studied=12_000,
    motion_subspace=Plan(10_000, 1e-3, muon=0.03, cooldown=0.6),
    motion_subspace_batch=64,
    aligned=Plan(4_000, 2e-4, muon=0.002, warmup=100, cooldown=0.8),
    aligned_lora=Plan(4_000, 1e-3, warmup=100, cooldown=0.8),
    aligned_batch=64,
    editing=12_000,
    ivediff_image=Plan(20_000, 5e-4, muon=0.005, cooldown=0.8),
    ivediff_image_batch=128,
    ivediff=Plan(10_000, 5e-4, muon=0.005, cooldown=0.8),
    ivediff_batch=24,
    half=True,
)

SIZES = {"cpu": CPU, "gpu": GPU}
