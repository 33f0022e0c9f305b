"""The page of `retake pick` in a real browser, and what its command makes of a clip."""

from __future__ import annotations

import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.command import Shell

from flows import graph
from flows.editing import frame, pick
from flows.runners import Local
from flows.settings.compose import settings
from flows.terminal.arguments import with_box
from retake.clip import open_clip
from retake.errors import ConfigError
from retake.formats import open_series
from retake.store import Store
from retake.synthetic import World, scenes

CLIP = "sprites:cross"
WORLD = World(scenes.scene("cross"))


class Page:
    """An opened page. Places are pixels of the clip."""

    def __init__(self, browser, path: Path, size: tuple[int, int]) -> None:
        self.tab = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
        self.complaints: list[str] = []
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(path.as_uri())
        area = self.tab.locator("#marks").bounding_box()
        self.to = lambda x, y: (area["x"] + x * area["width"] / size[0], area["y"] + y * area["height"] / size[1])

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self.tab.mouse.move(*self.to(x0, y0))
        self.tab.mouse.down()
        self.tab.mouse.move(*self.to(x1, y1))
        self.tab.mouse.up()

    def click(self, x: float, y: float, beside: bool = False) -> None:
        if beside:
            self.tab.keyboard.down("Shift")
        self.tab.mouse.click(*self.to(x, y))
        if beside:
            self.tab.keyboard.up("Shift")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def words(self) -> list[str]:
        return shlex.split(self.tab.inner_text("#command"))


@pytest.fixture
def opened(browser, tmp_path):
    def to(*overrides: str, clip: str = CLIP, size=(WORLD.width, WORLD.height)) -> Page:
        return Page(browser, pick.write_page(clip, list(overrides), tmp_path / "page" / "pick.html").path, size)

    return to


def masks_of(words: list[str], root: Path):
    """Settings of a command that the page shows, and the masks that it makes."""
    assert words[:2] == ["retake", "edit"]
    assert words[-2:] == ["--until", "masks"]
    rest = words[3:-2]
    box = rest.pop(rest.index("--box") + 1) if "--box" in rest else None
    p = settings(with_box([word for word in rest if word != "--box"], box))
    store = Store(root)
    return p, open_series(store, graph.edit_graph(Local(store), open_clip(words[2]), p, "masks", report=False)["masks"])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_dragged_box_is_a_command_that_finds_the_object(opened, tmp_path):
    page = opened("frames.last=12")
    x0, y0, x1, y1 = WORLD.box(0, 1)
    page.drag(x1 + 2, y1 + 2, x0 - 2, y0 - 2)  # from a corner beyond the edge of the frame, which is where boxes end
    p, masks = masks_of(page.words(), tmp_path / "store")
    assert np.allclose(p.masks.box, (x0 - 2, y0 - 2, min(x1 + 2, WORLD.width), y1 + 2), atol=1)
    assert p.frames.last == 12
    assert overlap(masks.object(0, 1), WORLD.mask(0, 1)) > 0.9
    page.drag(x0 - 3, y0 - 3, x1 + 3, y1 + 3)  # a second box is in place of the first
    assert page.words().count("--box") == 1
    assert page.tab.locator("#list li").count() == 1
    assert page.complaints == []


def test_points_objects_and_corrections_are_told_as_settings_are_written(opened, tmp_path):
    page = opened("masks.box=[1,1,9,9]", "decode.crf=20")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    page.drag(*WORLD.box(3, 1))
    page.press("2")
    page.click(*centre(3))
    page.click(2, 2, beside=True)
    page.press("ArrowRight", "ArrowRight")
    page.click(*centre(5))
    p, masks = masks_of(page.words(), tmp_path / "store")
    assert p.decode.crf == 20  # what was typed stays, but for what is picked anew
    assert p.masks.box is None
    assert p.masks.frame == 3
    assert p.masks.objects[1].box
    assert [label for *_, label in p.masks.objects[2].points] == [1, 0]
    (correction,) = p.masks.corrections
    assert (correction.frame, correction.object, correction.points[0][2]) == (5, 2, 1)
    assert np.allclose(correction.points[0][:2], centre(5), atol=1)
    assert masks.ids == (1, 2)
    assert overlap(masks.object(3, 1), WORLD.mask(3, 1)) > 0.85
    page.press("Control+z")
    assert "corrections" not in page.tab.inner_text("#command")


def centre(t: int) -> tuple[float, float]:
    """Of the far disc."""
    rows, columns = np.nonzero(WORLD.mask(t, 0))
    return float(columns.mean()), float(rows.mean())


def test_marks_that_make_no_command_are_told(opened):
    page = opened("frames.last=3")
    assert page.tab.locator("#copy").is_disabled()
    page.click(20, 20, beside=True)
    assert "only beside it" in page.tab.inner_text("#problem")
    page.drag(10, 10, 40, 40)
    assert page.tab.inner_text("#problem") == ""
    page.press("ArrowRight", "3")
    page.click(20, 20)
    assert page.tab.inner_text("#problem").startswith("Object 3 has no mark on frame 0")
    assert page.tab.locator("#copy").is_disabled()
    page.tab.get_by_label("Remove mark 3").click()
    assert page.tab.locator("#copy").is_enabled()
    page.tab.locator("#copy").click()
    page.tab.get_by_text("Copied").wait_for()


def test_a_name_from_outside_is_text(opened, tmp_path):
    folder = tmp_path / "</script><img src=x onerror=alert(1)>" / "it's {{ data }}"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "0.png"), np.full((30, 40, 3), 90, np.uint8))
    page = opened(clip=str(folder), size=(40, 30))
    page.drag(5, 5, 20, 20)
    assert page.words()[2] == str(folder)
    assert page.tab.locator("img").count() == 1
    assert page.complaints == []


def test_a_long_clip_has_a_page_of_some_of_its_frames(monkeypatch, tmp_path):
    monkeypatch.setattr(pick, "MOST", 8)
    done = pick.write_page(CLIP, [], tmp_path / "pick.html")
    assert done.count == WORLD.frames
    assert WORLD.frames / 9 < done.step <= WORLD.frames / 4
    numbers = [n for n in range(done.count) if f'[{n}, "data:image/jpeg' in done.path.read_text()]
    assert numbers == list(range(0, done.count, done.step))
    assert f"every {done.step} of {done.count}" in " ".join(done.lines())


def test_the_command_says_where_the_page_is_and_refuses_what_is_no_clip(tmp_path):
    found = Shell(tmp_path)("pick", CLIP, "frames.last=1", "--json").data
    assert found["frames"] == 2
    assert Path(found["page"]).is_file()
    with pytest.raises(ConfigError, match="E211"):
        pick.write_page(CLIP, ["frames.first=900"])


def test_a_small_frame_is_enlarged_under_its_grid(tmp_path):
    path = frame.write_frame("sprites:captioned:3", 0, ["masks.box=[10,22,37,49]"], "box", tmp_path / "grid.png")
    shown = cv2.imread(str(path))[..., ::-1]
    zoom = shown.shape[0] // 64
    assert shown.shape == (64 * zoom, 64 * zoom, 3)
    assert zoom > 8
    red = (shown[..., 0] > 230) & (shown[..., 1] < 90) & (shown[..., 2] < 70)
    rows, columns = np.nonzero(red)
    assert (columns.min() // zoom, rows.min() // zoom) == pytest.approx((10, 22), abs=1)
    assert (columns.max() // zoom, rows.max() // zoom) == pytest.approx((36, 48), abs=1)
