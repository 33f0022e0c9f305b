"""A few numbers for everything that every stage makes: they move only with a VERSION (tests/test_stages.py).

PYTHONPATH=.:tests python -m helpers.fingerprints     write them into tests/golden.json, after a VERSION was raised
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diffusers import DDIMScheduler

from flows.settings.compose import settings
from helpers import golden, small_diffusion
from helpers.stages import DRIFT, QUICK, STAGES, Calls, run
from retake import formats
from retake.artifact import Artifact
from retake.formats import open_series, unpack
from retake.store import Store
from retake.synthetic import scenes


def golden_runs(root: Path) -> list[tuple[str, Calls, tuple[str, ...]]]:
    """The runs behind GOLDEN, with the stages that each stands for: two chunks of a small sprite clip."""
    small = ["frames.last=17", "frames.short_side=48"]
    found = run(root / "retake", "sprites:drift", settings([*small, *DRIFT]))
    fix = "masks.corrections=[{frame:17,points:[[90,85,1]]}]"
    fixed = run(root / "retake", "sprites:drift", settings([*small, *DRIFT, fix]), "masks")
    more = ["metrics.names=[dynamics,smoothness]", "metrics.smoothness.interpolator=flow"]
    scored = run(root / "retake", "sprites:drift", settings([*small, *DRIFT, *more]), "metrics")
    grid = run(root / "retake", "sprites:drift", settings([*small, "tracks.queries=grid"]), "tracks")
    deep = run(root / "retake", "sprites:orbit", settings([*small, *QUICK]), "depth")
    masks = open_series(found.store, found.made["masks"])
    folder = root / "masks"
    folder.mkdir()
    for t in range(len(masks)):
        cv2.imwrite(str(folder / f"{t:05d}.png"), masks[t].astype(np.uint8) * 255)
    given = run(root / "retake", "sprites:drift", settings([*small, "masks=given", f"masks.path={folder}"]), "masks")
    return [
        ("", found, STAGES),
        ("", fixed, ("correction",)),
        ("", deep, ("depth",)),
        (" given", given, ("masks",)),
        (" grid", grid, ("tracks",)),
        (" by flow", scored, ("metrics",)),
        *diffusion_runs(root),
    ]


def diffusion_runs(root: Path) -> list[tuple[str, Calls, tuple[str, ...]]]:
    """The same clip through a tiny diffusion model with random weights: 18 frames in windows of 8."""
    scheduler = DDIMScheduler(**small_diffusion.SCHEDULE, prediction_type="v_prediction")
    folder = small_diffusion.save_embedded_like(root / "model", scheduler=scheduler)
    model = [f"model.{name}={value}" for name, value in small_diffusion.settings(folder, batch=1).items()]
    few = ["frames.last=17", "frames.short_side=48", "inversion.steps=9", "inversion.iterations=2"]
    prompts = ["edit=sdedit", "edit.prompt=red ball", "edit.guidance=2", *DRIFT]
    found = run(root / "retake", "sprites:drift", settings([*few, *model, *prompts]), "edit")
    return [("", found, ("latents", "inversion")), (" sdedit", found, ("edit",))]


def fingerprints(root: Path) -> dict[str, dict[str, Any]]:
    """Of every stage: the versions that its result depends on, and a few numbers for each thing it made."""
    return of_runs(golden_runs(root))


def of_runs(runs: list[tuple[str, Calls, tuple[str, ...]]]) -> dict[str, dict[str, Any]]:
    found = {}
    for suffix, calls, names in runs:
        for name in names:
            artifact = calls.made[name]
            stage, _, chosen, _ = calls.calls[name]
            versions = [f"{name}@{stage.version}", f"{artifact.kind} format@{formats.VERSION[artifact.kind]}"]
            if chosen.implementation:
                versions += chosen.implementation.split(",")
            if name == "frames":
                versions.append(f"sprites@{scenes.VERSION}")
            found[name + suffix] = {"versions": " ".join(versions), "values": values(calls.store, artifact)}
    return found


def values(store: Store, artifact: Artifact) -> dict[str, str]:
    """Numbers that stand for what an artifact holds: of an array its shape, its range, its standard deviation and
    the means of its quarters in memory's order. An MP4 is a view and has none."""
    fingerprints: dict[str, str] = {}
    for file in artifact.files:
        data, stem = store.read(file), file.name.split(".")[0]
        if file.name.endswith(".safetensors"):
            fingerprints |= {
                f"{stem.lstrip('0') or 0} {name}": of_array(array, name) for name, array in unpack(data).items()
            }
        elif file.name.endswith(".png"):
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            fingerprints[stem] = of_array(np.asarray(picture))
        elif file.name.endswith(".json"):
            fingerprints |= {name: f"{v:.6g}" for name, v in json.loads(data).items() if isinstance(v, int | float)}
    return dict(sorted(fingerprints.items()))


def of_array(array: np.ndarray, name: str = "") -> str:
    if name in ("mask", "objects", "occluded_forward", "occluded_backward"):
        array = np.unpackbits(array, axis=-1)  # a mean of bytes would weigh one bit 128 times another
    flat = array.astype(np.float64).ravel()
    quarters = [quarter.mean() for quarter in np.array_split(flat, min(4, flat.size))]
    numbers = " ".join(f"{number:.6g}" for number in (np.ptp(flat), flat.std(), *quarters))
    return f"{'x'.join(map(str, array.shape))} {numbers}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        golden.write("stages", fingerprints(Path(scratch)))
