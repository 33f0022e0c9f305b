"""Reading inside a network: named sites, their shapes without weights, and a pass that stops after the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retake.errors import ConfigError, did_you_mean


class _Enough(Exception):
    """No error: it ends a pass that has been read to the end."""


def read(network: nn.Module, names: Sequence[str], run: Callable[[], Any]) -> dict[str, Tensor]:
    """What the modules at `names` (paths, as `up_blocks.1.motion_modules.2`) give while `run` runs the network.

    The network stops after the last of them. Graphs are kept where gradients are wanted, and hooks are removed
    whatever happens. Raises ConfigError E274 for a path that is no module, or one that `run` does not come by.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            found[name] = first(output)
            if len(found) == len(set(names)):
                raise _Enough

        return hook

    modules = dict(network.named_modules())
    for name in names:
        if name not in modules or not name:
            raise no_site(name, [path for path in modules if path.count(".") <= 3 and path])
    hooks = [modules[name].register_forward_hook(keep(name)) for name in dict.fromkeys(names)]
    try:
        if names:
            run()
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name in names if name not in found]:
        raise no_site(missing[0], list(found))
    return {name: found[name] for name in names}


def survey(network: nn.Module, names: Iterable[str], run: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of what the modules at `names` give during a whole run, in the order in which they come.

    Meant for a network on the meta device: nothing is computed. Modules that the run does not reach are left out.
    """
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            found[name] = tuple(first(output).shape)

        return hook

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def first(output: Any) -> Tensor:
    """The hidden states of a module that returns them alone, first of a tuple, or in an output class."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return output[0]
    return output.sample


def no_site(name: str, known: list[str]) -> ConfigError:
    """The error for a place that the network does not have."""
    fewest = min((one.count(".") for one in known), default=0)
    blocks = [one for one in known if one.count(".") == fewest]
    hint = did_you_mean(name, known[:200])
    return ConfigError("E274", f"the network has no site {name!r}", f"{hint} Its blocks: {', '.join(blocks)}.")
