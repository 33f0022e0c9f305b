"""What all commands share: the program, the words that they take, and what they say of themselves.

Each module beside this one adds its commands to `app`; imports inside them are lazy, so that help is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="retake",
    help="Edit video as a cached pipeline: every expensive stage runs once.",
    epilog="Start with: retake demo. Settings are key=value pairs, as in edit.strength=0.5; see params/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Groups of commands in the help, in which they stand in this order.
EDITING = "One clip"
MANY = "Many clips"
STORE = "The store"
MACHINE = "This machine and your project"
TOOLS = "For DVC and Prefect"

Clip = Annotated[str, typer.Argument(help="A video, a folder of images, DAVIS_ROOT:name, or sprites:drift.")]


def completed(incomplete: str) -> list[str]:
    from flows.terminal.completion import settings

    return settings(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings: key=value, group=choice.", show_default=False, autocompletion=completed),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Box = Annotated[
    str | None, typer.Option(help="Box around the object: x0,y0,x1,y1 in pixels of the source's first frame.")
]
Until = Annotated[
    str,
    typer.Option(
        help="Stop after this stage: frames, optical_flow, depth, masks, region, tracks, edited_tracks, latents, "
        "inversion, edit, decode or metrics. There is a report of what was made."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print technical notes, too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("retake"))
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=show_version)
]


@app.callback()
def root(version: Version = False) -> None:
    """Edit video as a cached pipeline: every expensive stage runs once."""
