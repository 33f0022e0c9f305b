"""Training, from the command line: which target, how long, and what to type to go on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.places import open_store
from flows.runners import Local
from flows.terminal.console import Console
from flows.upkeep import editing_clips, motion_studies, training_page
from retake.errors import ConfigError, did_you_mean
from retake.weights.local import require

PAIRS = 32  # of every clip
TARGETS = ("embedded", "motionv2v", "moalign", "ivediff")
STAGES = {
    "moalign": {"teacher": "video_mae", "subspace": "motion_subspace", "align": "aligned", "lora": "aligned_lora"},
    "ivediff": {"image": "ivediff_image", "clips": "ivediff"},
}
"""Of targets that have some, in their order: the part that each trains. The last of moalign is another way to the same
end."""
STUDIED = tuple(STAGES["moalign"].values())[1:]  # parts that learn from clips that motion is studied on
EDITING = tuple(STAGES["ivediff"].values())


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
    runner: Local | None = None,
    encoder: str | None = None,
) -> bool:
    """Train a target for at most so long; whether it is finished. clips: a manifest of real clips of which motionv2v,
    moalign and ivediff learn, too. stage: of moalign or ivediff, all of them unless one is named. runner: what makes
    the stages of clips.
    encoder: weights of another video encoder than the small one, of which moalign's later stages learn.

    Raises ConfigError E206 for a target or a stage that there is not, or a target that learns from no clips, E247 for a
    size or part, or a part that needs others first, what `counterfactuals.render` and `motion_studies.study` raise,
    KeyboardInterrupt when interrupted."""
    if target not in TARGETS:
        known = did_you_mean(target, list(TARGETS))
        raise ConfigError("E206", f"there is nothing to train that is called {target!r}", known)
    if target == "motionv2v":
        part, on_shipped = part or "control", True
    stages = STAGES.get(target, {})
    on_shipped = on_shipped or bool(stages)
    if stage is not None and stage not in stages:
        known = did_you_mean(stage, list(stages)) if stages else f"Stages are those of: {', '.join(STAGES)}."
        raise ConfigError("E206", f"{target} has no stage {stage!r}", known)
    if stages and (further or (part and stage)):
        raise ConfigError(
            "E206",
            f"{target} has no further round" if further else "a stage is a part: give --part or --stage, not both",
            "Begin it in another --folder." if further else f"retake train {target} --stage {[*stages][-1]}",
        )
    wanted = [part]
    if stages and not part:
        wanted = [stages[stage]] if stage else list(EDITING)
        if target == "moalign" and stage is None:
            wanted = ["video_mae"] * (encoder is None) + ["motion_subspace", "aligned"]
    if clips is not None and not {"control", *STUDIED, *EDITING} & set(wanted):
        raise ConfigError(
            "E206",
            "only motionv2v's control branch, moalign's subspace and alignment, and ivediff learn from clips of yours",
            "retake train motionv2v --clips MANIFEST, or retake train moalign --stage subspace --clips MANIFEST",
        )
    if encoder is not None:
        if not set(STUDIED) & set(wanted):
            raise ConfigError(
                "E206",
                "only moalign's subspace and alignment learn from a video encoder",
                "retake train moalign --stage subspace --encoder WEIGHTS",
            )
        require(encoder)
    from retake.training.loop import Stopped

    console = Console(quiet=False)
    runner = runner or Local(open_store(), console)
    training = Training(
        size, folder, on_shipped, further, clips, runner, console, time.monotonic() + 60 * minutes, encoder
    )
    try:
        done = all(training.made(one) for one in wanted)
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


@dataclass
class Training:
    """One sitting, until a moment of time.monotonic()."""

    size: str
    folder: Path
    on_shipped: bool
    further: bool
    clips: str | None
    runner: Local
    console: Console
    until: float
    encoder: str | None = None

    def made(self, part: str | None) -> bool:
        """Train a part, or all; whether it is finished."""
        import torch

        from retake.training import embedded

        device = "cuda" if torch.cuda.is_available() else "cpu"
        files: Any = ()
        if self.clips is not None and part == "control":
            if not pairs(self.clips, self.size, self.folder, device, self.further, self.until, self.console):
                return False
        elif self.clips is not None and part in (*EDITING, *STUDIED):
            shop = self.shop(part, device)
            if part not in shop.wanted(part):
                self.console.say(f"{part} is trained to its end: begin one in another --folder to learn from more")
                self.paged(shop, part)
                return True
        if self.clips is not None and part in EDITING:
            made = editing_clips.render(self.clips, self.shop(part, device), self.runner, self.console, self.until)
            if made is None:
                return False
            files = [(path, []) for path in made]
        elif self.clips is not None and part in STUDIED:
            shop = self.shop(part, device)
            if not shop.as_shipped("video_vae"):
                raise ConfigError(
                    "E247",
                    "clips are coded by the video autoencoder that ships, and this folder has one of its own",
                    "Leave --clips out, or train in another --folder.",
                )
            encoder = self.encoder or shop.encoder_folder()
            files = motion_studies.study(self.clips, self.runner, encoder, self.console.say, self.until)
            if files is None:
                return False
        left = (self.until - time.monotonic()) / 60
        how = {
            "on_shipped": self.on_shipped,
            "further": self.further,
            "say": self.console.say,
            "clips": files,
            "encoder": self.encoder,
        }
        done = embedded.run(self.size, self.folder, part, left, device, **how)
        if done and part is not None and any(part in parts.values() for parts in STAGES.values()):
            self.paged(self.shop(part, device), part, files)
        return done

    def paged(self, shop: Any, part: str, files: Any = ()) -> None:
        """Write the page of a part that is trained, unless it is there."""
        page, state = (shop.folder / part / name for name in ("report.html", "state.safetensors"))
        if state.exists() and not (page.exists() and page.stat().st_mtime >= state.stat().st_mtime):
            self.console.say(f"report: {training_page.write(shop, part, files)}")

    def shop(self, part: str | None, device: str) -> Any:
        from retake.training import embedded

        return embedded.workshop(
            self.size, self.folder, part, device, on_shipped=self.on_shipped, further=self.further, encoder=self.encoder
        )


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
