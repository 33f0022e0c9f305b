"""The command line. Data on stdout, messages on stderr, `--json` for machines; imports are lazy so that help is quick.

Exit codes: 0 done, 2 settings, 3 some clips failed, 4 media refused, 5 environment, 6 integrity, 130 interrupted.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.ending import INTERRUPTED, command_path, fail, interrupted, show, stop_at_once, told_stopped
from flows.words import (
    box_of,
    check_clip,
    server_answers,
    split_evaluation,
    split_manifest,
    split_runner,
    with_box,
)
from retake.errors import ConfigError, RetakeError

app = typer.Typer(
    name="retake",
    help="Edit video as a cached pipeline: every expensive stage runs once.",
    epilog="Start with: retake demo. Settings read key=value, as in edit.strength=0.5; their files are in params/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Clip = Annotated[str, typer.Argument(help="A video, a folder of images, DAVIS_ROOT:name, or sprites:drift.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings: key=value, group=choice.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Box = Annotated[str | None, typer.Option(help="x0,y0,x1,y1 around the object, pixels of the source's first frame.")]
Until = Annotated[
    str,
    typer.Option(
        help="Stop after frames, optical_flow, depth, masks, region, tracks, latents, inversion, edit, decode or "
        "metrics; the priors make a report."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Edit video as a cached pipeline: every expensive stage runs once."""
    if version:
        from importlib.metadata import version as installed

        print(installed("retake"))
        raise typer.Exit


@app.command()
def edit(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    until: Until = "report",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Edit a clip. Example: retake edit dog.mp4 --box 70,40,300,460 edit.reference=cat.png"""
    from flows import job
    from flows.console import Console, size
    from flows.runners import Local

    check_clip(clip)
    chosen, rest = split_runner(with_box(overrides, box))
    console = Console(quiet=as_json)
    if chosen == "prefect" or (chosen == "auto" and server_answers(console.say)):
        from flows.edit import edit_clip

        stop_at_once()
        done = edit_clip(clip, rest, until)
    else:
        runner = Local(job.open_store(), console, console.outcome)
        done = job.edit(clip, rest, until=until, runner=runner).as_json()
    if as_json:
        show(done)
        return
    reused = sum(s["status"] == "cached" for s in done["stages"])
    total = sum(s["bytes"] for s in done["stages"])
    console.say(f"\nedit {done['edit']}: {len(done['stages'])} stages, {reused} from the store, {size(total)}")
    for name, path in done["outputs"].items():
        print(f"{name:8} {path}")


@app.command()
def plan(
    clip: Clip, overrides: Overrides = None, box: Box = None, until: Until = "report", as_json: Json = False
) -> None:
    """Say what `edit` would run, and why; start nothing."""
    from flows import job
    from flows.planned import table

    check_clip(clip)
    _, rest = split_runner(with_box(overrides, box))
    identity, planned = job.plan(clip, rest, until)
    if as_json:
        show({"edit": identity, "stages": [p.as_json() for p in planned]})
        return
    print("\n".join(table(planned)))


@app.command()
def sweep(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    rank: Annotated[str | None, typer.Option(help="The metric that orders the table, the best first.")] = None,
    as_json: Json = False,
) -> None:
    """Edit a clip under every combination of some settings. Example: retake sweep dog.mp4 --box 70,40,300,460
    edit.reference=cat.png edit.strength=0.5,1 edit.feather=2,8 --rank warp_error_edit"""
    from flows import job
    from flows import sweep as room
    from flows.console import Console
    from flows.runners import Local

    check_clip(clip)
    console = Console(quiet=as_json)
    _, rest = split_runner(with_box(overrides, box))
    runner = Local(
        job.open_store(), console, lambda outcome: console.outcome(outcome) if outcome.status == "ran" else None
    )
    done = room.sweep(runner, console, clip, rest, rank)
    if as_json:
        show(done)
    else:
        print("\n".join(room.lines(done)))
        for what, path in done["outputs"].items():
            print(f"{what:8} {path}")
    if done["failed"]:
        raise typer.Exit(3)


@app.command()
def metrics(
    source: Annotated[str, typer.Argument(help="The clip before the edit.")],
    result: Annotated[str, typer.Argument(help="The clip after it, whoever made it.")],
    overrides: Overrides = None,
    mask: Annotated[
        str | None, typer.Option(help="Masks of the edited region: a DAVIS folder, PNGs or a mask video.")
    ] = None,
    box: Box = None,
    as_json: Json = False,
) -> None:
    """Score any result against its source. Example: retake metrics dog.mp4 theirs.mp4 --mask masks/ metrics=all"""
    from flows import job, score
    from flows.console import Console
    from flows.runners import Local

    for clip in (source, result):
        check_clip(clip)
    console = Console(quiet=as_json)
    corners = box_of(box) if box else None
    _, rest = split_runner(list(overrides or []))
    found = score.score(
        source, result, rest, mask=mask, box=corners, runner=Local(job.open_store(), console, console.outcome)
    )
    if as_json:
        show(found.as_json())
        return
    print("\n".join(found.lines()))
    for name, path in found.outputs.items():
        print(f"{name:8} {path}")


@app.command()
def why(
    clip: Clip,
    overrides: Overrides = None,
    box: Box = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    as_json: Json = False,
) -> None:
    """Say which ingredient makes a stage run again: against the nearest earlier result of that stage."""
    from flows import graph, job

    if stage not in (None, "correction") and stage not in graph.STAGES:
        graph.closure(job.settings([]), stage)
    _, rest = split_runner(with_box(overrides, box))
    # A prior is asked about without an edit, whose settings may well be missing yet.
    until = "masks" if stage == "correction" else stage if stage in graph.PRIORS else "report"
    _, planned = job.plan(clip, rest, until)
    chosen = [p for p in planned if stage in (None, p.stage)]
    if as_json:
        show({"stages": [{"stage": p.stage, "status": p.status, "why": p.why} for p in chosen]})
        return
    for p in chosen:
        print(f"{p.stage:13} {p.why or 'in the store'}")


@app.command()
def frame(
    clip: Clip,
    number: Annotated[int, typer.Argument(min=0, help="Working frame, counted from 0.")],
    overrides: Overrides = None,
    box: Box = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the PNG.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No grid: a frame to paint into, for edit.anchors.")] = False,
    as_json: Json = False,
) -> None:
    """Write one frame as a PNG with a grid in source pixels, to read a box from."""
    from flows import still

    path = still.write_frame(clip, number, with_box(overrides, box), box, out, grid=not plain)
    show({"frame": str(path)}) if as_json else print(path)


@app.command()
def stage(name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")], as_json: Json = False) -> None:
    """Run one stage over the whole dataset, as dvc.yaml does: reads params.yaml, writes artifacts/NAME."""
    from flows import dataset
    from flows.console import Console

    outcome = dataset.run_stage(name, Console(quiet=as_json))
    if as_json:
        show(outcome)


@app.command()
def dataset(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MANIFEST] [SETTINGS]...",
            help="A CSV, JSON lines, a DAVIS tree or a folder of videos; settings: key=value.",
            show_default=False,
        ),
    ] = None,
    commit: Annotated[
        bool | None,
        typer.Option(
            help="Write params.yaml, hand out under artifacts/ and record it in dvc.lock; by default where no manifest "
            "is named. Else all of it stands in artifacts/datasets/NAME.",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[str, typer.Option(help="quarantined: try those again, too.")] = "",
    only_plan: Annotated[bool, typer.Option("--plan", help="Say what it would take; start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make every edit of every clip of a dataset; bad clips are set aside. Example: retake dataset clips.csv
    edit.reference=cat.png. With evaluation=moca: compare methods over a manifest of pairs."""
    from flows.console import Console

    chosen, rest = split_runner(split_manifest(list(words or [])))
    record = all("=" in word or word.startswith("~") for word in words or []) if commit is None else commit
    name, rest = split_evaluation(rest)
    if name is not None:
        compare(name, rest, as_json)
        return
    if retry not in ("", "quarantined"):
        raise ConfigError("E215", f"--retry takes 'quarantined', not {retry!r}", "What failed is tried again anyway.")
    console = Console(quiet=as_json)
    if only_plan:
        from flows import dataset as room
        from flows import job
        from flows.outlook import lines

        found = room.plan(job.open_store(), console, rest, record)
        show(found.as_json()) if as_json else print("\n".join(lines(found)))
        return
    if chosen == "prefect" or (chosen == "auto" and server_answers(console.say)):
        from flows.nightly import process_dataset

        stop_at_once()
        done = process_dataset(rest, record, retry)
    else:
        from flows import dataset as room
        from flows import job
        from flows.runners import Local

        runner = Local(job.open_store(), console)
        done = room.process(runner, console, rest, record, [retry] if retry else [])
    if as_json:
        show(done)
    if done["counts"].keys() & {"failed", "quarantined"}:
        raise typer.Exit(3)


def compare(name: str, overrides: list[str], as_json: bool) -> None:
    from flows import evaluation, job
    from flows.console import Console
    from flows.runners import Local

    console = Console(quiet=as_json)
    done = evaluation.evaluate(Local(job.open_store(), console, console.outcome), console, name, overrides)
    if as_json:
        show(done)
    else:
        print("\n".join(evaluation.lines(done)))
        for what, path in done["outputs"].items():
            print(f"{what:8} {path}")
    if done["failed"]:
        raise typer.Exit(3)


@app.command()
def report(
    clip: Annotated[str | None, typer.Argument(help="Folder name under artifacts/edits.")] = None,
    as_json: Json = False,
) -> None:
    """List the edits that were made, newest first, with their report pages."""
    from flows.ledger import edits

    found = edits(clip)
    if as_json:
        show({"edits": found})
        return
    for entry in found:
        print(
            f"{entry['clip']}/{entry['edit']}  {entry['method']:10}  {entry['report'] or 'no page: it stopped early'}"
        )


@app.command()
def export(
    clip: Annotated[str, typer.Argument(help="A clip, or an edit that was made: its folder, or CLIP/ID.")],
    overrides: Overrides = None,
    what: Annotated[str, typer.Option(help="frames, flow, depth, masks, region, tracks, result; with commas.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default one beside the clip's edits.")] = None,
    flow_format: Annotated[str, typer.Option(help="flo, kitti or npz.")] = "flo",
    depth_format: Annotated[str, typer.Option(help="png16, exr or npy.")] = "png16",
    tracks_format: Annotated[str, typer.Option(help="npz or json.")] = "npz",
    box: Box = None,
    as_json: Json = False,
) -> None:
    """Write what is known of a clip as files for other tools. Example: retake export dog.mp4 --what flow,tracks"""
    from flows import export as room
    from flows import job
    from flows.console import Console, size
    from flows.runners import Local

    check_clip(clip)
    _, rest = split_runner(with_box(overrides, box))
    console = Console(quiet=as_json)
    formats = room.Formats(flow_format, depth_format, tracks_format)
    names = [name.strip() for name in what.split(",") if name.strip()]
    runner = Local(job.open_store(), console, console.outcome)
    done = room.export(clip, names, out, rest, formats=formats, runner=runner)
    if as_json:
        show(done)
        return
    console.say(f"\n{done['files']} files, {size(int(done['bytes']))}")
    for name in ("manifest", *names):
        print(f"{name:8} {done[name]}")


@app.command()
def verify(as_json: Json = False) -> None:
    """Hash everything in the store. Damaged objects are set aside and made again by the next run; exit 6 if any."""
    from flows.ledger import verify_store

    found = verify_store()
    if as_json:
        show(found)
    else:
        print(f"{found['objects']} objects, {found['bytes']} bytes, {found['records']} records")
        print(f"damaged: {len(found['damaged'])}, missing: {len(found['missing'])}")
    if found["damaged"] or found["missing"]:
        raise typer.Exit(6)


@app.command()
def gc(
    max_size: Annotated[str, typer.Option(help="What the store may hold, as 20GB.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Take away the results used least recently, until the store is within a size. Pinned ones and dvc.lock's stay."""
    from flows import housekeeping

    done = housekeeping.make_room(max_size, dry_run)
    show(done) if as_json else print("\n".join(housekeeping.lines(done)))


Name = Annotated[str | None, typer.Option(help="A remote of `dvc remote list`; by default DVC's own.")]


@app.command()
def push(remote: Name = None, as_json: Json = False) -> None:
    """Send every result that a DVC remote lacks, so that colleagues need not make it."""
    from flows import housekeeping

    told_moved("sent", housekeeping.push(remote), as_json)


@app.command()
def pull(remote: Name = None, as_json: Json = False) -> None:
    """Fetch every result that a DVC remote has and the store lacks. Edits find them: nothing is computed twice."""
    from flows import housekeeping

    told_moved("fetched", housekeeping.pull(remote), as_json)


def told_moved(verb: str, moved: dict[str, int], as_json: bool) -> None:
    from flows.console import size

    if as_json:
        show(moved)
        return
    print(f"{verb} {moved['records']} results: {moved['objects']} objects, {size(moved['bytes'])}")
    if moved["broken"]:
        print(f"{moved['broken']} results of the remote are damaged and were left there")


@app.command()
def forget(
    clip: Clip,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Take away everything that was made from a clip: results in the store, and the folders of its edits."""
    from flows import housekeeping

    check_clip(clip)
    done = housekeeping.forget(clip, dry_run)
    show(done) if as_json else print("\n".join([*housekeeping.lines(done), *done["folders"]]))


@app.command()
def pin(
    edit: Annotated[str, typer.Argument(help="CLIP/ID, as retake report lists them.")],
    off: Annotated[bool, typer.Option("--off", help="Let it go again.")] = False,
    as_json: Json = False,
) -> None:
    """Keep an edit and all it is made of, whatever gc is asked for."""
    from flows import housekeeping

    done = housekeeping.pin(edit, not off)
    show(done) if as_json else print(f"{edit} is {'let go' if off else 'pinned'}")


@app.command()
def params(
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether params.yaml is current.")] = False,
    as_json: Json = False,
) -> None:
    """Write params.yaml, the composed settings that DVC reads."""
    from flows.config import CHECKOUT, compose, read_params, validate
    from retake import dvc

    if check:
        if read_params() != compose(list(overrides or [])):
            raise ConfigError("E202", "params.yaml is not what params/ composes to", "Write it: retake params")
    else:
        validate(compose(list(overrides or [])))
        dvc.compose(CHECKOUT, list(overrides or []))
    if as_json:
        show({"params": str(CHECKOUT / "params.yaml"), "written": not check})
    elif not check:
        print(CHECKOUT / "params.yaml")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: libraries, codecs, store, disk. Says what to type where something is wrong."""
    from flows import doctor as checks

    found = checks.run()
    if as_json:
        show({"checks": found})
    else:
        for check in found:
            mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[check["state"]]
            print(f"{mark} {check['name']:12} {check['text']}" + (f"\n     {check['fix']}" if check["fix"] else ""))
            for line in checks.table(check.get("entries", [])):
                print(f"     {line}")
    if any(check["state"] == "fail" for check in found):
        raise typer.Exit(5)


@app.command()
def weights(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from the list, or org/repo[@revision].", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the weights that settings name, or fetch some. Example: retake weights raft_large"""
    from flows import doctor as checks
    from flows.console import Console

    found = checks.get(names, Console(quiet=as_json)) if names else checks.inventory()
    if as_json:
        show({"weights": found})
    else:
        print("\n".join(checks.table(found)))


@app.command()
def train(
    target: Annotated[str, typer.Argument(help="What to train: embedded.")],
    size: Annotated[str, typer.Option(help="cpu: hours on two cores; gpu: about 20 minutes on a large card.")] = "cpu",
    part: Annotated[str | None, typer.Option(help="Only this part, as the help of an unknown one lists them.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after so long; the same command goes on.")] = math.inf,
    folder: Annotated[Path, typer.Option(help="Where the training lives.")] = Path("artifacts/training"),
    on_shipped: Annotated[bool, typer.Option("--on-shipped", help="Take the parts that ship as finished.")] = False,
) -> None:
    """Train the models that ship, in slices. Example: retake train embedded --size gpu --minutes 9"""
    from flows import train as training

    training.run(target, size, part, minutes, folder, on_shipped)


@app.command()
def demo(as_json: Json = False) -> None:
    """Render a small clip, edit it, and change one setting: what the cache is for, in half a minute."""
    from flows import demo as tour
    from flows.console import Console

    done = tour.run(Console(quiet=as_json))
    if as_json:
        show(done)


def main() -> None:
    """Run the command line and exit. `python -m flows` comes here, and so does the console command."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    signal.signal(signal.SIGTERM, interrupted)
    debug = "--debug" in sys.argv  # every command takes it
    words = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        code = app(words, prog_name="retake", standalone_mode=False)
        if code == INTERRUPTED:  # Typer's way of handing on a KeyboardInterrupt
            raise KeyboardInterrupt
    except RetakeError as error:
        if debug:
            raise
        code = fail(error)
    except (KeyboardInterrupt, typer.Abort):
        code = told_stopped()
    except BrokenPipeError:
        code = 0
    except Exception as error:
        if told := getattr(error, "format_message", None):  # how Typer says that the command itself is wrong
            # Without a command it has shown the help, and has no more to say.
            code = fail(ConfigError("E201", told(), f"See: {command_path(error)} --help")) if told() else 2
        elif debug:
            raise
        else:
            text = f"unexpected {type(error).__name__}: {error}"
            code = fail(RetakeError("E999", text, "Run it again with --debug and report what it shows."))
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    from retake.launcher import enter

    enter(Path(__file__).resolve().parent.parent)
    main()
