"""`retake verify`: everything in the store looked at; what is damaged put right, from a remote or from the clips."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flows import graph
from flows.datasets.batch import OWNER
from flows.datasets.states import GOOD, State, States
from flows.editing import export
from flows.places import PROJECT, datasets_home, edits_home, open_store
from flows.runners import Local
from retake import dvc
from retake.artifact import File
from retake.errors import ConfigError, DamagedError, RetakeError
from retake.machine.disk import format_bytes
from retake.store import Store

Result = tuple[str, str]
"""(stage, key)"""


def verify_store() -> dict[str, Any]:
    """Hash every object and read every record. What is damaged is set aside; the next run makes it again.

    damaged: objects with the reason; missing: objects that a record names; records_damaged; affected: the results, as
    [stage, key], that lost something by it; set_aside: those of which an earlier look, or a run, set the record aside,
    and which nobody made again; datasets: how many of their edits lost something, by their sources.
    """
    store = open_store()
    named: dict[str, list[Result]] = {}
    records, broken = 0, []
    for path in sorted((store.root / "records").glob("*/*")):
        record = store.read_record(path, path.name)
        records += record is not None
        if record is None:
            broken.append((path.parent.name, path.name))
        for file in record.artifact.files if record else ():
            named.setdefault(file.sha256, []).append((path.parent.name, path.name))
    paths = sorted((store.root / "objects").glob("*/*"))
    total = sum(path.stat().st_size for path in paths)
    damaged = {path.name: reason for path in paths if (reason := why_damaged(store, path.name))}
    missing = sorted(named.keys() - {path.name for path in paths})
    affected = {result for sha in [*damaged, *missing] for result in named.get(sha, ())} | set(broken)
    return {
        "objects": len(paths),
        "bytes": total,
        "records": records,
        "damaged": [{"object": sha, "reason": reason} for sha, reason in damaged.items()],
        "missing": missing,
        "records_damaged": [list(result) for result in broken],
        "affected": [list(result) for result in sorted(affected)],
        "set_aside": [list(result) for result in sorted(set_aside(store) - set(broken))],
        "datasets": unsettled(affected),
    }


def set_aside(store: Store) -> set[Result]:
    """Results of which the record lies in quarantine and no other stands in its place."""
    found = set()
    for path in (store.root / "quarantine").glob("*.reason"):
        try:
            place = Path(path.read_text(encoding="utf-8").rpartition(": ")[0])  # as the store's `_set_aside` writes it
        except (OSError, ValueError):  # cleared meanwhile, or damaged itself
            continue
        if place.parent.parent.name == "records" and not store.record_path(*place.parts[-2:]).exists():
            found.add((place.parent.name, place.name))
    return found


def why_damaged(store: Store, sha256: str) -> str | None:
    """What is wrong with an object, which is set aside then; None where nothing is."""
    try:
        store.verify(File("", sha256, "", 0))
    except DamagedError as error:
        return error.reason
    return None


def repair(affected: Iterable[Iterable[str]], remote: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Put results right: fetched from a DVC remote where that has them, else by running the edits again that were
    handed out here. left: those for which neither helped. Raises ConfigError E217 for a remote that is named and not
    there."""
    store = open_store()
    wanted = {(stage, key) for stage, key in affected}
    try:
        fetched = dvc.remote(PROJECT, remote).repair(store, sorted(wanted)).records
    except ConfigError:
        if remote is not None:
            raise
        fetched = 0  # no remote was set up
    left = {result for result in wanted if not whole(store, *result)}
    made = len(left)
    for folder in handed_out():
        if left & results_of(folder):
            say(f"making again what {folder.parent.name}/{folder.name} is made of")
            try:
                make_again(store, folder)
            except (RetakeError, OSError) as error:
                say(f"{folder.parent.name}/{folder.name}: {str(error).partition(chr(10))[0]}")
            left = {result for result in left if not whole(store, *result)}
    return {"fetched": fetched, "made": made - len(left), "left": [list(result) for result in sorted(left)]}


def unsettled(affected: set[Result]) -> dict[str, int]:
    """Note in the states of datasets which edits are not as they were, so that the next run makes them, and what was
    handed out by link, again: their settings were typed there. How many, by the datasets' sources."""
    found: Counter[str] = Counter()
    for path in sorted(datasets_home().glob("*/states.jsonl")):
        states, owner = States(path), path.with_name(OWNER)
        source = owner.read_text(encoding="utf-8").strip() if owner.exists() else path.parent.name
        for state in states.all():
            if state.state in GOOD and affected & {(stage, key) for stage, (key, _) in (state.stages or {}).items()}:
                states.add(State(state.job, "interrupted", state.mark, "what it made was damaged in the store"))
                found[source] += 1
    return dict(found)


def whole(store: Store, stage: str, key: str) -> bool:
    """Whether a result is there, byte for byte."""
    record = store.find(stage, key)
    return record is not None and not any(why_damaged(store, file.sha256) for file in record.artifact.files)


def handed_out() -> list[Path]:
    """Folders of edits that were handed out here."""
    return sorted(path.parent for path in edits_home().glob("*/*/recipe.json"))


def results_of(folder: Path) -> set[Result]:
    """What an edit was made of."""
    try:
        return {(entry["stage"], entry["key"]) for entry in json.loads((folder / "recipe.json").read_text())["keys"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def make_again(store: Store, folder: Path) -> None:
    """Run the graph of an edit as far as it went. Raises RetakeError, also where its clip is gone."""
    clip, p = export.opened(str(folder), [])
    until = folder.name.partition("-until-")[2] or "report"  # as job.edit names the folder
    runner = Local(store)
    runner.healed(lambda: graph.edit_graph(runner, clip, p, until))


def lines(found: dict[str, Any], mended: dict[str, Any] | None) -> list[str]:
    """What `retake verify` says."""
    report = [f"{found['objects']} objects, {format_bytes(found['bytes'])}, {found['records']} records"]
    report += [f"damaged  {entry['object'][:12]}  {entry['reason']}" for entry in found["damaged"]]
    report += [f"missing  {sha[:12]}" for sha in found["missing"]]
    report += [f"damaged  the record of {stage} {key[:12]}" for stage, key in found["records_damaged"]]
    report += [f"concerns {stage} {key[:12]}" for stage, key in found["affected"]]
    report += [f"{source}: its next run makes {count} edits again" for source, count in found["datasets"].items()]
    if mended:
        report.append(f"{mended['fetched']} results fetched, {mended['made']} made again")
        report += [
            f"left     {stage} {key[:12]}: made again by the next run that needs it" for stage, key in mended["left"]
        ]
    elif found["affected"] or found["set_aside"]:
        report += [f"gone     {stage} {key[:12]}: its record was set aside before" for stage, key in found["set_aside"]]
        report.append(
            "Set aside. The next run that needs it makes it again; retake verify --repair does so for artifacts/edits."
        )
    elif not found["damaged"]:
        report.append("all as it was stored")
    return report
