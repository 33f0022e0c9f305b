"""Commands on many clips, and on what DVC reads."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands import MANY, Json, Overrides, app
from flows.terminal.arguments import server_answers, split_evaluation, split_manifest, split_runner
from flows.terminal.exits import answer, show, stop_at_once
from retake.errors import ConfigError


@app.command(rich_help_panel=MANY)
def dataset(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MANIFEST] [SETTINGS]...",
            help="A manifest (CSV, JSON lines, DAVIS tree or folder of videos), and settings as key=value.",
            show_default=False,
        ),
    ] = None,
    commit: Annotated[
        bool | None,
        typer.Option(
            help="Write params.yaml, put results under artifacts/ and record them in dvc.lock; the default if no "
            "manifest is given. Otherwise results go to artifacts/datasets/NAME.",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        str, typer.Option(help="With the value quarantined: also try again the edits that an earlier run gave up.")
    ] = "",
    only_plan: Annotated[bool, typer.Option("--plan", help="Only report what the run would take.")] = False,
    as_json: Json = False,
) -> None:
    """Make every edit of every clip of a dataset; clips that fail are listed with the error, the rest is done.
    Example: retake dataset clips.csv edit.reference=cat.png."""
    from flows.terminal.console import Console

    chosen, rest = split_runner(split_manifest(list(words or [])))
    record = all("=" in word or word.startswith("~") for word in words or []) if commit is None else commit
    name, rest = split_evaluation(rest)
    if name is not None:
        if only_plan:
            raise ConfigError("E215", "an evaluation has no plan", "Try it on a few pairs: evaluation.first=2")
        print("retake: this is now a command of its own: retake evaluate", " ".join([name, *rest]), file=sys.stderr)
        evaluate(name, rest, as_json=as_json)
        return
    if retry not in ("", "quarantined"):
        raise ConfigError("E215", f"--retry takes 'quarantined', not {retry!r}", "What failed is tried again anyway.")
    console = Console(quiet=as_json)
    if only_plan:
        from flows.datasets import run as room
        from flows.datasets.plan import lines
        from flows.places import open_store

        found = room.plan(open_store(), console, rest, [retry] if retry else [])
        answer(as_json, found.as_json(), lines(found))
        if found.unreadable or "quarantined" in found.settled:  # as the run will
            raise typer.Exit(3)
        return
    if chosen == "prefect" or (chosen == "auto" and server_answers(console.say)):
        from flows.dataset import process_dataset

        stop_at_once()
        done = process_dataset(rest, record, retry)
    else:
        from flows.datasets import run as room
        from flows.places import open_store
        from flows.runners import Local

        runner = Local(open_store(), console)
        done = room.process(runner, console, rest, record, [retry] if retry else [])
    if as_json:
        show(done)
    if done["counts"].keys() & {"failed", "quarantined"}:
        raise typer.Exit(3)


@app.command(rich_help_panel=MANY)
def evaluate(
    name: Annotated[str, typer.Argument(help="An evaluation in params/evaluation/, such as moca.")],
    overrides: Overrides = None,
    pairs: Annotated[
        str | None, typer.Option(help="A CSV of pairs, short for evaluation.pairs=FILE.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare methods and their variants over pairs of a clip and an edit to make in it. Example:
    retake evaluate moca --pairs mine.csv evaluation.first=12 evaluation.seeds=[0,1,2]"""
    from flows.experiments import evaluation
    from flows.places import open_store
    from flows.runners import Local
    from flows.settings.overrides import quoted
    from flows.terminal.console import Console

    console = Console(quiet=as_json)
    _, rest = split_runner([*(overrides or []), *([f"evaluation.pairs={quoted(pairs)}"] if pairs else [])])
    done = evaluation.evaluate(Local(open_store(), console, console.outcome), console, name, rest)
    answer(as_json, done, evaluation.lines(done), done["outputs"])
    if done["failed"]:
        raise typer.Exit(3)
