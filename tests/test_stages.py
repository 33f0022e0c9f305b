"""Stages: golden values tied to VERSION, chunks that resume bit for bit, early cut-off, refusals, odd clips.

python tests/test_stages.py     print GOLDEN anew, after a VERSION was raised on purpose
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_diffusion
import zoo
from diffusers import DDIMScheduler

from flows import graph
from flows.places import CHECKOUT
from flows.runners import Chosen, Local
from flows.settings.compose import Settings, settings
from retake import formats, video
from retake.artifact import Artifact
from retake.clip import Clip, open_clip
from retake.errors import IntegrityError
from retake.formats import open_series, unpack
from retake.imaging.distance import distance
from retake.stage import Silent, Stage, Work
from retake.store import Store
from retake.synthetic import scenes
from retake.synthetic.world import World

STAGES = tuple(name for name in graph.STAGES if name not in ("depth", "latents", "inversion"))  # not needed here
CHUNKED = ("frames", "optical_flow", "masks", "region", "tracks", "edit", "decode")
BALL = f"edit.reference={CHECKOUT}/params/dataset/ball.png"
QUICK = [BALL, "report.tile=64", "report.columns=2", "decode.preset=veryfast"]
DRIFT = ["masks.box=[40,40,130,130]", *QUICK]  # around the disc of sprites:drift on frame 0


@dataclass
class Calls(Local):
    """Local, remembering how each stage was called."""

    calls: dict[str, tuple[Stage, Any, Chosen, dict[str, Any]]] = field(default_factory=dict)

    def __call__(
        self, stage: Stage, params: Any, *, implementation: str = "", weights: Mapping[str, str] = {}, **inputs: Any
    ) -> Artifact:
        self.calls[stage.name] = stage, params, Chosen(implementation, weights), inputs
        return super().__call__(stage, params, implementation=implementation, weights=weights, **inputs)

    def again(self, name: str, observer: Any = None) -> Artifact:
        stage, params, chosen, inputs = self.calls[name]
        return Local(self.store, observer or Silent()).outcome(stage, params, chosen, inputs).artifact

    @property
    def ran(self) -> list[str]:
        return [o.stage for o in self.outcomes if o.status == "ran"]

    @property
    def made(self) -> dict[str, Artifact]:
        return {o.stage: o.artifact for o in self.outcomes}

    def record(self, name: str) -> Path:
        return self.store.record_path(name, next(o.key for o in self.outcomes if o.stage == name))


def run(root: Path, clip: str | Clip, p: Settings, until: str = "report") -> Calls:
    """A pass over the graph."""
    calls = Calls(Store(root, lambda line: None))
    graph.edit_graph(calls, open_clip(clip) if isinstance(clip, str) else clip, p, until)
    return calls


def digests(calls: Calls) -> dict[str, str]:
    return {name: artifact.digest for name, artifact in calls.made.items()}


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """41 frames, three chunks, with the prompt on frame 20, in the second."""
    p = settings(["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK])
    return run(tmp_path_factory.mktemp("middle") / "retake", "sprites:drift", p)


# ---- golden values -----------------------------------------------------------------------------------------------

GOLDEN: dict[str, dict[str, Any]] = {
    "frames": {
        "versions": "frames@1 frames format@1 sprites@1",
        "values": {
            "0 rgb": "16x48x86x3 244 53.9098 118.15 117.906 117.828 117.931",
            "1 rgb": "2x48x86x3 243 54.2122 116.837 119.179 116.885 119.156",
            "times seconds": "18 0.708333 0.216172 0.0833333 0.291667 0.479167 0.645833",
        },
    },
    "optical_flow": {
        "versions": "optical_flow@1 flow format@1 dis@1",
        "values": {
            "0 backward": "16x48x86x2 0.407715 0.0693167 0.0107477 0.00577593 -0.00119648 -0.00298146",
            "0 forward": "16x48x86x2 0.374878 0.0694359 -0.0113607 -0.00872102 -0.000318807 0.0032226",
            "0 occluded_backward": "16x48x88 0 0 0 0 0 0",
            "0 occluded_forward": "16x48x88 0 0 0 0 0 0",
            "1 backward": "1x48x86x2 0.289062 0.0588179 0.0169054 -0.000647531 -0.0198411 0.00432327",
            "1 forward": "1x48x86x2 0.267639 0.0558526 -0.0208229 -0.00402515 0.0184244 -0.00391402",
            "1 occluded_backward": "1x48x88 0 0 0 0 0 0",
            "1 occluded_forward": "1x48x88 0 0 0 0 0 0",
        },
    },
    "masks": {
        "versions": "masks@2 masks format@2 grabcut@1",
        "values": {
            "0 ids": "1 0 0 1",
            "0 objects": "16x1x48x88 1 0.251931 0.0677675 0.0677675 0.0680043 0.068892",
            "0 overlap": "16x1 0.0709459 0.0167758 0.961737 0.955685 0.950832 0.949789",
            "1 ids": "1 0 0 1",
            "1 objects": "2x1x48x88 1 0.253874 0.0236742 0.114583 0.0217803 0.116951",
            "1 overlap": "2x1 0.0171141 0.00855705 0.932886 0.95",
            "state-00000 ahead.1.inside": "285x3 239 69.2134 103.093 108.43 105.766 104.775",
            "state-00000 ahead.1.inside_model": "1x65 544.734 115.431 65.8057 139.317 114.308 167.466",
            "state-00000 ahead.1.mask": "48x11 255 60.6561 0 12.8939 49.0909 5.34091",
            "state-00000 ahead.1.outside": "905x3 217 50.0241 68.3947 76.6775 107.193 141.187",
            "state-00000 ahead.1.outside_model": "1x65 360.015 89.8872 79.8439 118.3 128.4 128.804",
            "state-00000 ahead.1.support": "1 0 0 0.879564",
            "state-00000 behind.1.inside": "285x3 239 69.2134 103.093 108.43 105.766 104.775",
            "state-00000 behind.1.inside_model": "1x65 544.734 115.431 65.8057 139.317 114.308 167.466",
            "state-00000 behind.1.mask": "48x11 255 62.1143 0 36.5985 36.6288 0",
            "state-00000 behind.1.outside": "905x3 217 50.0241 68.3947 76.6775 107.193 141.187",
            "state-00000 behind.1.outside_model": "1x65 360.015 89.8872 79.8439 118.3 128.4 128.804",
            "state-00000 behind.1.support": "1 0 0 0.879564",
            "state-00001 ahead.1.inside": "285x3 239 69.2134 103.093 108.43 105.766 104.775",
            "state-00001 ahead.1.inside_model": "1x65 544.734 115.431 65.8057 139.317 114.308 167.466",
            "state-00001 ahead.1.mask": "48x11 255 61.1596 0 11.8106 48.0606 8",
            "state-00001 ahead.1.outside": "905x3 217 50.0241 68.3947 76.6775 107.193 141.187",
            "state-00001 ahead.1.outside_model": "1x65 360.015 89.8872 79.8439 118.3 128.4 128.804",
            "state-00001 ahead.1.support": "1 0 0 0.879564",
        },
    },
    "region": {
        "versions": "region@1 region format@1",
        "values": {
            "0 mask": "16x48x88 1 0.251931 0.0677675 0.0677675 0.0680043 0.068892",
            "1 mask": "2x48x88 1 0.253874 0.0236742 0.114583 0.0217803 0.116951",
        },
    },
    "tracks": {
        "versions": "tracks@1 tracks format@1 lucas_kanade@1",
        "values": {
            "0 ids": "4 3 1.11803 0 1 2 3",
            "0 visible": "16x4 0 0 1 1 1 1",
            "0 xy": "16x4x2 10.433 2.92126 23.9685 24.6799 25.5522 26.5348",
            "1 ids": "4 3 1.11803 0 1 2 3",
            "1 visible": "2x4 0 0 1 1 1 1",
            "1 xy": "2x4x2 8.20663 2.73193 26.4904 27.837 26.7832 28.0839",
        },
    },
    "edit": {
        "versions": "edit@1 edited format@1 propagate@1",
        "values": {
            "0 alpha": "16x31x29 255 112.722 88.7842 88.5064 87.6093 87.948",
            "0 box": "4 31 15.0083 12 11 41 42",
            "0 rgb": "16x31x29x3 255 95.0325 77.5769 77.313 76.6008 77.3696",
            "1 alpha": "2x27x28 255 115.34 111.071 99.6349 107.206 103.243",
            "1 box": "4 29 13.7727 14 16 42 43",
            "1 rgb": "2x27x28x3 255 96.8147 100.563 86.1949 96.821 88.3122",
        },
    },
    "decode": {
        "versions": "decode@1 result format@1",
        "values": {
            "0 rgb": "16x180x320x3 246 56.1623 123.39 123.036 122.731 122.704",
            "1 rgb": "2x180x320x3 246 56.4977 118.518 126.933 118.632 126.762",
        },
    },
    "metrics": {
        "versions": "metrics@2 metrics format@1 warp_error@1 region@1 flicker@1 motion_fidelity@1",
        "values": {
            "flicker": "0.992384",
            "flicker_delta": "0.000973947",
            "flicker_edit": "0.970444",
            "flicker_edit_delta": "0.0192275",
            "flicker_source": "0.99141",
            "flicker_source_edit": "0.951216",
            "l1_unedited": "0",
            "motion_fidelity": "0.993916",
            "psnr_unedited": "100",
            "ssim_unedited": "1",
            "track_error": "0.293366",
            "warp_error_edit": "0.00133193",
            "warp_error_full": "0.000231958",
            "warp_error_source_edit": "0.00265717",
            "warp_error_source_full": "0.000278099",
        },
    },
    "report": {
        "versions": "report@3 report format@1",
        "values": {
            "contact_sheet": "660x562x3 255 69.5508 95.8909 107.119 99.6402 85.2349",
            "wheel": "64x64x4 255 97.9119 143.064 197.872 193.781 146.352",
        },
    },
    "correction": {
        "versions": "correction@1 masks format@2 grabcut@1",
        "values": {
            "0 ids": "1 0 0 1",
            "0 objects": "16x1x48x88 1 0.251931 0.0677675 0.0677675 0.0680043 0.068892",
            "0 overlap": "16x1 0.0709459 0.0167758 0.961737 0.955685 0.950832 0.949789",
            "1 ids": "1 0 0 1",
            "1 objects": "2x1x48x88 1 0.254075 0.0236742 0.114583 0.0222538 0.116951",
            "1 overlap": "2x1 0.0671141 0.0335571 0.932886 1",
            "state-00000 ahead.1.inside": "285x3 239 69.2134 103.093 108.43 105.766 104.775",
            "state-00000 ahead.1.inside_model": "1x65 544.734 115.431 65.8057 139.317 114.308 167.466",
            "state-00000 ahead.1.mask": "48x11 255 60.6561 0 12.8939 49.0909 5.34091",
            "state-00000 ahead.1.outside": "905x3 217 50.0241 68.3947 76.6775 107.193 141.187",
            "state-00000 ahead.1.outside_model": "1x65 360.015 89.8872 79.8439 118.3 128.4 128.804",
            "state-00000 ahead.1.support": "1 0 0 0.879564",
            "state-00000 behind.1.inside": "285x3 239 69.2134 103.093 108.43 105.766 104.775",
            "state-00000 behind.1.inside_model": "1x65 544.734 115.431 65.8057 139.317 114.308 167.466",
            "state-00000 behind.1.mask": "48x11 255 62.1143 0 36.5985 36.6288 0",
            "state-00000 behind.1.outside": "905x3 217 50.0241 68.3947 76.6775 107.193 141.187",
            "state-00000 behind.1.outside_model": "1x65 360.015 89.8872 79.8439 118.3 128.4 128.804",
            "state-00000 behind.1.support": "1 0 0 0.879564",
            "state-00001 ahead.1.inside": "294x3 237 68.0227 107.955 99.2398 110.541 106.159",
            "state-00001 ahead.1.inside_model": "1x65 820.216 127.671 78.9124 104.088 128.025 104.12",
            "state-00001 ahead.1.mask": "48x11 255 61.8451 0 12.7803 48.0606 8",
            "state-00001 ahead.1.outside": "931x3 226 54.4325 73.9242 135.04 140.116 133.815",
            "state-00001 ahead.1.outside_model": "1x65 265.224 64.0233 102.591 127.416 149.93 98.6427",
            "state-00001 ahead.1.support": "1 0 0 0.876458",
        },
    },
    "depth": {
        "versions": "depth@1 depth format@1 parallax@2",
        "values": {
            "0 depth": "16x48x86 73.4297 14.9338 36.9366 37.4568 39.681 41.5872",
            "1 depth": "2x48x86 44.7031 10.3901 37.4135 50.0665 37.3955 50.0704",
        },
    },
    "masks given": {
        "versions": "masks@2 masks format@2 given@2",
        "values": {
            "0 ids": "1 0 0 1",
            "0 objects": "16x1x48x88 1 0.251931 0.0677675 0.0677675 0.0680043 0.068892",
            "0 overlap": "16x1 0 0 1 1 1 1",
            "1 ids": "1 0 0 1",
            "1 objects": "2x1x48x88 1 0.253874 0.0236742 0.114583 0.0217803 0.116951",
            "1 overlap": "2x1 0 0 1 1",
        },
    },
    "tracks grid": {
        "versions": "tracks@1 tracks format@1 lucas_kanade@1",
        "values": {
            "0 ids": "66 65 19.0504 8 25 41.5 57.5",
            "0 visible": "16x66 0 0 1 1 1 1",
            "0 xy": "16x66x2 80.9819 21.7915 33.7559 33.7864 33.8499 33.9238",
            "1 ids": "77 77 22.6518 9.5 29.3158 49 68",
            "1 visible": "2x77 0 0 1 1 1 1",
            "1 xy": "2x77x2 83.3175 22.2682 28.7839 39.4527 28.8317 39.4574",
        },
    },
    "metrics by flow": {
        "versions": "metrics@2 metrics format@1 dynamics@1 smoothness@1",
        "values": {
            "dynamic_degree": "0",
            "dynamic_degree_source": "0",
            "motion": "1.63301",
            "motion_edit": "1.84723",
            "motion_edit_source": "1.25007",
            "motion_source": "1.14831",
            "smoothness": "0.994853",
            "smoothness_delta": "0.000508286",
            "smoothness_source": "0.994345",
        },
    },
    "latents": {
        "versions": "latents@1 latents format@1",
        "values": {
            "0 z": "16x4x8x8 1.01099 0.165819 0.0874172 0.0857119 0.084348 0.0813149",
            "1 z": "2x4x8x8 0.948975 0.164365 -0.000804011 0.165059 -0.00015207 0.164947",
        },
    },
    "inversion": {
        "versions": "inversion@1 inversion format@1",
        "values": {
            "0 z": "8x16x4x8x8 3.44922 0.400051 0.119286 0.214 0.291999 0.354392",
            "1 z": "8x2x4x8x8 2.8623 0.395229 0.116433 0.211102 0.289127 0.351484",
            "2 z": "1x16x4x8x8 3.62891 0.565506 0.385417 0.387117 0.384884 0.383848",
            "3 z": "1x2x4x8x8 3.03223 0.556994 0.103728 0.661569 0.104097 0.660521",
        },
    },
    "edit sdedit": {
        "versions": "edit@1 edited format@1 sdedit@1",
        "values": {
            "0 alpha": "16x27x25 255 116.485 133.829 133.829 134.121 135.812",
            "0 box": "4 27 13.0096 14 13 39 40",
            "0 rgb": "16x27x25x3 255 55.3525 144.711 147.286 143.42 143.706",
            "1 alpha": "2x23x24 255 106.894 173.928 159.978 166.536 167.46",
            "1 box": "4 25 11.7766 16 18 40 41",
            "1 rgb": "2x23x24x3 255 54.8811 145.704 156.83 140.772 155.638",
        },
    },
}
# end of GOLDEN


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
    model = [f"model.{name}={value}" for name, value in small_diffusion.settings(folder).items()]
    few = ["frames.last=17", "frames.short_side=48", "inversion.steps=9", "inversion.iterations=2"]
    told = ["edit=sdedit", "edit.prompt=red ball", "edit.guidance=2", *DRIFT]
    found = run(root / "retake", "sprites:drift", settings([*few, *model, *told]), "edit")
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
    told: dict[str, str] = {}
    for file in artifact.files:
        data, stem = store.read(file), file.name.split(".")[0]
        if file.name.endswith(".safetensors"):
            told |= {f"{stem.lstrip('0') or 0} {name}": of_array(array, name) for name, array in unpack(data).items()}
        elif file.name.endswith(".png"):
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            told[stem] = of_array(np.asarray(picture))
        elif file.name.endswith(".json"):
            told |= {name: f"{v:.6g}" for name, v in json.loads(data).items() if isinstance(v, int | float)}
    return dict(sorted(told.items()))


def of_array(array: np.ndarray, name: str = "") -> str:
    if name in ("mask", "objects", "occluded_forward", "occluded_backward"):
        array = np.unpackbits(array, axis=-1)  # a mean of bytes would weigh one bit 128 times another
    flat = array.astype(np.float64).ravel()
    quarters = [quarter.mean() for quarter in np.array_split(flat, min(4, flat.size))]
    numbers = " ".join(f"{number:.6g}" for number in (np.ptp(flat), flat.std(), *quarters))
    return f"{'x'.join(map(str, array.shape))} {numbers}"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return fingerprints(tmp_path_factory.mktemp("golden"))


MORE = ("depth", "correction", "masks given", "tracks grid", "metrics by flow", "latents", "inversion", "edit sdedit")


@pytest.mark.parametrize("name", [*STAGES, *MORE])
def test_golden_values_move_only_with_a_version(fresh, name):
    """Equal inputs, equal numbers, within 1e-4 of their range: on this machine and on others."""
    assert fresh[name]["versions"] == GOLDEN[name]["versions"], (
        f"{name}: a VERSION was raised; if it was meant, put the output of `python tests/test_stages.py` into GOLDEN"
    )
    wanted, got = GOLDEN[name]["values"], fresh[name]["values"]
    moved = [what for what in sorted(wanted.keys() | got.keys()) if not close(wanted.get(what), got.get(what))]
    assert not moved, (
        f"{name} makes other values: {[(what, wanted.get(what), got.get(what)) for what in moved[:4]]}; "
        f"raise the VERSION of the stage, implementation or format ({GOLDEN[name]['versions']}) if this was meant"
    )


def close(wanted: str | None, got: str | None) -> bool:
    """Equal shapes, and numbers within 1e-4 of the array's range. Scores are within 0.5 %: they add up what every
    stage before them may lawfully differ by."""
    if wanted is None or got is None:
        return False
    if " " not in wanted + got:
        return bool(np.isclose(float(wanted), float(got), rtol=5e-3, atol=1e-5))
    (shape, *one), (other, *two) = wanted.split(), got.split()
    a, b = np.array(one, float), np.array(two, float)
    return shape == other and len(a) == len(b) and bool(np.allclose(a, b, rtol=1e-4, atol=1e-4 * a[0]))


def test_equal_frames_give_an_equal_mp4_whatever_memory_held_before(tmp_path, monkeypatch):
    """An MP4 is part of an artifact's digest. x264 has been seen to read memory that nobody wrote; MALLOC_PERTURB_
    makes such memory differ."""
    world = World(scenes.scene("drift", width=96, height=66, frames=20))
    frames, made = [world.frame(t) for t in range(20)], set()
    for perturbed in ("0", "1", "170"):
        monkeypatch.setenv("MALLOC_PERTURB_", perturbed)
        video.shutdown()  # the next child starts with it
        for preset in ("veryfast", "medium"):
            video.encode(tmp_path / "a.mp4", frames, 24, preset=preset)
            made.add((preset, (tmp_path / "a.mp4").read_bytes()))
    monkeypatch.delenv("MALLOC_PERTURB_")
    video.shutdown()
    assert len(made) == 2


def test_another_process_with_other_memory_makes_the_same(tmp_path):
    """Digests of every stage, here and where memory that nobody wrote holds something else and lies elsewhere."""
    clip, follow = small_clip(tmp_path / "clip.mp4")
    here = digests(run(tmp_path / "here", str(clip), settings(follow)))
    script = (
        "import json, sys, pathlib, test_stages as t\n"
        "root, clip, *follow = sys.argv[1:]\n"
        "print(json.dumps(t.digests(t.run(pathlib.Path(root), clip, t.settings(follow)))))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}", "MALLOC_PERTURB_": "85"}
    command = [sys.executable, "-c", script, str(tmp_path / "there"), str(clip), *follow]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(there.stdout or "null") == here, there.stderr[-2000:]


def test_distances_are_exact():
    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (37, 91), (180, 320)):
        region = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 4) > 0.5
        y, x = np.nonzero(~region)
        for row, column in rng.integers(0, (height, width), (30, 2)):
            nearest = np.sqrt(np.float64(((y - row) ** 2 + (x - column) ** 2).min()))
            assert distance(region)[row, column] == np.float32(nearest)


# ---- resume ------------------------------------------------------------------------------------------------------


class StopAfter(Silent):
    """Ctrl-C once so many chunks are committed."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks

    def progress(self, stage: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("name", CHUNKED)
def test_an_interrupted_stage_goes_on_and_ends_the_same(middle, tmp_path, monkeypatch, name, chunks):
    shutil.copytree(middle.store.root, tmp_path / "store")
    calls = replace(middle, store=Store(tmp_path / "store"))
    calls.record(name).unlink()
    for file in middle.made[name].files:
        calls.store.object_path(file.sha256).unlink()

    committed: list[int] = []
    commit = Work.commit
    monkeypatch.setattr(
        Work, "commit", lambda self, index, *rest: (commit(self, index, *rest), committed.append(index))[0]
    )
    with pytest.raises(KeyboardInterrupt):
        calls.again(name, StopAfter(chunks))
    assert len(committed) == chunks
    assert not calls.record(name).exists()
    assert calls.again(name).digest == middle.made[name].digest
    assert Counter(committed) == {0: 1, 1: 1, 2: 1}
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert not list((tmp_path / "store" / "tmp").iterdir())


def test_given_masks_resume(middle, tmp_path):
    series, folder = open_series(middle.store, middle.made["masks"]), tmp_path / "masks"
    folder.mkdir()
    for t in range(len(series)):
        cv2.imwrite(str(folder / f"{t:05d}.png"), series[t].astype(np.uint8) * 255)
    p = settings(["frames.last=40", "frames.short_side=48", "masks=given", f"masks.path={folder}"])
    whole = run(tmp_path / "a", "sprites:drift", p, "masks")
    again = run(tmp_path / "b", "sprites:drift", p, "masks")
    again.record("masks").unlink()
    with pytest.raises(KeyboardInterrupt):
        again.again("masks", StopAfter(1))
    assert again.again("masks").digest == whole.made["masks"].digest
    carried = open_series(whole.store, whole.made["masks"])
    assert all(np.array_equal(carried[t], series[t]) for t in range(len(series)))


# ---- early cut-off -----------------------------------------------------------------------------------------------


def small_clip(path: Path, frames: int = 18, size: tuple[int, int] = (64, 48)) -> tuple[Path, list[str]]:
    """An MP4 of the drifting disc and settings that follow the disc."""
    world = World(scenes.scene("drift", width=size[0], height=size[1], frames=frames))
    video.encode(path, (world.frame(t) for t in range(frames)), 24, crf=12)
    found = world.box(0, 0)
    assert found is not None
    return path, [f"masks.box=[{found[0] - 3},{found[1] - 3},{found[2] + 3},{found[3] + 3}]", *QUICK]


@pytest.mark.parametrize("name", STAGES)
def test_the_same_bytes_again_stop_there(middle, tmp_path, monkeypatch, name):
    """A stage whose VERSION was raised runs again; as it gives the same bytes, nothing after it does."""
    shutil.copytree(middle.store.root, tmp_path / "store")
    stage = graph.STAGES[name]
    monkeypatch.setitem(graph.STAGES, name, replace(stage, version=stage.version + 1000))
    p = settings(["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK])
    again = run(tmp_path / "store", "sprites:drift", p)
    assert again.ran == [name]
    assert digests(again) == digests(middle)


def test_what_cannot_change_the_result_runs_nothing(tmp_path):
    clip, follow = small_clip(tmp_path / "clip.mp4")
    first = run(tmp_path / "s", str(clip), settings(follow))
    assert first.ran == list(STAGES)
    others = [["frames.max_frames=500"], ["decode.recipe_tag=false"]]
    for other in others:
        assert run(tmp_path / "s", str(clip), settings([*follow, *other])).ran == []
    moved = clip.rename(tmp_path / "another name.mp4")
    os.utime(moved, (1, 1))
    assert run(tmp_path / "s", str(moved), settings(follow)).ran == []


def test_another_file_with_the_same_frames_is_decoded_and_no_more(tmp_path):
    clip, follow = small_clip(tmp_path / "clip.mp4")
    first = run(tmp_path / "s", str(clip), settings(follow))
    video.tag(clip, "the same frames, other bytes")
    again = run(tmp_path / "s", str(clip), settings(follow))
    assert again.ran == ["frames", "decode"]  # these two read the clip
    assert digests(again) == digests(first)


def test_a_late_setting_runs_late_stages_only(middle, tmp_path):
    shutil.copytree(middle.store.root, tmp_path / "store")
    base = ["frames.last=40", "frames.short_side=48", "masks.frame=20", "masks.box=[60,45,160,140]", *QUICK]
    blend = run(tmp_path / "store", "sprites:drift", settings([*base, "edit.strength=0.5"]))
    assert blend.ran == ["edit", "decode", "metrics", "report"]
    crf = run(tmp_path / "store", "sprites:drift", settings([*base, "report.crf=30"]))
    assert crf.ran == ["report"]


# ---- refusals ----------------------------------------------------------------------------------------------------


class Then(Silent):
    """Does something, once, after the first chunk."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act: Callable[[], Any] | None = act

    def progress(self, stage: str, done: int, total: int) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


@pytest.mark.parametrize("name", ["frames", "decode", "edit"])
def test_a_source_edited_during_the_run_is_e601_and_nothing_is_published(tmp_path, name):
    """Neither then, nor when the old file is put back: chunks that may hold the other file's frames are not gone on
    from."""
    clip, follow = small_clip(tmp_path / "clip.mp4", frames=40, size=(96, 64))
    reference = tmp_path / "reference.png"
    shutil.copyfile(CHECKOUT / "params/dataset/ball.png", reference)
    p = settings([*follow, "frames.short_side=48", f"edit.reference={reference}"])
    calls = run(tmp_path / "s", str(clip), p)
    plain, source = calls.made[name].digest, reference if name == "edit" else clip
    calls.record(name).unlink()
    kept = source.read_bytes()
    other = zoo.make_clip(tmp_path / "other.mp4", frames=40, size=(96, 64)).read_bytes()

    with pytest.raises(IntegrityError) as caught:
        calls.again(name, Then(lambda: source.write_bytes(other)))
    assert caught.value.code == "E601"
    assert source.name in caught.value.message
    assert caught.value.hint
    assert not calls.record(name).exists()
    source.write_bytes(kept)
    assert calls.again(name).digest == plain


def test_chunks_of_another_file_are_not_gone_on_from(tmp_path):
    """Edited, interrupted, put back: the interrupted run never came to its own check, and one chunk that it committed
    shows what was there in between."""
    folder, kept = tmp_path / "frames", tmp_path / "kept"
    folder.mkdir()
    for t in range(40):
        video.write_png(folder / f"{t:02d}.png", zoo.picture(t, (64, 48)))
    shutil.copytree(folder, kept)
    calls = run(tmp_path / "s", str(folder), settings(["frames.short_side=null"]), "frames")
    plain = calls.made["frames"].digest
    calls.record("frames").unlink()

    class EditThenStop(StopAfter):
        def progress(self, stage: str, done: int, total: int) -> None:
            for t in range(40):
                video.write_png(folder / f"{t:02d}.png", zoo.picture(t + 100, (64, 48)))
            super().progress(stage, done, total)

    with pytest.raises(KeyboardInterrupt):
        calls.again("frames", EditThenStop(2))
    for image in kept.iterdir():
        shutil.copyfile(image, folder / image.name)
    assert calls.again("frames").digest == plain
    frames = open_series(calls.store, calls.made["frames"])
    assert [zoo.read_barcode(frames[t]) for t in (0, 15, 16, 31, 32, 39)] == [0, 15, 16, 31, 32, 39]


def test_nan_in_a_chunk_is_refused_and_what_came_before_is_kept(middle, tmp_path):
    shutil.copytree(middle.store.root, tmp_path / "store")
    stage, params, _, inputs = middle.calls["optical_flow"]
    plain = open_series(middle.store, middle.made["optical_flow"])

    def broken(work: Work, params: Any, frames: Any) -> Artifact:
        work.commit(0, plain.chunk(0))
        chunk = dict(plain.chunk(1))
        chunk["forward"] = chunk["forward"].copy()
        chunk["forward"][3, 2, 1, 0] = np.nan
        work.commit(1, chunk)
        return work.finish(count=32)

    runner = Local(Store(tmp_path / "store"))
    with pytest.raises(IntegrityError, match="optical_flow: forward of chunk 1") as caught:
        runner.outcome(replace(stage, function=broken), params, Chosen("broken@1"), inputs)
    assert caught.value.code == "E603"
    key = next((tmp_path / "store" / "partial").iterdir()).name
    partial = runner.store.load_partial(key)
    assert partial is not None
    assert [f["name"] for f in partial["files"]] == ["00000.safetensors"]
    assert runner.store.find("optical_flow", key) is None


# ---- clips at the edges of what there is -------------------------------------------------------------------------


def test_a_clip_of_one_frame_runs_through(tmp_path):
    calls = run(tmp_path / "s", "sprites:drift", settings(["frames.last=0", "frames.short_side=48", *DRIFT]))
    assert calls.ran == list(STAGES)
    assert calls.made["optical_flow"].meta["count"] == 0
    assert calls.made["optical_flow"].files == ()
    assert open_series(calls.store, calls.made["masks"])[0].any()
    scores = json.loads(calls.store.read(calls.made["metrics"]["metrics.json"]))
    assert all(value is None or np.isfinite(value) for value in scores.values() if not isinstance(value, str))


@pytest.mark.parametrize("size", [(97, 65), (66, 51), (35, 97)])
def test_odd_sizes_run_through(tmp_path, size):
    world = World(scenes.scene("drift", width=size[0], height=size[1], frames=3))
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(3):
        video.write_png(folder / f"{t}.png", world.frame(t))
    found = world.box(0, 0)
    assert found is not None
    box = f"masks.box=[{found[0] - 2},{found[1] - 2},{found[2] + 2},{found[3] + 2}]"
    for short_side in ("null", "32"):
        calls = run(tmp_path / "s", str(folder), settings([f"frames.short_side={short_side}", box, *QUICK]))
        result = open_series(calls.store, calls.made["decode"])
        assert result[2].shape == (size[1], size[0], 3)
        shown = video.probe(calls.store.copy_out(calls.made["decode"]["result.mp4"], tmp_path / "view.mp4"))
        assert (shown.width, shown.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)


# ---- decode ------------------------------------------------------------------------------------------------------


def seen(alpha: np.ndarray, box: np.ndarray, working: tuple[int, int], full: tuple[int, int]) -> tuple[Any, Any]:
    """Where a linear resampling of an alpha crop can be above 0, and where all it reads is 255: bool [H, W] each."""
    whole = np.zeros((working[1] + 2, working[0] + 2), int)  # a border of one pixel
    whole[box[1] + 1 : box[3] + 1, box[0] + 1 : box[2] + 1] = alpha
    corners = []
    for n, small in ((full[1], working[1]), (full[0], working[0])):
        at = (np.arange(n) + 0.5) * small / n - 0.5
        low = np.floor(at).astype(int)
        corners.append((low + 1, np.minimum(low + 2, small + 1)))
    read = np.stack([whole[np.ix_(rows, columns)] for rows in corners[0] for columns in corners[1]])
    return read.max(axis=0) > 0, read.min(axis=0) == 255


def test_outside_the_edit_every_pixel_is_the_sources(middle):
    """320x180 put back from 86x48."""
    meta = middle.made["frames"].meta
    working, full = (meta["width"], meta["height"]), (meta["source_width"], meta["source_height"])
    assert (working, full) == ((86, 48), (320, 180))
    edits, result = (open_series(middle.store, middle.made[name]) for name in ("edit", "decode"))
    world = World(scenes.scene("drift"))
    for t in (0, 15, 16, 20, 40):
        box, rgb, alpha = edits[t]
        source, out = world.frame(t), result[t]
        touched, opaque = seen(alpha, box, working, full)
        assert 0.02 < touched.mean() < 0.3
        assert np.array_equal(out[~touched], source[~touched])
        assert (out[touched] != source[touched]).any(axis=1).mean() > 0.9
        assert opaque.sum() > 500
        colours = rgb.reshape(-1, 3)[alpha.ravel() == 255]
        reach = colours.max(axis=0).astype(int) + 40, colours.min(axis=0).astype(int) - 40  # cubic overshoots
        assert (out[opaque] <= reach[0]).all()
        assert (out[opaque] >= reach[1]).all()


def test_without_opacity_the_result_is_the_source(tmp_path):
    for short_side in ("48", "null"):
        p = settings(["frames.last=2", f"frames.short_side={short_side}", "edit.strength=0", *DRIFT])
        calls = run(tmp_path / "s", "sprites:drift", p, "decode")
        result, world = open_series(calls.store, calls.made["decode"]), World(scenes.scene("drift"))
        assert all(np.array_equal(result[t], world.frame(t)) for t in range(3))


def test_the_number_of_threads_changes_nothing(tmp_path):
    p = settings(["frames.last=3", "frames.short_side=null", *DRIFT])
    made, before = [], cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            made.append(digests(run(tmp_path / str(threads), "sprites:drift", p)))
    finally:
        cv2.setNumThreads(before)
    assert made[0] == made[1]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        rows = [f"    {name!r}: {value!r},".replace("'", '"') for name, value in fingerprints(Path(scratch)).items()]
    print("GOLDEN: dict[str, dict[str, Any]] = {", *rows, "}", sep="\n")  # then: ruff format
