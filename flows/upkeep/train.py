"""Training, from the command line: which target, how long, and what to type to go on."""

from __future__ import annotations

from pathlib import Path

from flows.terminal.console import Console
from retake.errors import ConfigError, did_you_mean

PAIRS = 32  # of every clip
TARGETS = ("embedded", "motionv2v")


def run(
    target: str,
    size: str,
    part: str | None,
    minutes: float,
    folder: Path,
    on_shipped: bool,
    further: bool,
    clips: str | None = None,
) -> bool:
    """Train a target for at most so long; whether it is finished. clips: a manifest of real clips of which motionv2v
    learns, too.

    Raises ConfigError E206 for a target that there is not, or that learns from no clips, E247 for a size or part, or a
    part that needs others first, what `counterfactuals.render` raises, KeyboardInterrupt when interrupted."""
    if target not in TARGETS:
        known = did_you_mean(target, list(TARGETS))
        raise ConfigError("E206", f"there is nothing to train that is called {target!r}", known)
    if target == "motionv2v":
        part, on_shipped = part or "control", True
    elif clips is not None:
        raise ConfigError("E206", f"{target} learns from no clips of yours", "retake train motionv2v --clips does.")
    import torch

    from retake.training import embedded
    from retake.training.loop import Stopped

    console = Console(quiet=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if clips is not None:
            from flows.upkeep import counterfactuals

            shop = embedded.workshop(size, folder, part, device, on_shipped=on_shipped)
            counterfactuals.render(clips, shop, PAIRS, console)
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
