"""Training, from the command line: which target, how long, and what to type to go on."""

from __future__ import annotations

from pathlib import Path

from flows.terminal.console import Console
from retake.errors import ConfigError, did_you_mean

TARGETS = ("embedded", "motionv2v")


def run(
    target: str, size: str, part: str | None, minutes: float, folder: Path, on_shipped: bool, further: bool
) -> bool:
    """Train a target for at most so long; whether it is finished. Raises ConfigError E206 for a target that there is
    not, E247 for a size or part, or a part that needs others first, KeyboardInterrupt when interrupted."""
    if target not in TARGETS:
        known = did_you_mean(target, list(TARGETS))
        raise ConfigError("E206", f"there is nothing to train that is called {target!r}", known)
    if target == "motionv2v":
        part, on_shipped = part or "control", True
    import torch

    from retake.training import embedded
    from retake.training.loop import Stopped

    console = Console(quiet=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        done = embedded.run(
            size, folder, part, minutes, device, on_shipped=on_shipped, further=further, say=console.say
        )
    except Stopped:  # the state has been written; it ends as every command that is interrupted
        raise KeyboardInterrupt from None
    if done:
        export = f"python -m retake.training.export --size {size} --folder {folder}"
        console.say(f"finished: {folder / size}. Write what ships: {export}")
    else:
        console.say("not finished: the same command goes on from here")
    return done
