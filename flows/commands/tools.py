"""Commands that DVC and Prefect call, and those two themselves."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from flows.commands import TOOLS, Json, Overrides, app
from flows.terminal.exits import show
from retake.errors import ConfigError

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(rich_help_panel=TOOLS)
def stage(name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")], as_json: Json = False) -> None:
    """Run one stage over the whole dataset, as dvc.yaml does: reads params.yaml, writes artifacts/NAME."""
    from flows.datasets import run
    from flows.terminal.console import Console

    outcome = run.run_stage(name, Console(quiet=as_json))
    if as_json:
        show(outcome)


@app.command(rich_help_panel=TOOLS)
def params(
    overrides: Overrides = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; only check whether params.yaml is current.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write params.yaml, the composed settings that DVC reads."""
    from flows.places import PROJECT, require_project
    from flows.settings.compose import compose, read_params, validate
    from retake import dvc

    require_project()
    if check:
        if read_params() != compose(list(overrides or [])):
            raise ConfigError("E202", "params.yaml is not what params/ composes to", "Write it: retake params")
    else:
        validate(compose(list(overrides or [])))
        dvc.compose(PROJECT, list(overrides or []))
    if as_json:
        show({"params": str(PROJECT / "params.yaml"), "written": not check})
    elif not check:
        print(PROJECT / "params.yaml")


@app.command(context_settings=PASSED_ON, rich_help_panel=TOOLS)
def prefect(context: typer.Context) -> None:
    """Prefect's own command, for which the flows of this project can be imported. Example:
    retake prefect worker start --pool retake"""
    become("prefect", context.args)


@app.command(context_settings=PASSED_ON, rich_help_panel=TOOLS)
def dvc(context: typer.Context) -> None:
    """DVC's own command, also where only `retake` is on the PATH. Example: retake dvc repro"""
    become("dvc", context.args)


def become(module: str, words: list[str]) -> None:
    """Go on as another program of this environment."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606  no shell
