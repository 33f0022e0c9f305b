"""Commands on one clip: edit it, look at it, score it, export it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import EDITING, Box, Clip, Debug, Json, Overrides, Until, Verbose, app
from flows.terminal.arguments import check_clip, server_answers, split_runner, with_box
from flows.terminal.exits import answer, open_page, show, stop_at_once


@app.command(rich_help_panel=EDITING)
def edit(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    until: Until = "report",
    show_page: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Edit a clip. Example: retake edit dog.mp4 --box 70,40,300,460 edit.reference=cat.png"""
    from flows.editing import edit as job
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console
    from retake.health.verdict import said
    from retake.machine.disk import format_bytes

    check_clip(clip)
    chosen, rest = split_runner(with_box(overrides, box))
    console = Console(as_json, verbose)
    if chosen == "prefect" or (chosen == "auto" and server_answers(console.say)):
        from flows.edit import edit_clip

        stop_at_once()
        done = edit_clip(clip, rest, until)
    else:
        if console.live:
            planned = job.plan(clip, rest, until, explain=False)[1]
            console.expect(
                [(p.stage, p.forecast.seconds if p.forecast else None) for p in planned if p.status != "cached"]
            )
        runner = Local(open_store(), console, console.outcome)
        done = job.edit(clip, rest, until=until, runner=runner, ready=console.plays).as_json()
    if show_page and "report" in done["outputs"]:
        open_page(Path(done["outputs"]["report"]))
    if as_json:
        show(done)
        return
    reused = sum(s["status"] == "cached" for s in done["stages"])
    total = sum(s["bytes"] for s in done["stages"])
    console.end()
    console.say(f"\nedit {done['edit']}: {len(done['stages'])} stages, {reused} from the store, {format_bytes(total)}")
    for identity, found in done["health"].items():
        console.say(f"{'mask' if len(done['health']) == 1 else f'mask {identity}':8} {said(found)}")
    for name, path in done["outputs"].items():
        print(f"{name:8} {path}")


@app.command(rich_help_panel=EDITING)
def plan(
    clip: Clip, overrides: Overrides = None, box: Box = None, until: Until = "report", as_json: Json = False
) -> None:
    """Report what `edit` would run, and why, without running it."""
    from flows.editing import edit as job
    from flows.planning.table import table

    check_clip(clip)
    _, rest = split_runner(with_box(overrides, box))
    identity, planned = job.plan(clip, rest, until)
    answer(as_json, {"edit": identity, "stages": [p.as_json() for p in planned]}, table(planned))


@app.command(rich_help_panel=EDITING)
def why(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    as_json: Json = False,
) -> None:
    """Report which setting, input or version makes a stage run again, compared with its most similar earlier result."""
    from flows import graph
    from flows.editing import edit as job

    if stage not in (None, "correction") and stage not in graph.STAGES:
        graph.closure(job.settings([]), stage)
    _, rest = split_runner(with_box(overrides, box))
    # A prior is asked about without an edit, whose settings may well be missing yet.
    until = "masks" if stage == "correction" else stage if stage in graph.PRIORS else "report"
    _, planned = job.plan(clip, rest, until)
    chosen = [p for p in planned if stage in (None, p.stage)]
    found = {"stages": [{"stage": p.stage, "status": p.status, "why": p.why} for p in chosen]}
    answer(as_json, found, (f"{p.stage:13} {p.why or 'in the store'}" for p in chosen))


@app.command(rich_help_panel=EDITING)
def sweep(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    rank: Annotated[str | None, typer.Option(help="The metric by which the table is sorted, best first.")] = None,
    as_json: Json = False,
) -> None:
    """Edit a clip under every combination of some settings. Example: retake sweep dog.mp4 --box 70,40,300,460
    edit.reference=cat.png edit.feather=2,4,8 edit.grow=0,2 --rank warp_error_edit"""
    from flows.experiments import sweep as room
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console

    check_clip(clip)
    console = Console(quiet=as_json)
    _, rest = split_runner(with_box(overrides, box))
    runner = Local(open_store(), console, lambda outcome: console.outcome(outcome) if outcome.status == "ran" else None)
    done = room.sweep(runner, console, clip, rest, rank)
    answer(as_json, done, room.lines(done), done["outputs"])
    if done["failed"]:
        raise typer.Exit(3)


@app.command(rich_help_panel=EDITING)
def metrics(
    source: Annotated[str, typer.Argument(help="The clip before the edit.")],
    result: Annotated[str, typer.Argument(help="The clip after the edit, from any tool.")],
    overrides: Overrides = None,
    mask: Annotated[
        str | None, typer.Option(help="Masks of the edited region: a DAVIS folder, PNGs or a mask video.")
    ] = None,
    box: Box = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score any result against its source. Example: retake metrics dog.mp4 theirs.mp4 --mask masks/ metrics=all"""
    from flows.editing import metrics as score
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console

    for clip in (source, result):
        check_clip(clip)
    console = Console(as_json, verbose)
    _, rest = split_runner(with_box(overrides, box))
    found = score.score(source, result, rest, mask=mask, runner=Local(open_store(), console, console.outcome))
    console.end()
    answer(as_json, found.as_json(), found.lines(), found.outputs)


@app.command(rich_help_panel=EDITING)
def interpret(
    clip: Clip,
    overrides: Overrides = None,
    point: Annotated[
        str | None, typer.Option(help="A place x,y in pixels of the clip; the middle, if none is given.")
    ] = None,
    frame: Annotated[int, typer.Option(min=0, help="Number of the selected frame in which that place is.")] = 0,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only report what it would run.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Show what moves as a point of a clip does, by a diffusion model's features. Example: retake interpret dog.mp4
    --point 320,240 model=animatediff"""
    from flows.editing import interpret as room
    from flows.places import open_store
    from flows.planning.table import table
    from flows.runners import Local
    from flows.terminal.arguments import place
    from flows.terminal.console import Console

    check_clip(clip)
    _, rest = split_runner(list(overrides or []))
    if only_plan:
        planned = room.plan(clip, rest, place(point), frame)
        answer(as_json, {"stages": [p.as_json() for p in planned]}, table(planned))
        return
    console = Console(as_json, verbose)
    runner = Local(open_store(), console, console.outcome)
    done = room.interpret(clip, rest, point=place(point), frame=frame, runner=runner)
    console.end()
    answer(as_json, done.as_json(), (), done.outputs)


@app.command(rich_help_panel=EDITING)
def frame(
    clip: Clip,
    number: Annotated[int, typer.Argument(min=0, help="Number of the selected frame, counted from 0.")] = 0,
    overrides: Overrides = None,
    box: Box = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the PNG.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No grid: a frame to paint into, for edit.anchors.")] = False,
    as_json: Json = False,
) -> None:
    """Write one frame as a PNG with a grid in source pixels, to read a box from."""
    from flows.editing import frame as still

    path = still.write_frame(clip, number, with_box(overrides, box), box, out, grid=not plain)
    answer(as_json, {"frame": str(path)}, [str(path)])


@app.command(rich_help_panel=EDITING)
def pick(
    clip: Clip,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page on which boxes and points are picked with the mouse, with the command to copy. Needs no server."""
    from flows.editing import pick as room

    check_clip(clip)
    done = room.write_page(clip, list(overrides or []), out)
    answer(as_json, done.as_json(), done.lines())


@app.command(rich_help_panel=EDITING)
def report(
    clip: Annotated[str | None, typer.Argument(help="Folder name under artifacts/edits.")] = None,
    show_page: Annotated[bool, typer.Option("--open", help="Open the page of all edits in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """List the edits that were made, newest first, and write a page of them all."""
    from flows.editing.history import edits, lines, write_page

    found = edits(clip)
    page = write_page(found if clip is None else edits()) if found else None
    if show_page and page:
        open_page(page)
    answer(as_json, {"edits": found, "page": str(page) if page else None}, lines(found), {"page": page} if page else {})
    if not found and not as_json:
        print("no edit was made here yet: retake edit CLIP --box x0,y0,x1,y1 edit.reference=PICTURE", file=sys.stderr)


@app.command(rich_help_panel=EDITING)
def compare(
    edits: Annotated[list[str], typer.Argument(help="Two edits or more: CLIP/ID as `retake report` lists them.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write the page to.")] = None,
    show_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Show edits of one clip side by side, on one page with one play bar."""
    from flows.editing.compare import compare as compared

    page = compared(edits, out)
    if show_page:
        open_page(page)
    answer(as_json, {"report": str(page)}, (), {"report": page})


@app.command(rich_help_panel=EDITING)
def export(
    clip: Annotated[str, typer.Argument(help="A clip, or an edit that was made: its folder, or CLIP/ID.")],
    overrides: Overrides = None,
    what: Annotated[
        str,
        typer.Option(
            help="What to write, separated by commas: frames, flow, depth, masks, region, tracks, edited_tracks, "
            "result."
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default one beside the clip's edits.")] = None,
    flow_format: Annotated[str, typer.Option(help="flo, kitti or npz.")] = "flo",
    depth_format: Annotated[str, typer.Option(help="png16, exr or npy.")] = "png16",
    tracks_format: Annotated[str, typer.Option(help="npz or json.")] = "npz",
    box: Box = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write flow, depth, masks or tracks as files for other tools. Example: retake export dog.mp4 --what flow,tracks"""
    from flows.editing import export as room
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console
    from retake.machine.disk import format_bytes

    check_clip(clip)
    _, rest = split_runner(with_box(overrides, box))
    console = Console(as_json, verbose)
    formats = room.Formats(flow_format, depth_format, tracks_format)
    names = [name.strip() for name in what.split(",") if name.strip()]
    runner = Local(open_store(), console, console.outcome)
    done = room.export(clip, names, out, rest, formats=formats, runner=runner)
    console.end("manifest.json")
    console.say(f"\n{done['files']} files, {format_bytes(int(done['bytes']))}")
    answer(as_json, done, (), {name: done[name] for name in ("manifest", *names)})


@app.command(rich_help_panel=EDITING)
def demo(
    method: Annotated[
        str | None,
        typer.Option(help="An example of one method instead: propagate, move, sdedit, moca, moft, ivediff ..."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Render a small clip, edit it, and change one setting: shows in half a minute what the cache does."""
    from flows.editing import demo as tour
    from flows.terminal.console import Console

    console = Console(quiet=as_json)
    done = tour.run(console) if method is None else tour.example(method, console)
    if as_json:
        show(done)
    elif method is not None:
        for name, path in done["outputs"].items():
            print(f"{name:8} {path}")
