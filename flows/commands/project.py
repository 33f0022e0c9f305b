"""Commands on the project: make one, and call the programs that work on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import Json, app
from flows.terminal.exits import answer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
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


@app.command(context_settings=PASSED_ON)
def prefect(context: typer.Context) -> None:
    """Prefect's own command, for which the flows of this project can be imported. Example:
    retake prefect worker start --pool retake"""
    become("prefect", context.args)


@app.command(context_settings=PASSED_ON)
def dvc(context: typer.Context) -> None:
    """DVC's own command, also where only `retake` is on the PATH. Example: retake dvc repro"""
    become("dvc", context.args)


def become(module: str, words: list[str]) -> None:
    """Go on as another program of this environment."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606  no shell
