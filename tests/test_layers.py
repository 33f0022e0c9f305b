"""The arrow between the layers, the settings files against their models, and what a sixth method costs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers.checkouts import copied
from helpers.command import CHECKOUT, Child, sprite_clip

from flows.settings.choice import CHOICES
from flows.settings.compose import MODELS, compose, read_params
from retake.lookup import lookup, names

METHOD = '''
"""Invert the object's colours."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from retake.methods import Patch

VERSION = 1
NEEDS = ("masks",)


class Params(BaseModel, frozen=True, extra="forbid"):
    name: Literal["inverted"] = "inverted"
    strength: float = Field(1.0, ge=0, le=1, description="opacity of the edit")


def edit(latents, backbone, priors, inputs, params, rng):
    frames, masks = inputs.frames, priors["masks"]
    for index in range(inputs.first_chunk, frames.chunks()):
        span = range(16 * index, min(16 * index + 16, len(frames)))
        alpha = [np.rint(masks[t] * params.strength * 255).astype(np.uint8) for t in span]
        yield Patch((0, 0, frames.width, frames.height), np.stack([255 - frames[t] for t in span]), np.stack(alpha))
'''


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(layer: str) -> Iterator[tuple[str, ast.Module]]:
    """(path in the checkout, syntax tree) of every module of a layer."""
    for path in sorted((CHECKOUT / layer).rglob("*.py")):
        yield str(path.relative_to(CHECKOUT)), parsed(path)


@cache
def imports(tree: ast.Module) -> frozenset[str]:
    """Dotted names of everything that a module imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def packages(tree: ast.Module) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


# `import sam2` sets up Hydra for the whole process, and its models are described for OmegaConf: one room undoes that.
OF_SAM2 = {"retake/priors/masks/sam2/package.py": {"hydra", "omegaconf"}}


# ---- one arrow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "forbidden"),
    [
        ("retake", {"flows", "tasks", "prefect", "hydra", "omegaconf", "typer"}),
        ("tasks", {"flows", "prefect", "hydra", "omegaconf", "typer", "dvc"}),
        ("flows", {"dvc"}),
    ],
)
def test_a_layer_imports_nothing_from_above(layer, forbidden):
    wrong = {path: found for path, tree in modules(layer) if (found := packages(tree) & forbidden)}
    assert wrong == (OF_SAM2 if layer == "retake" else {})


def test_dvc_has_one_room():
    assert {path for path, tree in modules("retake") if "dvc" in packages(tree)} == {"retake/dvc.py"}


def test_only_the_launcher_names_what_stands_above_it():
    named = set()
    for path, tree in modules("retake"):
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        if any(text.startswith(("flows.", "tasks.")) and " " not in text for text in texts):
            named.add(path)
    assert named == {"retake/launcher.py"}


def dotted(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


@cache
def arrows() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports: at its top, inside functions, and for types only."""
    trees = {dotted(path): tree for layer in ("flows", "tasks", "retake") for path, tree in modules(layer)}

    def module_of(name: str) -> str | None:
        return name if name in trees else name.rpartition(".")[0] if name.rpartition(".")[0] in trees else None

    return {
        module: {found for name in imports(tree) if (found := module_of(name))} - {module}
        for module, tree in trees.items()
    }


def test_imports_make_no_circle():
    left = dict(arrows())
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert sorted(left) == []  # what is left stands in a circle, or above one


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        (
            "flows.settings",
            {"editing", "datasets", "experiments", "planning", "upkeep", "commands", "graph", "runners"},
        ),
        ("flows.planning", {"editing", "datasets", "experiments", "upkeep", "commands", "graph"}),
        ("flows.terminal", {"editing", "datasets", "experiments", "upkeep", "commands", "graph", "runners"}),
        ("flows.editing", {"datasets", "experiments", "upkeep", "commands"}),
        ("retake.imaging", {"priors", "methods", "metrics", "diffusion", "store", "report", "video"}),
        ("retake.machine", {"priors", "methods", "metrics", "diffusion", "store", "report", "video"}),
        ("retake.store", {"priors", "methods", "metrics", "diffusion", "report", "video", "stage"}),
        ("retake.diffusion", {"priors", "methods", "metrics", "report", "video", "training"}),
        ("retake.priors", {"methods", "metrics", "diffusion", "report", "training"}),
        ("retake.methods", {"metrics", "report", "training"}),
        ("retake.metrics", {"methods", "diffusion", "report", "training"}),
    ],
)
def test_a_part_imports_nothing_that_stands_above_it(part, forbidden):
    layer = part.partition(".")[0]
    above = tuple(f"{layer}.{name}" for name in forbidden)
    wrong = {
        module: found
        for module, targets in arrows().items()
        if f"{module}.".startswith(f"{part}.")
        and (found := {target for target in targets if f"{target}.".startswith(tuple(f"{name}." for name in above))})
    }
    assert wrong == {}


def test_methods_do_not_import_one_another():
    siblings = {f"retake.methods.{name}" for name in names("methods")}
    for path, tree in modules("retake/methods"):
        used = {".".join(name.split(".")[:3]) for name in imports(tree)} & siblings
        assert used <= {".".join(Path(path).with_suffix("").parts[:3])}, path


def test_no_test_file_imports_another():
    tests = {path.stem for path in (CHECKOUT / "tests").glob("test_*.py")}
    for path, tree in modules("tests"):
        assert not packages(tree) & tests, path


# ---- settings files ------------------------------------------------------------------------------------------------


VARIES = {"metrics/all": {"names"}}  # files that say something else than the defaults, and where


def settings_files() -> list[Path]:
    return sorted(p for p in (CHECKOUT / "params").glob("*/*.yaml") if p.parent.name not in ("dataset", "evaluation"))


@pytest.mark.parametrize("path", settings_files(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_settings_file_states_every_default_of_its_model(path):
    group = path.parent.name
    model = lookup(CHOICES[group], path.stem).Params if group in CHOICES else MODELS[group]
    stated, defaults = yaml.safe_load(path.read_text()), model().model_dump(mode="json")
    assert set(stated) == set(defaults)
    if group == "model":  # every model has settings of its own
        assert stated["name"] == path.stem
        return
    differs = {name for name in stated if stated[name] != defaults[name]}
    assert differs == VARIES.get(f"{group}/{path.stem}", set())


@pytest.mark.parametrize("group", sorted(CHOICES))
def test_every_choice_has_a_settings_file(group):
    assert {p.stem for p in (CHECKOUT / "params" / group).glob("*.yaml")} == set(names(CHOICES[group]))


def test_the_snapshot_is_what_the_settings_compose_to():
    assert read_params() == compose([])


# ---- a sixth method ------------------------------------------------------------------------------------------------


def test_a_sixth_method_is_one_file_and_one_settings_file(tmp_path):
    from retake.formats import open_series
    from retake.store import Store

    checkout = copied(tmp_path / "checkout")
    (checkout / "retake/methods/inverted.py").write_text(METHOD)
    (checkout / "params/edit/inverted.yaml").write_text("name: inverted\nstrength: 1.0\n")

    shell, clip = Child(tmp_path, checkout), sprite_clip(tmp_path / "clip.mp4", frames=18)
    words = (clip, "--box", "20,20,80,80", "edit=inverted", "--until", "decode", "--json")
    assert set(shell("plan", *words).statuses()) == {"frames", "optical_flow", "masks", "edit", "decode"}
    made = shell("edit", *words).data

    store = Store(tmp_path / "store" / "retake")
    keys = {stage["stage"]: stage["key"] for stage in made["stages"]}
    records = {stage: record for stage, key in keys.items() if (record := store.find(stage, key))}
    frames, masks, result = (open_series(store, records[n].artifact) for n in ("frames", "masks", "decode"))
    assert records["edit"].recipe["implementation"] == "inverted@1"
    assert sum(masks[t].sum() for t in range(18)) > 0
    for t in range(18):  # but for the rim, where one chroma sample stands for pixels on both sides
        far, deep = (cv2.distanceTransform(np.uint8(part), cv2.DIST_C, 3) > 3 for part in (~masks[t], masks[t]))
        np.testing.assert_array_equal(result[t][far], frames[t][far])
        assert np.abs(result[t][deep].astype(int) - (255 - frames[t][deep])).mean() < 1.5
    assert "Did you mean inverted?" in shell("plan", clip, "edit=invert").err
