"""Models that stay loaded: once a process, anew when their files change, within a budget."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers import small_diffusion as small

from retake.diffusion.loading import load
from retake.diffusion.model import Model
from tasks import pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small.save_embedded_like(tmp_path_factory.mktemp("model"))


@pytest.fixture
def loads(monkeypatch) -> list[Model]:
    """Every model that is loaded; the pool starts and ends empty."""
    found: list[Model] = []
    whole = load.load

    def noted(model: Model):
        found.append(model)
        return whole(model)

    monkeypatch.setattr(load, "load", noted)
    pool.cool()
    yield found
    pool.cool()


def model(folder: Path, **more) -> Model:
    return Model(**small.settings(folder, **more))


def test_a_model_is_loaded_once(folder, loads):
    one = pool.backbone_of(model(folder))
    assert pool.backbone_of(model(folder)) is one
    assert pool.backbone_of(model(folder, dtype="float16")) is not one
    assert len(loads) == 2


def test_other_files_are_another_model(folder, loads, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    one = pool.backbone_of(model(copy))
    os.utime(copy / "unet" / "config.json", (1, 1))
    assert pool.backbone_of(model(copy)) is not one


def test_what_was_used_least_recently_goes_first(folder, loads, monkeypatch):
    first, second, third = (model(folder, batch=n) for n in (1, 2, 3))
    size = pool.backbone_of(first).parts.bytes
    monkeypatch.setenv("RETAKE_WARM", str(2.5 * size / pool.GIB))
    pool.backbone_of(second)
    pool.backbone_of(first)
    pool.backbone_of(third)  # second goes
    pool.backbone_of(first)
    assert len(loads) == 3
    pool.backbone_of(second)
    assert len(loads) == 4


@pytest.mark.parametrize("room", ["0", "1e-9"])
def test_without_room_nothing_is_kept(folder, loads, monkeypatch, room):
    monkeypatch.setenv("RETAKE_WARM", room)
    assert pool.backbone_of(model(folder)) is not pool.backbone_of(model(folder))
    assert len(loads) == 2
