"""Training, from the command line: which target, how long, and what to type to go on."""

from __future__ import annotations

import time
from pathlib import Path

from flows.terminal.console import Console
from retake.errors import ConfigError, did_you_mean

PAIRS = 32  # of every clip
TARGETS = ("embedded", "motionv2v", "moalign")
STAGES = {"teacher": "video_mae", "subspace": "motion_subspace", "align": "aligned"}
"""Of moalign, in their order: the part that each trains."""


def run(
    target: str,
    size: str,
    part: str | None,
    minutes: float,
    folder: Path,
    on_shipped: bool,
    further: bool,
    clips: str | None = None,
    stage: str | None = None,
) -> bool:
    """Train a target for at most so long; whether it is finished. clips: a manifest of real clips of which motionv2v
    learns, too. stage: of moalign, all of them unless one is named.

    Raises ConfigError E206 for a target or a stage that there is not, or a target that learns from no clips, E247 for a
    size or part, or a part that needs others first, what `counterfactuals.render` raises, KeyboardInterrupt when
    interrupted."""
    if target not in TARGETS:
        known = did_you_mean(target, list(TARGETS))
        raise ConfigError("E206", f"there is nothing to train that is called {target!r}", known)
    if target == "motionv2v":
        part, on_shipped = part or "control", True
    if target == "moalign":
        on_shipped = True
    if stage is not None and (target != "moalign" or stage not in STAGES):
        known = (
            did_you_mean(stage, list(STAGES)) if target == "moalign" else "Stages are those of: retake train moalign"
        )
        raise ConfigError("E206", f"{target} has no stage {stage!r}", known)
    if clips is not None and part != "control":
        raise ConfigError(
            "E206", "only the control branch learns from clips of yours", "retake train motionv2v --clips"
        )
    import torch

    from retake.training import embedded
    from retake.training.loop import Stopped

    console = Console(quiet=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    until = time.monotonic() + 60 * minutes
    try:
        done = clips is None or pairs(clips, size, folder, device, further, until, console)
        wanted = [STAGES[stage]] if stage else list(STAGES.values()) if target == "moalign" and not part else [part]
        for one in wanted:
            left = (until - time.monotonic()) / 60
            done = done and embedded.run(
                size, folder, one, left, device, on_shipped=on_shipped, further=further, say=console.say
            )
    except Stopped:  # the state has been written; it ends as every command that is interrupted
        raise KeyboardInterrupt from None
    if done:
        how = (
            [f"--part {' '.join(map(str, wanted))}"] * (wanted != [None])
            + ["--on-shipped"] * on_shipped
            + ["--further"] * further
        )
        export = " ".join(["python -m retake.training.export", f"--size {size}", f"--folder {folder}", *how])
        console.say(f"finished: {folder / size}. Write what ships, or elsewhere with --to FOLDER: {export}")
    else:
        console.say("not finished: the same command goes on from here")
    return done


def pairs(clips: str, size: str, folder: Path, device: str, further: bool, until: float, console: Console) -> bool:
    """Make the pairs of clips, until a moment of time.monotonic(); whether all are there. Raises ConfigError E247 for a
    branch that would not learn from them."""
    from flows.upkeep import counterfactuals
    from retake.training import embedded

    shop = embedded.workshop(size, folder, "control", device, on_shipped=True, further=further)
    if "control" not in shop.wanted("control"):
        raise ConfigError(
            "E247",
            f"the control branch in {folder} is trained to its end, and would not learn from these clips",
            "Begin one in another --folder, with all clips.",
        )
    return counterfactuals.render(clips, shop, PAIRS, console, until)
