"""IVEDiff's motion reference network (MotRefNet): before every motion module, features of the frame before, carried
along the source's flow.

    offset = backward flow + f(h of the frame before, h, backward flow)         f ends in zeros
    carried = h of the frame before, read at each place plus offset
    h <- h + gate * (carried - h)                                               gate begins at 0

Sec. 4.2, eq. 3 to 6. Three things there are not so here. Eq. 6 adds "delta", which is defined nowhere; it is taken for
the difference to what was carried, and the weight for 1 - gate, so that the network begins as if it were not there,
where the literal reading replaces every frame by the one before (`form` "literal", a control). Forward flow is read as
an input there and the offset is learnt whole (`base` "learnt", another); reading the frame before needs the backward
one. Frames take the features of their neighbours as these came in: nothing runs through the clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

Form = Literal["difference", "literal"]
Base = Literal["flow", "learnt"]


class Carried(nn.Module):
    """One site: hidden states [B F, C, H, W] enriched by those of the frame before; the first frame of a clip stays."""

    def __init__(self, width: int, hidden: int, form: Form, base: Base) -> None:
        super().__init__()
        self.form, self.base = form, base
        self.offset = nn.Sequential(
            nn.Conv2d(2 * width + 2, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, 2, 3, padding=1),
        )
        last: Any = self.offset[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gate = nn.Parameter(torch.ones(()) if form == "literal" else torch.zeros(()))

    def forward(self, x: Tensor, flow: Tensor) -> Tensor:
        """flow: [B, F, 2, h, w], (dx, dy) in cells of its own grid, from each frame to the one before; that of the
        first is not looked at."""
        count, frames = flow.shape[:2]
        if frames == 1:
            return x
        h = x.unflatten(0, (count, frames))
        before, now = h[:, :-1].flatten(0, 1), h[:, 1:].flatten(0, 1)
        moved = fitted(flow[:, 1:].flatten(0, 1), x.shape[-2], x.shape[-1])
        # Half precision tells places too coarsely.
        offset = self.offset(torch.cat([before, now, moved.to(x)], 1)).float()
        if self.base == "flow":
            offset = offset + moved.float()
        carried = warped(before.float(), offset).to(x.dtype)
        made = carried + self.gate * now if self.form == "literal" else now + self.gate * (carried - now)
        return torch.cat([h[:, :1], made.unflatten(0, (count, frames - 1))], 1).flatten(0, 1)


class MotionReference(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One `Carried` for each motion module, in the order in which the U-Net holds them. widths: their channels."""

    @register_to_config
    def __init__(self, widths: Sequence[int], hidden: int = 64, form: Form = "difference", base: Base = "flow") -> None:
        super().__init__()
        self.sites = nn.ModuleList(Carried(width, hidden, form, base) for width in widths)

    @classmethod
    def of(cls, unet: Any, form: Form = "difference", base: Base = "flow") -> MotionReference:
        """For the motion modules of a U-Net."""
        return cls(motion_widths(unet), form=form, base=base)

    @contextmanager
    def before(self, unet: Any, flow: Tensor) -> Iterator[None]:
        """Within it, what reaches each motion module of a U-Net is enriched first. flow: as `Carried`."""
        modules = motion_modules(unet)

        def enrich(site: nn.Module) -> Any:
            return lambda module, given: (site(given[0], flow), *given[1:])

        pairs = zip(self.sites, modules, strict=True)
        hooks = [module.register_forward_pre_hook(enrich(site)) for site, module in pairs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def without_motion(unet: Any) -> Iterator[None]:
    """Within it, motion modules hand on what they are given, and cost nothing: the frame-wise network."""
    modules: list[Any] = motion_modules(unet)
    before = [vars(module).get("forward") for module in modules]  # offloading puts its own there
    for module in modules:
        module.forward = lambda given, *args, **options: given
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                del module.forward
            else:
                module.forward = own


def motion_modules(unet: nn.Module) -> list[nn.Module]:
    """The motion modules of a U-Net, in the order in which it holds them."""
    return [module for name, module in unet.named_modules() if name.rpartition(".")[0].endswith("motion_modules")]


def motion_widths(unet: nn.Module) -> list[int]:
    """Channels of a U-Net's motion modules, in their order."""
    return [cast(Any, module).norm.num_channels for module in motion_modules(unet)]


def fitted(flow: Tensor, height: int, width: int) -> Tensor:
    """Flow [N, 2, h, w] in cells, on a grid that is halved some times (11 cells of 21) and in its cells: each halving
    makes the values half as large."""
    if flow.shape[-2:] == (height, width):
        return flow
    halved = [round(math.log2(flow.shape[-1] / width)), round(math.log2(flow.shape[-2] / height))]
    share = flow.new_tensor([0.5**n for n in halved])[:, None, None]
    return F.interpolate(flow, (height, width), mode="area") * share


def warped(x: Tensor, offset: Tensor) -> Tensor:
    """x [N, C, H, W] read at each place plus its offset [N, 2, H, W] in cells, bilinear; beyond the border, its
    nearest."""
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing="ij"
    )
    at = torch.stack([columns, rows]) + offset
    half = at.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])[:, None, None]
    return F.grid_sample(x, (at / half - 1).movedim(1, -1), padding_mode="border", align_corners=True)
