"""The networks of one model, and where each of them waits.

`none` keeps all of them on the device. `model` keeps one there, the one in use: a text encoder of 10 GB is gone when
the denoiser comes. `sequential` does so too, and brings the denoiser layer by layer: slow, and the least memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from retake.errors import ConfigError

Offload = Literal["none", "model", "sequential"]


class Parts:
    """Networks by role (`network`, `vae`, `text_encoder`, `image_encoder`) and what is no network (`tokenizer`).

    They are put in evaluation mode, without gradients of their own, and into `dtype`. On the CPU nothing waits
    elsewhere, whatever `offload` says.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: Offload = "none",
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.offload: Offload = "none" if self.device.type == "cpu" else offload
        self._parts = {role: part for role, part in parts.items() if part is not None}
        for part in self._networks().values():
            part.eval().requires_grad_(False)
            if part.device.type != "meta":
                if part.dtype != dtype:
                    nn.Module.to(part, dtype=dtype)  # diffusers' own `to` warns
                part.to("cpu" if self.offload != "none" else self.device)
        # An outline without weights (`load_coder`) has nothing to bring.
        if self.offload == "sequential" and self._parts["network"].device.type != "meta":
            from accelerate import cpu_offload

            cpu_offload(self._parts["network"], self.device)

    def __contains__(self, role: str) -> bool:
        return role in self._parts

    def look(self, role: str) -> Any:
        """A part wherever it is, to read its configuration. KeyError where the model has none."""
        return self._parts[role]

    def use(self, role: str) -> Any:
        """A part on the device, to be run. Where something waits elsewhere, the parts that were there before go."""
        part = self._parts[role]
        if self.offload == "none" or not isinstance(part, nn.Module):
            return part
        for name, other in self._networks().items():
            brought = self.offload == "sequential" and name == "network"  # layer by layer, by accelerate's hooks
            if not brought and (other.device.type == self.device.type) != (other is part):
                other.to(self.device if other is part else "cpu")
        return part

    def need(self, role: str) -> Any:
        """`use`, for a part that a model may lack. Raises ConfigError E281 where it does."""
        if role not in self:
            raise ConfigError("E281", f"this model has no {role}", "Give the folder that has one: model.parts=FOLDER.")
        return self.use(role)

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return sum(p.numel() * p.element_size() for part in self._networks().values() for p in part.parameters())

    def _networks(self) -> dict[str, Any]:
        return {role: part for role, part in self._parts.items() if isinstance(part, nn.Module)}
