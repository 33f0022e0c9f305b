"""Checks of this machine, each with what to type where something is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.places import CODE, PROJECT, is_project, open_store
from flows.upkeep import weights as weight_files
from retake.installed import IN_WHEEL
from retake.machine.disk import format_bytes

Check = dict[str, Any]
LOW_DISK = 10 << 30
CONSTRAINTS = str(CODE / "constraints.txt") if IN_WHEEL else "constraints.txt"
INSTALL = f"Run: pip install --force-reinstall -c {CONSTRAINTS} retake" if IN_WHEEL else "Run: make install"


def run() -> list[Check]:
    """Every check: {"name", "state": "ok" | "warn" | "fail", "text", "fix"}; weights have "entries" besides. One that
    breaks counts as failed."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", python),
        ("libraries", libraries),
        ("torch", torch_pair),
        ("codecs", codecs),
        ("store", store),
        ("disk", disk),
        ("links", links),
        ("params", params),
        ("prefect", prefect),
        ("weights", weights),
    ]
    if not IN_WHEEL:
        checks.insert(-1, ("browser", browser))  # for the tests
    if is_project(PROJECT) and PROJECT != CODE:
        checks.insert(-1, ("project", project))
    found = []
    for name, check in checks:
        try:
            found.append({"name": name, **check()})
        except Exception as error:
            found.append({"name": name, **say("fail", f"{type(error).__name__}: {str(error)[:200]}", INSTALL)})
    return found


def say(state: str, text: str, fix: str = "") -> Check:
    return {"state": state, "text": text, "fix": fix}


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return say("ok", f"{version} at {sys.executable}") if good else say("fail", version, "Use Python 3.11 or 3.12.")


def libraries() -> Check:
    """Installed versions against constraints.txt."""
    wrong = []
    for line in (CODE / "constraints.txt").read_text().splitlines():
        name, _, wanted = line.partition("==")
        if not wanted or name.startswith("#"):
            continue
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an optional package, or one of another platform
        if have != wanted:
            wrong.append(f"{name} {have}, tested with {wanted}")
    needed = ["torch", "torchvision", "av", "decord", "prefect", "dvc", "hydra-core", "opencv-python-headless"]
    gone = [name for name in needed if not present(name)]
    if gone:
        return say("fail", f"missing: {', '.join(gone)}", INSTALL)
    return say("warn", "; ".join(wrong[:4]), INSTALL) if wrong else say("ok", "as in constraints.txt")


def present(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def torch_pair() -> Check:
    """torch and torchvision must come from one index: a mixed pair imports, then lacks its operators."""
    import torch
    import torchvision

    try:
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(boxes, torch.tensor([1.0]), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        return say(
            "fail",
            f"torch {torch.__version__} and torchvision {torchvision.__version__} do not fit: {error}",
            f"Install both from one index: pip install --force-reinstall -c {CONSTRAINTS} torch torchvision",
        )
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    where = f"{cards} GPU" if cards else "no GPU: networks run on the CPU, slowly"
    return say("ok", f"torch {torch.__version__}, torchvision {torchvision.__version__}; {where}")


def codecs() -> Check:
    """Encode and decode a few frames, through the very child process that clips go through."""
    import tempfile

    import numpy as np

    from retake.video import decode, encode

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "probe.mp4"
        encode(clip, [np.full((32, 32, 3), 60 * k, np.uint8) for k in range(4)], 24.0)
        changed: list[str] = []  # PyAV takes over where decord does not load, and says so
        frames = {name: len(list(decode(clip, backend=name, on_note=changed.append))) for name in ("pyav", "decord")}  # type: ignore[arg-type]
    if changed or set(frames.values()) != {4}:
        return say("warn", "only PyAV decodes: " + "; ".join(changed), INSTALL)
    return say("ok", "H.264 written and read back by PyAV and decord")


def store() -> Check:
    root = open_store().root
    root.mkdir(parents=True, exist_ok=True)
    probe = root / f".doctor-{os.getpid()}"
    probe.write_bytes(b"x")
    probe.unlink()
    records = sum(1 for _ in (root / "records").glob("*/*"))
    return say("ok", f"{root}, {records} records")


def disk() -> Check:
    free = shutil.disk_usage(open_store().root).free
    text = f"{format_bytes(free)} free at the store"
    return (
        say("ok", text)
        if free > LOW_DISK
        else say("warn", text, "Make room: retake gc --max-size 20GB, or point RETAKE_STORE at a larger disk.")
    )


def links() -> Check:
    """Whether the store can hand out the tensors of a dataset by hard link."""
    from flows.datasets.batch import short_path
    from flows.places import datasets_home

    root, here = open_store().root, datasets_home()
    nearest = next(folder for folder in (here, *here.parents) if folder.is_dir())  # nothing is left where nothing was
    source, target = root / f".doctor-{os.getpid()}", nearest / f".doctor-{os.getpid()}"
    source.write_bytes(b"x")
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            return say("warn", f"cannot write to {here}", "Point RETAKE_DATASETS at a folder that you may write to.")
        fix = f"For links instead: export RETAKE_STORE=FOLDER on the file system of {here}"
        return say("warn", f"the store and {here} lie on different file systems: results are copied", fix)
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    return say("ok", f"hard links from the store into {short_path(here)}")


def params() -> Check:
    from flows.settings.compose import compose, read_params

    if not is_project(PROJECT):
        return say("ok", f"no project here (retake init makes one); the shipped settings: {CODE / 'params'}")
    if read_params() == compose([]):
        return say("ok", "params.yaml is what params/ composes to")
    return say("warn", "params.yaml is not what params/ composes to", "Write it: retake params")


def project() -> Check:
    from flows.upkeep.project import outdated

    odd = outdated(PROJECT)
    return say("warn", *odd) if odd else say("ok", f"{PROJECT} fits the installed version")


def prefect() -> Check:
    import httpx

    url = os.environ.get("PREFECT_API_URL")
    text = f"prefect {metadata.version('prefect')}"
    if url:
        try:
            httpx.get(f"{url}/health", timeout=5).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fix = "Start it (prefect server start), or set PREFECT_API_URL to where it is."
            return say("warn", f"{text}; no answer from {url}: {type(error).__name__}", fix)
    return say("ok", f"{text}, server {url}" if url else f"{text}; no server set, edits run here without one")


def browser() -> Check:
    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    return (
        say("ok", found)
        if found
        else say("warn", "no Chromium: the report's test is skipped", "apt-get install chromium")
    )


def weights() -> Check:
    """Which of the catalogue's weights are here. None has to be: the defaults need none."""
    entries = weight_files.inventory()
    here = [entry for entry in entries if entry["present"]]
    some = f", {format_bytes(sum(entry['bytes'] for entry in here))}" if here else ""
    text = f"{len(here)} of {len(entries)} here{some}; the default settings need none"
    return say("ok", text) | {"entries": entries}
