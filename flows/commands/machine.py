"""Commands on the machine and the project: what is there, what lacks, training."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import MACHINE, Json, app
from flows.terminal.exits import answer, show


@app.command(rich_help_panel=MACHINE)
def init(
    folder: Annotated[
        Path | None, typer.Argument(help="The folder; by default the project that you are in, or this one.")
    ] = None,
    git: Annotated[bool, typer.Option(help="Start a git repository where the folder is in none.")] = True,
    dvc: Annotated[bool, typer.Option(help="Set DVC up where the folder has none.")] = True,
    as_json: Json = False,
) -> None:
    """Make a project of your own: settings laid over the shipped ones, a sample dataset, DVC's stages and Prefect's
    deployments. What is there already stays as it is."""
    from flows.places import PROJECT
    from flows.upkeep import project

    done = project.make(folder or PROJECT, git, dvc)
    answer(as_json, done, project.lines(done))


@app.command(rich_help_panel=MACHINE)
def doctor(
    as_json: Json = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Create what the Prefect server needs: a work pool with a limit, and automations."),
    ] = False,
    notify: Annotated[
        str | None, typer.Option(metavar="URL", help="With --fix: webhook that is notified of failed runs.")
    ] = None,
) -> None:
    """Check this machine: libraries, codecs, store, disk. Says what to type where something is wrong."""
    from flows.upkeep import doctor as checks
    from flows.upkeep import prefect_server
    from flows.upkeep import weights as weight_files

    for line in prefect_server.fix(notify) if fix or notify else []:
        print(f"made {line}", file=sys.stderr)
    found = checks.run()
    if as_json:
        show({"checks": found})
    else:
        for check in found:
            mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[check["state"]]
            print(f"{mark} {check['name']:12} {check['text']}" + (f"\n     {check['fix']}" if check["fix"] else ""))
            for line in weight_files.table(check.get("entries", [])):
                print(f"     {line}")
    if any(check["state"] == "fail" for check in found):
        raise typer.Exit(5)


@app.command(rich_help_panel=MACHINE)
def weights(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from the list, or org/repo[@revision].", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the weights that settings name, or fetch some. Example: retake weights raft_large"""
    from flows.terminal.console import Console
    from flows.upkeep import weights as weight_files

    found = weight_files.get(names, Console(quiet=as_json)) if names else weight_files.inventory()
    answer(as_json, {"weights": found}, weight_files.table(found))


@app.command(rich_help_panel=MACHINE)
def train(
    target: Annotated[str, typer.Argument(help="What to train: embedded, motionv2v, moalign, or ivediff.")],
    size: Annotated[str, typer.Option(help="cpu: hours on two cores; gpu: about 20 minutes on a large card.")] = "cpu",
    part: Annotated[str | None, typer.Option(help="Train only this part; an unknown name lists the parts.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after this time; the same command continues.")] = math.inf,
    folder: Annotated[Path, typer.Option(help="Folder of the training state.")] = Path("artifacts/training"),
    on_shipped: Annotated[bool, typer.Option("--on-shipped", help="Use the shipped parts as already trained.")] = False,
    clips: Annotated[
        str | None, typer.Option(help="Manifest or folder of real clips that a method learns from, too.")
    ] = None,
    further: Annotated[
        bool, typer.Option("--further", help="Begin with the part as it ships: one more round.")
    ] = False,
    stage: Annotated[
        str | None,
        typer.Option(help="Of moalign: teacher, subspace, align (the default), or lora. Of ivediff: image, clips."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Of moalign: weights of another video encoder.")] = None,
) -> None:
    """Train the small models that ship with Retake; a stopped training continues. Example:
    retake train embedded --size gpu --minutes 9"""
    from flows.upkeep import train as training

    training.run(target, size, part, minutes, folder, on_shipped, further, clips, stage, encoder=encoder)
