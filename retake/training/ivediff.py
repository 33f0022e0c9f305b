"""IVEDiff's two trainings: an image editing network on pairs of frames, then motion on masked clips.

*Image*: a frame of which an object, a rectangle around it or cells of a grid are hidden is made anew from a picture of
what was there; editing U-Net, reference U-Net, projection and depth guider learn. MimicBrush's training was never
published; this follows what its paper says of it (pairs of frames of one clip).
*Clips* (masked motion modelling): the cells of a grid are hidden in frames 1 to 6 of a window, the picture is frame 0;
motion modules and the motion reference network alone learn.

Source: IVEDiff (Li et al. 2025, sec. 4.2 and 4.3, appendix A.2). Its eq. 10 hides cells of the noisy latents, whose
noise nothing can tell; hidden are those of the masked clip here, as at inference, and `where` "noise" is the literal
reading. Its text hides half of the cells, its tables three quarters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retake.diffusion.families.common import image_vae
from retake.diffusion.families.common.conditioning import image_states
from retake.diffusion.families.ivediff.guides import DepthGuider, ImageProjection
from retake.diffusion.families.ivediff.motion_reference import Base, Form, MotionReference
from retake.diffusion.families.ivediff.network import EditingNetwork, widened
from retake.diffusion.schedule import Schedule
from retake.imaging.signed import to_signed
from retake.training.autoencoder import CHANNELS
from retake.training.editing_clips import Clip, Clips, blacked_out
from retake.training.encoders import WIDTH
from retake.training.lessons import SCHEDULE
from retake.training.unet import ADAPTER

DEPTHS = 4  # channels of depth features
GUIDER = (16, 32, 64)  # of a depth map of four pixels a latent cell
GRID = 8  # cells of the grid a side
FRAMES = 6  # of a window, beside the picture
HIDDEN = {"object": 0.3, "rectangle": 0.5, "grid": 0.2}  # shares of what is hidden of single frames
DEPTH = {"object": 0.8, "rectangle": 0.2, "grid": 0.5}  # how often depth is shown with it
UNTOLD = 0.1  # share of clips without their picture
GROWN = 3  # pixels that an object's mask is grown by, at most
INSIDE = 12.0  # weight of hidden cells of single frames; others weigh 1
SHOWN = (0.05, 0.35, 0.6)  # shares of an object's pictures: see `Clip`. The first says nothing of its turn


@dataclass(frozen=True)
class Masking:
    """Masked motion modelling: the share `ratio` of a grid's cells is hidden, others in each frame (`frame_wise`) or
    the same in all; `where`: of the masked clip and its mask ("condition"), of the noisy latents ("noise"), or of
    both. strides: one of them lies between the frames of a window. ratio 0: nothing is hidden."""

    ratio: float = 0.75
    frame_wise: bool = True
    where: Literal["condition", "noise", "both"] = "condition"
    strides: tuple[int, ...] = (1, 2)


def image_network(unet: Any, reference_unet: Any) -> EditingNetwork:
    """The network of pictures, from two U-Nets of pictures that know how to draw."""
    editing = widened(unet, CHANNELS + 1 + CHANNELS + DEPTHS)
    return EditingNetwork(
        editing,
        reference_unet,
        ImageProjection(WIDTH, WIDTH, penultimate=False),
        DepthGuider(DEPTHS, GUIDER, unit=True),
    )


def clip_network(
    image: EditingNetwork,
    adapter: Mapping[str, Tensor] | None = None,
    form: Form = "difference",
    base: Base = "flow",
    carries: bool = True,
) -> EditingNetwork:
    """The network of clips around one of pictures, which rests: motion modules as in the weights `adapter`, their last
    layers zero, and where it `carries`, the motion reference network."""
    from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel

    made = MotionAdapter(**{**ADAPTER, "use_motion_mid_block": False})
    if adapter is not None:
        made.load_state_dict({name: adapter[name] for name in made.state_dict()})
    for name, module in made.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    image.requires_grad_(False)
    unet: Any = UNetMotionModel.from_unet2d(image.unet, made)
    unet.requires_grad_(False)
    for name, weight in unet.named_parameters():
        weight.requires_grad_("motion_modules" in name)
    motion = MotionReference.of(unet, form, base).requires_grad_(True) if carries else None
    return EditingNetwork(unet, image.reference_unet, image.image_projection, image.depth_guider, motion)


class Eyes:
    """How pixels reach the network: the autoencoder, and the image encoder of the reference."""

    def __init__(self, vae: Any, image_encoder: Any, device: str) -> None:
        self.vae, self.image_encoder, self.device = vae, image_encoder, device

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        """[B, F, C, h, w] of pixels [B, F, 3, H, W] in -1..1."""
        return image_vae.encode(self.vae, pixels.to(self.device))

    @torch.no_grad()
    def shown(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, C, h, w] and states [B, L, D] of pictures [B, 3, S, S] in -1..1."""
        return self.latents(pictures[:, None])[:, 0], image_states(self.image_encoder, pictures.to(self.device))

    @property
    def nothing(self) -> Tensor:
        """States [1, L, D] of no picture: zeros, before they are projected."""
        config = self.image_encoder.config
        return torch.zeros(1, (config.image_size // config.patch_size) ** 2 + 1, config.hidden_size, device=self.device)


def image_loss(
    model: EditingNetwork, eyes: Eyes, data: Clips, batch: int, power: float, seed: int
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> squared error of v for single frames of a batch of clips, in hidden cells weighed more; for the curve
    that of the hidden cells alone."""
    schedule, device = Schedule.from_config(SCHEDULE), eyes.device

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        some = frames_of(data, batch, random)
        drawn = torch.multinomial(torch.tensor([*HIDDEN.values()]), batch, True, generator=random)
        kinds = [[*HIDDEN][k] if some.mask[n].any() else "grid" for n, k in enumerate(drawn.tolist())]
        x0 = some.latents.float().to(device)
        mask, masked = hidden(kinds, some, x0, eyes, random)
        keeps = torch.rand(batch, generator=random) < torch.tensor([DEPTH[kind] for kind in kinds])
        pictures = torch.stack([picture(kind, some, n, random) for n, kind in enumerate(kinds)])
        told = torch.rand(batch, generator=random) >= UNTOLD
        inputs = told_of(model, eyes, varied(pictures, random), told)
        inputs |= {"mask": mask, "masked": masked, "depth": depths(model, some.depth, keeps.to(device))}
        u = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        t = (u**power * schedule.length).long().clamp(max=schedule.length - 1)
        noise = torch.randn(x0.shape, generator=random).to(device)
        z, v, t = schedule.noised(x0, noise, t.to(device)), schedule.target(x0, noise, t.to(device)), t.to(device)
        square = (model(z, t[:, None], inputs).float() - v).square()
        weight = 1 + (INSIDE - 1) * mask
        inside = float((square.detach() * mask).sum() / (mask.sum() * square.shape[2]).clamp(min=1))
        return (square * weight).mean() / weight.mean(), {"plain": float(square.detach().mean()), "hidden": inside}

    return of


def clip_loss(
    model: EditingNetwork, eyes: Eyes, data: Clips, masking: Masking, batch: int, power: float, seed: int
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """(step) -> squared error of v over all cells of windows of clips; for the curve that of hidden and of shown ones.
    Data, noise and masks of a step are the same for every model."""
    schedule, device = Schedule.from_config(SCHEDULE), eyes.device

    def of(step: int) -> tuple[Tensor, dict[str, float]]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        picked = torch.randint(len(data), (batch,), generator=random).tolist()
        stride = masking.strides[int(torch.randint(len(masking.strides), (1,), generator=random))]
        length = data.take(picked[:1]).mask.shape[1]
        first = int(torch.randint(length - FRAMES * stride, (1,), generator=random))
        whole = data.take(picked, range(first, first + FRAMES * stride + 1))
        some = Clip._make([*(part[:, stride::stride] for part in whole[:-1]), whole.pictures])
        x0, flow = some.latents.float().to(device), strided(whole.flow.float(), stride).to(device)
        hide = grid_masks(batch, FRAMES, masking, random)
        hide = F.interpolate(hide, x0.shape[-2:]).to(device)[:, :, None]
        keeps = torch.rand(batch, generator=random) < DEPTH["grid"]
        told = torch.rand(batch, generator=random) >= UNTOLD
        inputs = told_of(model, eyes, to_signed(whole.frames[:, 0]).movedim(-1, 1), told)
        of_condition = hide if masking.where != "noise" else torch.zeros_like(hide)
        inputs |= {"mask": of_condition, "masked": x0 * (1 - of_condition), "flow": flow}
        inputs["depth"] = depths(model, some.depth, keeps.to(device))
        u = (torch.arange(batch) + torch.rand(batch, generator=random)) / batch
        t = (u**power * schedule.length).long().clamp(max=schedule.length - 1).to(device)
        noise = torch.randn(x0.shape, generator=random).to(device)
        z, v = schedule.noised(x0, noise, t), schedule.target(x0, noise, t)
        if masking.where != "condition":
            z = z * (1 - hide)
        square = (model(z, t[:, None].expand(x0.shape[:2]), inputs).float() - v).square()
        each = {"hidden": hide, "shown": 1 - hide}
        means = {
            name: float((square.detach() * cells).sum() / (cells.sum() * square.shape[2]).clamp(min=1))
            for name, cells in each.items()
        }
        return square.mean(), means

    return of


def frames_of(data: Clips, batch: int, random: torch.Generator) -> Clip:
    """One frame of each of so many clips, with its pictures and beside these the clip's other frames for a grid."""
    picked = torch.randint(len(data), (batch,), generator=random).tolist()
    whole = data.take(picked)
    at, other = torch.randint(whole.mask.shape[1], (2, batch), generator=random)
    rows = torch.arange(batch)
    pictures = torch.cat([whole.pictures, whole.frames[rows, other][:, None]], 1)
    return Clip._make([*(part[rows, at][:, None] for part in whole[:-1]), pictures])


def picture(kind: str, some: Clip, n: int, random: torch.Generator) -> Tensor:
    """What clip n is told: another frame where cells of a grid are hidden, else a picture of the object. In -1..1."""
    chosen = int(torch.multinomial(torch.tensor(SHOWN), 1, generator=random))
    if kind == "grid":
        chosen = some.pictures.shape[1] - 1
    return to_signed(some.pictures[n, chosen]).movedim(-1, 0)


def varied(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S] in -1..1, turned and scaled a little, in other light. Only a little: what a picture does
    not tell of the object, its turn above all, is drawn as a mean of what it may be."""
    count = len(pictures)
    turn, grow, light = (torch.rand(count, generator=random) for _ in range(3))
    angle, scale = (turn - 0.5) * 0.2, 0.75 + grow * 0.4
    cos, sin, zero = torch.cos(angle) * scale, torch.sin(angle) * scale, torch.zeros(count)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    at = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    turned = F.grid_sample(pictures, at, padding_mode="border", align_corners=False)
    return ((turned + 1) * (0.9 + 0.2 * light)[:, None, None, None] - 1).clamp(-1, 1)


def hidden(kinds: Sequence[str], some: Clip, x0: Tensor, eyes: Eyes, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask [B, F, 1, h, w] and masked latents [B, F, C, h, w] of clips, of each what its kind says. Pixels are blacked
    out before they are coded, cells of a grid are those of latents."""
    pixels = torch.stack(
        [
            area(kind, mask, int(torch.randint(GROWN + 1, (1,), generator=random)))
            for kind, mask in zip(kinds, some.mask, strict=True)
        ]
    )
    mask = F.interpolate((pixels > 0).float(), x0.shape[-2:])[:, :, None].to(x0)
    masked = eyes.latents(blacked_out(some.frames, pixels))
    ratios = torch.randint(1, 4, (len(kinds),), generator=random) / 4
    for n, kind in enumerate(kinds):
        if kind == "grid":
            cells = grid_masks(1, x0.shape[1], Masking(float(ratios[n])), random)
            mask[n] = F.interpolate(cells, x0.shape[-2:])[0][:, None].to(x0)
            masked[n] = x0[n] * (1 - mask[n])
    return mask, masked


def area(kind: str, mask: Tensor, grown: int) -> Tensor:
    """What is hidden of the pixels of a clip, uint8 [F, H, W]: an object, grown, or the smallest rectangle around it in
    each frame; nothing for a grid."""
    if kind == "grid":
        return torch.zeros_like(mask)
    wide = F.max_pool2d(mask[:, None].float(), 2 * grown + 1, 1, grown)[:, 0]
    return rectangles(wide > 0).byte() * 255 if kind == "rectangle" else wide.byte()


def rectangles(mask: Tensor) -> Tensor:
    """The smallest rectangle around what each frame of a mask [F, H, W] holds, bool; empty where it holds nothing."""

    def spanned(seen: Tensor) -> Tensor:
        return (seen.cumsum(1) > 0) & (seen.flip(1).cumsum(1).flip(1) > 0)

    rows, columns = spanned(mask.any(2)), spanned(mask.any(1))
    return rows[:, :, None] & columns[:, None, :]


def grid_masks(count: int, frames: int, masking: Masking, random: torch.Generator) -> Tensor:
    """float32 [count, frames, GRID, GRID], 1 where a cell is hidden: of every frame exactly the share `ratio`."""
    hides = round(masking.ratio * GRID**2)
    drawn = frames if masking.frame_wise else 1
    order = torch.rand(count, drawn, GRID**2, generator=random).argsort(-1)
    return (order < hides).float().unflatten(-1, (GRID, GRID)).expand(-1, frames, -1, -1)


def strided(flow: Tensor, stride: int) -> Tensor:
    """Flow [B, 1 + F stride, 2, h, w] from each frame to the one before, of every stride-th frame but the first to that
    `stride` frames before: each step is read where the ones before it lead. The first counts for nothing."""
    from retake.diffusion.families.ivediff.motion_reference import warped

    steps = flow[:, 1:].unflatten(1, (-1, stride))
    total = steps[:, :, -1]
    for k in range(stride - 2, -1, -1):
        total = total + warped(steps[:, :, k].flatten(0, 1), total.flatten(0, 1)).unflatten(0, total.shape[:2])
    return total


def told_of(model: EditingNetwork, eyes: Eyes, pictures: Tensor, told: Tensor) -> dict[str, Tensor]:
    """What is said of pictures [B, 3, S, S] in -1..1; of those that are not told [B], nothing."""
    reference, states = eyes.shown(pictures)
    states = torch.where(told[:, None, None].to(eyes.device), states, eyes.nothing)
    return {"reference": reference, "states": model.image_projection(states), "told": told}


def depths(model: EditingNetwork, depth: Tensor, keeps: Tensor) -> Tensor:
    """Depth features [B, F, D, h, w] of maps uint8 [B, F, H, W]; of a map of zeros where it is not kept [B]."""
    maps = depth.to(keeps.device).float() / 255 * keeps[:, None, None, None]
    return model.depth_guider(maps.flatten(0, 1)[:, None]).unflatten(0, depth.shape[:2])
