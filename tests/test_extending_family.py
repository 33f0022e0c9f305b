"""A family of models is one package, a command one function, a new group of priors what docs/extending.md lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import small_diffusion as small
from helpers.checkouts import copied
from helpers.command import Child, sprite_clip

from retake.diffusion.model import Model
from retake.errors import ConfigError

FAMILY = '''
"""An image model that paints every frame by itself."""

NETWORK = "unet"
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer",),
}
SETTINGS = ()
'''
ADAPTER = """
from diffusers import UNet2DConditionModel

from retake.diffusion.families.common.unet import UNet, blank, site, text_width
from retake.diffusion.loading import components


class Adapter(UNet):
    def forward(self, z, t, inputs):
        states = inputs["states"].repeat_interleave(z.shape[1], dim=0)
        return self.network(z.flatten(0, 1), t.flatten(), states).sample.unflatten(0, z.shape[:2])

    def blank(self):
        return blank(lambda: UNet2DConditionModel.from_config(dict(self.config)))


def network(model, folders, found, dtype):
    return components.read("unet", components.find("unet", *folders), dtype)
"""
PRIOR = '''
"""How bright every pixel is."""

from typing import Literal

from pydantic import BaseModel, Field

VERSION = 1
NEEDS = ()


class Params(BaseModel, frozen=True, extra="forbid"):
    name: Literal["luma"] = "luma"
    gain: float = Field(1.0, gt=0, description="factor of the brightness")


def brightness(frame, params):
    return params.gain * frame.mean(axis=-1) / 255
'''
STAGE = """
import numpy as np

from retake.formats import chunk_range
from retake.lookup import lookup
from retake.stage import stage


@stage("brightness", version=1, makes="depth", group="priors.brightness")
def stage_brightness(work, params, frames):
    series, module = work.open(frames), lookup("priors.brightness", params.name)
    for index in range(len(work.done), series.chunks()):
        maps = [module.brightness(series[t], params) for t in chunk_range(index, len(series))]
        work.commit(index, {"depth": np.stack(maps).astype(np.float16)})
    return work.finish(count=len(series), width=series.width, height=series.height, name=params.name)
"""


COMMAND = '''

@app.command()
def colours(name: str) -> None:
    """Say a colour."""
    print(name)
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with a family, a command and a group of priors more."""
    folder = copied(tmp_path_factory.mktemp("extended") / "checkout")

    def write(path: str, text: str) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)

    def change(path: str, old: str, new: str) -> None:
        text = (folder / path).read_text()
        assert text.count(old) == 1, (path, old)
        write(path, text.replace(old, new))

    write("retake/diffusion/families/frames/__init__.py", FAMILY)
    write("retake/diffusion/families/frames/adapter.py", ADAPTER)

    with open(folder / "flows/commands/machine.py", "a") as commands:
        commands.write(COMMAND)

    write("retake/priors/brightness/__init__.py", "")
    write("retake/priors/brightness/luma.py", PRIOR)
    write("params/brightness/luma.yaml", "name: luma\ngain: 1.0\n")
    write("tasks/brightness.py", STAGE)
    change("flows/graph.py", "from tasks import (\n", "from tasks import (\n    brightness,\n")
    change(
        "flows/graph.py",
        '    "edited_tracks": edited_tracks.stage_edited_tracks,\n',
        '    "edited_tracks": edited_tracks.stage_edited_tracks,\n    "brightness": brightness.stage_brightness,\n',
    )
    change("flows/graph.py", '"tracks", "edited_tracks")', '"tracks", "edited_tracks", "brightness")')
    change(
        "flows/settings/choice.py",
        '    "edit": "methods",\n',
        '    "edit": "methods",\n    "brightness": "priors.brightness",\n',
    )
    change("flows/settings/compose.py", "    tracks: Any\n", "    tracks: Any\n    brightness: Any\n")
    change("params/config.yaml", "  - edit: propagate\n", "  - edit: propagate\n  - brightness: luma\n")
    depth = "    depth: Artifact | None = None,\n"
    change("tasks/report.py", depth, depth + "    brightness: Artifact | None = None,\n")
    return folder


def test_a_family_of_models_is_one_package(tmp_path, checkout):
    from retake.diffusion.loading.load import load
    from retake.formats import open_series
    from retake.store import Store

    folder = small.save_embedded_like(tmp_path / "model", joint=False)
    shutil.rmtree(folder / "motion_adapter")  # without which no family that ships takes this folder
    clip = sprite_clip(tmp_path / "clip.mp4", frames=4)
    shell = Child(tmp_path, checkout)
    size = [f"model.{side}=32" for side in ("height", "width")]
    words = (clip, "--box", "20,20,80,80", "edit=sdedit", f"model.weights={folder}", *size, "model.frames=4")
    words += ("edit.prompt=a", "edit.source=noise", "edit.steps=2", "model.device=cpu", "--until", "edit", "--json")
    made = shell("edit", *words, "model.family=frames").data
    keys = {stage["stage"]: stage["key"] for stage in made["stages"]}
    store = Store(tmp_path / "store" / "retake")
    record = store.find("edit", keys["edit"])
    assert record is not None
    assert len(open_series(store, record.artifact)) == 4

    with pytest.raises(ConfigError, match="without a motion adapter"):
        load(Model(family="unet_motion", weights=str(folder), height=32, width=32, frames=4))
    assert "Did you mean frames?" in shell("plan", *words, "model.family=frame").err
    assert "take no motion" in shell("plan", *words, "model.family=frames", f"model.motion={folder}").err


def test_a_command_is_one_function(tmp_path, checkout):
    shell = Child(tmp_path, checkout)
    assert shell("colours", "red").out == "red\n"
    assert "Say a colour." in shell("--help").out


def test_a_new_group_of_priors_is_the_lines_that_the_page_lists(tmp_path, checkout):
    from retake.formats import open_series
    from retake.store import Store

    shell, clip = Child(tmp_path, checkout), sprite_clip(tmp_path / "clip.mp4", frames=18)
    words = ("edit", clip, "--until", "brightness", "--json")
    made = shell(*words, "brightness.gain=0.5")
    assert made.statuses() == {"frames": "ran", "brightness": "ran", "report": "ran"}
    store, keys = Store(tmp_path / "store" / "retake"), {stage["stage"]: stage["key"] for stage in made.data["stages"]}
    records = {name: record for name, key in keys.items() if (record := store.find(name, key))}
    frames, maps = (open_series(store, records[name].artifact) for name in ("frames", "brightness"))
    for t in (0, 17):
        assert maps[t] == pytest.approx(frames[t].mean(axis=-1) / 510, abs=1e-3)
    assert shell(*words, "brightness.gain=0.5").ran() == []
    assert "brightness.gain" in shell(*words, "brightness.gain=-1").err
