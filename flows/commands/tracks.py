"""Commands on tracks that are edited: where things shall move, before they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands import EDITING, Box, Clip, Json, Overrides, app
from flows.terminal.arguments import check_clip, split_runner, with_box
from flows.terminal.exits import answer

tracks = typer.Typer(help="Look at edited tracks before anything moves.", no_args_is_help=True)
app.add_typer(tracks, name="tracks", rich_help_panel=EDITING)


@tracks.command("show")
def show_tracks(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default one beside the clip's edits.")] = None,
    as_json: Json = False,
) -> None:
    """Draw where the points of a clip are and shall be. Example: retake tracks show dog.mp4 --box 70,40,300,460
    'edited_tracks.edits=[{do: move, by: [120, 0], frames: [0, 40]}]'"""
    from flows.editing import track_preview
    from flows.places import open_store
    from flows.runners import Local
    from flows.terminal.console import Console

    check_clip(clip)
    console = Console(as_json, verbose=True)
    _, rest = split_runner(with_box(overrides, box))
    done = track_preview.show(clip, rest, out, Local(open_store(), console, console.outcome))
    console.print_notes()
    line = f"of {done['points']} points {done['moved']} move, by up to {done['longest_px']:g} px"
    line += f"; {done['retimed']} show another moment" * bool(done["retimed"])
    line += f"; {done['hidden']} are hidden at some time" * bool(done["hidden"])
    told = [line]
    if done["lost"]:
        told.append(
            f"on {done['lost']} of {done['frames']} frames none of them is followed: other tracks by tracks.spacing, "
            "tracks.window, tracks=given"
        )
    if done["outside"]:
        told.append(f"on {done['outside']} of {done['frames']} frames all that are followed lie outside the picture")
    answer(as_json, done, told, {name: done[name] for name in ("video", "strip")})


@tracks.command("schema")
def schema() -> None:
    """Print the JSON Schema of a file of track edits."""
    from flows.terminal.exits import show
    from retake.track_edits import program

    show(program.schema())
