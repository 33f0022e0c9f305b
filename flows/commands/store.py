"""Commands on the store: check it, make room in it, share it."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import STORE, Clip, Json, app
from flows.terminal.arguments import check_clip
from flows.terminal.exits import answer, show
from retake.errors import IntegrityError


@app.command(rich_help_panel=STORE)
def verify(
    mend: Annotated[bool, typer.Option("--repair", help="Restore what is damaged.")] = False,
    remote: Annotated[
        str | None, typer.Option(help="With --repair: the remote to fetch from, a name of `dvc remote list`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hash everything in the store and set aside what is damaged: the next run computes it again. With --repair it is
    fetched from DVC's remote or computed again now. The exit status is 6 if damage is left."""
    from flows.upkeep import verify as checkup
    from retake.store import warn

    found = checkup.verify_store()
    mended = checkup.repair([*found["affected"], *found["set_aside"]], remote, warn) if mend else None
    answer(as_json, found | {"repair": mended}, checkup.lines(found, mended))
    # What only quarantine knows of is tried, but is no damage: its settings may be long gone.
    affected = [result for result in mended["left"] if result in found["affected"]] if mended else found["affected"]
    left = affected if mended else found["damaged"] or affected
    if left:
        what = (
            f"the store holds damage: {len(found['damaged'])} objects set aside, {len(left)} results to be made again"
        )
        needed = "its clip, a run of its dataset, or a remote that has it is needed."
        now = needed if mended else "retake verify --repair does so for artifacts/edits."
        raise IntegrityError("E604", what, f"The next run that needs it makes it again; {now}")


@app.command(rich_help_panel=STORE)
def gc(
    max_size: Annotated[str, typer.Option(help="Size to which the store is reduced, such as 20GB.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; only list what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the least recently used results until the store fits a size; pinned ones and those in dvc.lock stay."""
    from flows.upkeep import housekeeping

    done = housekeeping.make_room(max_size, dry_run)
    answer(as_json, done, housekeeping.lines(done))


@app.command(rich_help_panel=STORE)
def pin(
    edit: Annotated[str, typer.Argument(help="CLIP/ID, as retake report lists them.")],
    off: Annotated[bool, typer.Option("--off", help="Remove the pin.")] = False,
    as_json: Json = False,
) -> None:
    """Protect an edit and all results that it uses from `retake gc`."""
    from flows.upkeep import housekeeping

    done = housekeeping.pin(edit, not off)
    show(done) if as_json else print(f"{edit} is {'let go' if off else 'pinned'}")
    if done["lacking"] and not as_json:
        print(f"{done['lacking']} of its results are not in the store any more: run the edit again to have them kept")


@app.command(rich_help_panel=STORE)
def forget(
    clip: Clip,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; only list what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Delete everything that was made from a clip: results in the store, pinned or not, and the folders of its
    edits. Says which folders of sweeps, exports and datasets still show it."""
    from flows.upkeep import housekeeping

    check_clip(clip)
    done = housekeeping.forget(clip, dry_run)
    if as_json:
        show(done)
        return
    verb = "would be removed" if dry_run else "removed"
    print("\n".join([*housekeeping.lines(done), *(f"{verb}  {folder}" for folder in done["folders"])]))
    for edit in done["pins"]:
        print(f"{edit} {'is' if dry_run else 'was'} pinned, which does not keep it: retake pin {edit} --off")
    if done["left"]:
        print("\n  ".join(["these are no edit's and still show the clip; remove them yourself:", *done["left"]]))


Name = Annotated[str | None, typer.Option(help="A name of `dvc remote list`; by default DVC's default remote.")]


@app.command(rich_help_panel=STORE)
def push(remote: Name = None, as_json: Json = False) -> None:
    """Send every result that a DVC remote lacks, so that colleagues need not compute it."""
    from flows.upkeep import housekeeping

    told_moved("sent", housekeeping.push(remote), as_json)


@app.command(rich_help_panel=STORE)
def pull(remote: Name = None, as_json: Json = False) -> None:
    """Fetch every result that a DVC remote has and the store lacks. Edits find them: nothing is computed twice."""
    from flows.upkeep import housekeeping

    told_moved("fetched", housekeeping.pull(remote), as_json)


def told_moved(verb: str, moved: dict[str, int], as_json: bool) -> None:
    from retake.machine.disk import format_bytes

    if as_json:
        show(moved)
        return
    print(f"{verb} {moved['records']} results: {moved['objects']} objects, {format_bytes(moved['bytes'])}")
    if moved["broken"]:
        print(f"{moved['broken']} results are damaged and were left where they are")
