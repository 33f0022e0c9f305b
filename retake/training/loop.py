"""One training loop for every network: in slices, killed at any moment, gone on from where it was.

A run is a folder: state.safetensors (weights, their moving average, the optimiser's moments), state.json (step, time
spent), curve.jsonl (a line every few steps). They are written aside and renamed, so a kill leaves the last whole
state; the data of a step depends on the step alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from retake.machine.disk import atomic_path, write_atomic
from retake.training.muon import Muon, is_matrix


@dataclass(frozen=True)
class Plan:
    """How long and how fast: `steps` in all, learning rate `rate` after `warmup` steps, falling to nothing over the
    last share `cooldown`; hidden matrices at rate `muon` by that optimiser where it is given, all else by AdamW;
    gradients clipped at `clip`; `average`: decay of the weights' moving average."""

    steps: int
    rate: float
    muon: float = 0.0
    warmup: int = 200
    cooldown: float = 0.3
    clip: float = 1.0
    decay: float = 0.01
    average: float = 0.999

    def share_at(self, step: int) -> float:
        """Of the full learning rates."""
        left = (self.steps - step) / max(self.cooldown * self.steps, 1)
        return min(1.0, (step + 1) / self.warmup) * min(1.0, max(left, 0.0))


@dataclass(frozen=True)
class Slice:
    """One sitting: at most `minutes`, or until the process is asked to stop."""

    minutes: float = math.inf
    log_every: int = 20
    save_every: float = 120.0  # seconds
    look_every: float = 1800.0


class Stopped(Exception):
    """The process was asked to end; the state has been written."""


def train(
    folder: Path,
    model: nn.Module,
    loss_of: Callable[[int], tuple[Tensor, dict[str, float]]],
    plan: Plan,
    sitting: Slice,
    say: Callable[[str], None] = print,
    look: Callable[[], object] | None = None,
) -> bool:
    """Train the parameters of `model` that require gradients; returns whether all steps are done.

    loss_of: (step) -> loss and figures for the curve; draws its data from the step's number. The folder is made, or
    gone on from. look: called now and then, after the state was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimisers = optimisers_of(dict(zip(names, weights, strict=True)), plan)
    average = [p.detach().clone() for p in weights]
    step, spent = resume(folder, names, weights, average, optimisers)
    begun = saved = looked = time.monotonic()
    stop, sums, count, done = _StopSignal(), {}, 0, 0
    with stop:
        while step < plan.steps:
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * plan.share_at(step)
            loss, figures = loss_of(step)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(weights, plan.clip)
            for optimiser in optimisers:
                if torch.isfinite(norm):
                    optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            decay = min(plan.average, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, weight in zip(average, weights, strict=True):
                    mean.lerp_(weight, 1 - decay)
            step += 1
            if torch.isfinite(norm):  # a step that was not taken has no place in the curve
                for name, value in {"loss": float(loss.detach()), "norm": float(norm), **figures}.items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
            done += 1
            now = time.monotonic()
            ends = stop.asked or step == plan.steps or now - begun > 60 * sitting.minutes
            if done >= sitting.log_every or ends:
                row = {"step": step, "minutes": round((spent + now - begun) / 60, 2)}
                row |= {name: round(value / max(count, 1), 5) for name, value in sums.items()}
                with (folder / "curve.jsonl").open("a") as curve:
                    curve.write(json.dumps(row) + "\n")
                say(" ".join(f"{k}={v}" for k, v in row.items()))
                sums, count, done = {}, 0, 0
            looks = look is not None and now - looked > sitting.look_every and not ends
            if ends or looks or now - saved > sitting.save_every:
                save(folder, names, weights, average, optimisers, step, spent + now - begun)
                saved = now
            if looks and look is not None:
                look()
                looked = time.monotonic()
            if stop.asked:
                raise Stopped
            if ends:
                break
    return step >= plan.steps


def optimisers_of(weights: dict[str, nn.Parameter], plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, and beside it Muon for hidden matrices where the plan gives it a rate."""
    turned = {name: w for name, w in weights.items() if plan.muon and is_matrix(name, w)}
    rest = [w for name, w in weights.items() if name not in turned]
    made: list[torch.optim.Optimizer] = [AdamW(rest, plan.rate, betas=(0.9, 0.98), weight_decay=plan.decay)]
    if turned:
        made.append(Muon(turned.values(), plan.muon, weight_decay=plan.decay))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return made


def averaged(folder: Path, model: nn.Module) -> nn.Module:
    """Put the moving average of a run's weights into `model`. Raises FileNotFoundError where there is no run."""
    state = load_file(folder / "state.safetensors")
    wanted = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            kind, _, of = name.partition("/")
            if kind == "average":
                wanted[of].copy_(value)
    return model


def progress(folder: Path) -> dict[str, Any]:
    """What state.json says: step and seconds spent; zeros where there is no run."""
    try:
        return json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        return {"step": 0, "seconds": 0.0}


def resume(
    folder: Path,
    names: list[str],
    weights: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
) -> tuple[int, float]:
    """Read a run's state into place; returns its step and the seconds spent so far."""
    if not (folder / "state.safetensors").exists():
        return 0, 0.0
    state = load_file(folder / "state.safetensors")
    step = int(state["step"])
    trim(folder / "curve.jsonl", step)
    mine = {weight: optimiser for optimiser in optimisers for g in optimiser.param_groups for weight in g["params"]}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        if kind.startswith("moment."):
            moments.setdefault(name, {})[kind.removeprefix("moment.")] = value
    with torch.no_grad():
        for name, weight, mean in zip(names, weights, average, strict=True):
            weight.copy_(state[f"weight/{name}"])
            mean.copy_(state[f"average/{name}"])
            if name in moments:
                kept = {k: v if k == "step" else v.to(weight.device) for k, v in moments[name].items()}
                mine[weight].state[weight] = kept
    return step, float(state["seconds"])


def save(
    folder: Path,
    names: Iterable[str],
    weights: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    step: int,
    seconds: float,
) -> None:
    """Write a run's whole state aside, then rename it."""
    state = {"step": torch.tensor(step), "seconds": torch.tensor(seconds, dtype=torch.float64)}
    for name, weight, mean in zip(names, weights, average, strict=True):
        state[f"weight/{name}"], state[f"average/{name}"] = weight.detach(), mean
        for optimiser in optimisers:
            # Its keys are weights; asking for one that has taken no step would make it an entry.
            for kind, value in optimiser.state[weight].items() if weight in optimiser.state else ():
                state[f"moment.{kind}/{name}"] = value
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with atomic_path(folder / "state.safetensors", durable=True) as part:
        save_file(state, part)
    write_atomic(folder / "state.json", json.dumps({"step": step, "seconds": round(seconds, 1)}) + "\n")


def trim(curve: Path, step: int) -> None:
    """Drop rows after a step from a curve, which a killed run had reached and its successor reaches again; and half a
    row."""
    kept = []
    for line in curve.read_text().splitlines() if curve.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_atomic(curve, "".join(kept))


class _StopSignal:
    """Whether the process was asked to end (SIGTERM, Ctrl-C), without losing the step it is at."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopSignal:
        heard = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self.before = {s: signal.signal(s, self._ask) for s in heard}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
