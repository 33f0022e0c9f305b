"""The report's page in a real browser, offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.reports import BACKGROUND, FPS, FRAMES, HOSTILE, TILE, made, mosaics, near, report

from retake.report import edit_page


class Opened:
    """A page opened from file:// without network, with all that it asked for and complained about."""

    def __init__(self, browser, file: Path, script: str = "", **context) -> None:
        self.context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, **context)
        self.context.add_init_script(script)
        self.tab, self.requests, self.complaints = self.context.new_page(), [], []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", self._hear)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(file.as_uri())
        self.until("() => window.retake !== undefined && window.retake.ready")

    def _hear(self, message) -> None:
        if "willReadFrequently" not in message.text:  # advice about the pixels that these tests read back
            self.complaints.append(message.text)

    def until(self, condition: str) -> None:
        """Polls from here: the page's policy forbids Playwright's own way, which evaluates text inside it."""
        deadline = time.monotonic() + 15
        while not self.tab.evaluate(condition):
            assert time.monotonic() < deadline, f"never true: {condition} {self.complaints}"
            time.sleep(0.02)

    def shows(self, n: int) -> None:
        """Waits for the picture of frame n: a busy machine draws it a little after it says so."""
        deadline = time.monotonic() + 15
        while self.barcode() != n:
            assert time.monotonic() < deadline, f"shows {self.barcode()}, not {n}"
            time.sleep(0.02)

    def remote(self) -> list[str]:
        return [url for url in self.requests if not url.startswith("data:")]

    def pixel(self, x: int, y: int) -> list[int]:
        return self.tab.evaluate(
            "([x, y]) => [...document.getElementById('view').getContext('2d').getImageData(x, y, 1, 1).data]",
            [x, y],
        )[:3]

    def barcode(self, x: int = 0) -> int:
        return sum((self.pixel(x + bit * 16 + 8, 24)[1] > 127) << bit for bit in range(8))

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def embedded(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("embedded")
    made(folder, report(), mosaics())
    opened = Opened(browser, folder / "report.html")
    yield opened
    opened.close()


def test_the_page_opens_offline_and_asks_for_nothing_else(embedded: Opened) -> None:
    assert embedded.complaints == []
    assert len(embedded.remote()) == 1
    assert embedded.tab.evaluate("retake.frames") == FRAMES
    assert embedded.tab.evaluate("retake.frame()") == 0


def test_seeking_shows_exactly_the_frame(embedded: Opened) -> None:
    for n in (13, 12, 0, 19, 7, 8, 9, 1):
        assert embedded.tab.evaluate(f"retake.seek({n})") == n
        assert embedded.tab.evaluate("retake.frame()") == n
        embedded.shows(n)
    embedded.tab.evaluate("Promise.all([3, 17, 5, 11].map(retake.seek))")  # a scrub: the last wish wins
    assert embedded.tab.evaluate("retake.frame()") == 11
    embedded.shows(11)
    embedded.tab.evaluate("retake.seek(999)")
    embedded.shows(FRAMES - 1)


def test_keys_step_frames(embedded: Opened) -> None:
    embedded.tab.evaluate("retake.seek(5)")
    for key, n in (("ArrowRight", 6), ("ArrowLeft", 5), ("Shift+ArrowRight", 15), ("End", 19), ("Home", 0)):
        embedded.tab.keyboard.press(key)
        embedded.until(f"() => retake.frame() === {n}")
        embedded.shows(n)


def test_it_plays_and_pauses_on_the_frame_that_was_seen(embedded: Opened) -> None:
    embedded.tab.evaluate("retake.seek(0)")
    embedded.tab.evaluate("retake.play()")
    embedded.until("() => retake.frame() >= 3")
    embedded.tab.evaluate("retake.pause()")
    embedded.shows(seen := embedded.tab.evaluate("retake.frame()"))
    assert seen > 0
    embedded.tab.keyboard.press("Space")
    assert not embedded.tab.evaluate("document.getElementById('proxy').paused")
    embedded.tab.keyboard.press("Space")
    embedded.until("() => document.getElementById('proxy').paused")


def test_a_browser_without_frame_callbacks_seeks_and_plays_too(browser, tmp_path: Path) -> None:
    made(tmp_path, report(), mosaics(), contact_sheet=False)
    older = "delete HTMLVideoElement.prototype.requestVideoFrameCallback"
    opened = Opened(browser, tmp_path / "report.html", older)
    try:
        for n in (13, 2, 19):
            opened.tab.evaluate(f"retake.seek({n})")
            assert opened.tab.evaluate("retake.frame()") == n
            opened.shows(n)
        opened.tab.evaluate("retake.seek(0)")
        opened.tab.evaluate("retake.play()")
        opened.until("() => retake.frame() >= 3")
        opened.tab.evaluate("retake.pause()")
        opened.shows(seen := opened.tab.evaluate("retake.frame()"))
        assert seen > 0
        assert opened.complaints == []
    finally:
        opened.close()


def test_the_wipe_divides_two_layers_of_one_frame(embedded: Opened) -> None:
    embedded.tab.evaluate("retake.seek(9)")
    embedded.shows(9)
    assert near(embedded.pixel(30, 80), BACKGROUND["source"])
    assert near(embedded.pixel(100, 80), BACKGROUND["result"])
    assert embedded.barcode() == 9  # across the line: both halves are the same frame
    box = embedded.tab.locator("#view").bounding_box()
    assert box is not None
    embedded.tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    embedded.tab.mouse.down()
    embedded.tab.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.5)
    embedded.tab.mouse.up()
    assert near(embedded.pixel(30, 80), BACKGROUND["result"])
    embedded.tab.keyboard.press("Digit3")
    assert near(embedded.pixel(100, 80), BACKGROUND["mask"])
    embedded.tab.keyboard.press("Digit2")
    embedded.tab.fill("#amount", "50")


def test_every_view_draws_its_tiles(embedded: Opened) -> None:
    def choose(mode: str) -> None:
        embedded.tab.check(f"#modes input[value={mode}]", force=True)

    embedded.tab.evaluate("retake.seek(6)")
    choose("side")
    assert near(embedded.pixel(64, 80), BACKGROUND["source"])
    assert near(embedded.pixel(192, 80), BACKGROUND["result"])
    embedded.shows(6)
    assert embedded.barcode(128) == 6
    choose("blend")
    assert near(embedded.pixel(64, 80), (120, 100, 40))
    choose("difference")
    embedded.tab.fill("#amount", "0")
    assert near(embedded.pixel(64, 80), (160, 120, 0))
    assert near(embedded.pixel(24, 24), (0, 0, 0))  # the bars are equal
    choose("all")
    assert near(embedded.pixel(320, 80), BACKGROUND["mask"])
    choose("wipe")


def test_curves_are_drawn_and_seek(embedded: Opened) -> None:
    path = embedded.tab.locator(".curve path").get_attribute("d") or ""
    assert path.count("M") == 1
    assert path.count("L") == FRAMES - 3  # None first, NaN last
    box = embedded.tab.locator(".curve svg").bounding_box()
    assert box is not None
    embedded.tab.mouse.click(box["x"] + box["width"] * 10 / 19, box["y"] + 20)
    embedded.until("() => retake.frame() === 10")
    assert embedded.tab.locator(".curve .now").inner_text() == "0.09"


def test_doubtful_frames_are_marked_on_the_play_bar_and_lead_there(embedded: Opened) -> None:
    said = embedded.tab.locator(".health li").inner_text()
    assert said == "The mask is worth a look in frames 4–7 15: it jumps"
    bar, marks = (embedded.tab.locator(at) for at in ("#seek", "#marks i"))
    assert marks.count() == 2
    whole, one = bar.bounding_box(), marks.first.bounding_box()
    assert whole is not None
    assert one is not None
    assert one["x"] - whole["x"] == pytest.approx(whole["width"] * 4 / (FRAMES - 1), abs=12)
    assert one["width"] == pytest.approx(whole["width"] * 3 / (FRAMES - 1), abs=6)
    embedded.tab.locator(".health button").last.click()
    embedded.until("() => retake.frame() === 15")


def test_fifty_values_stay_readable(browser, tmp_path: Path) -> None:
    """Groups, a source drawn under its result, curves that open, and no sideways scrolling on a phone."""
    series = [0.5 + 0.01 * n for n in range(FRAMES)]
    metrics, curves = [], {}
    for k in range(10):
        for name in (f"m{k}", f"m{k}_source", f"m{k}_delta", f"m{k}_edit", f"m{k}_source_edit"):
            metrics.append(
                edit_page.Metric(name, 0.5, f"what {name} is, and its unit", True, group=f"m{k}", network="CLIP x")
            )
            curves[name] = series
    made(tmp_path, report(metrics=tuple(metrics), curves=curves), mosaics(), contact_sheet=False)
    opened = Opened(browser, tmp_path / "report.html")
    try:
        assert opened.complaints == []
        assert opened.tab.locator(".group").count() == 10
        assert opened.tab.locator(".metric").count() == 20
        assert opened.tab.locator("details[open]").count() == 10
        assert opened.tab.locator(".curve .floor").count() == opened.tab.locator(".curve .trace").count() == 20
        hidden = opened.tab.locator(".metric .curve").nth(1)
        assert not hidden.is_visible()
        opened.tab.locator("summary").nth(1).click()
        assert hidden.is_visible()
        opened.tab.evaluate("retake.seek(7)")
        assert opened.tab.locator(".curve .now").nth(1).inner_text() == "0.57 source 0.57"
        opened.tab.keyboard.press("ArrowRight")
        opened.until("() => retake.frame() === 8")
        opened.tab.set_viewport_size({"width": 390, "height": 800})
        assert opened.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        opened.close()


def test_controls_have_names(embedded: Opened) -> None:
    nameless = """() => [...document.querySelectorAll('button, select, input, canvas, .curve svg')].filter(
        (e) => !(e.ariaLabel || e.closest('label')?.textContent.trim())).map((e) => e.outerHTML)"""
    assert embedded.tab.evaluate(nameless) == []
    assert embedded.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_command_is_copied_whole(browser, tmp_path: Path) -> None:
    command = "retake edit 'a clip.mp4' 'masks.objects={1: {box: [1,2,30,40]}}'"
    made(tmp_path, report(command=command), mosaics())
    opened = Opened(browser, tmp_path / "report.html", permissions=["clipboard-read", "clipboard-write"])
    try:
        opened.tab.locator("#copy").click()
        opened.until("() => document.getElementById('copy').textContent === 'Copied'")
        assert opened.tab.evaluate("navigator.clipboard.readText()") == command
    finally:
        opened.close()


def test_a_hostile_name_is_text(browser, tmp_path: Path) -> None:
    names = ("source", HOSTILE)
    data = report(
        title=HOSTILE, clip=HOSTILE, layers=names, columns=2, curves={HOSTILE: [0.5] * FRAMES}, notices=(HOSTILE,),
        metrics=(edit_page.Metric(HOSTILE, 1.0, HOSTILE, True, HOSTILE),), command=HOSTILE, made=HOSTILE,
        stages=(edit_page.StageRow(HOSTILE, HOSTILE, 1.0, 1, HOSTILE),), versions={HOSTILE: HOSTILE},
        recipe={HOSTILE: {HOSTILE: [HOSTILE]}, "prompt": HOSTILE}, links=(edit_page.Link(HOSTILE, "a b#?&'\".mp4"),),
    )  # fmt: skip
    made(tmp_path, data, mosaics(names, 2))
    opened = Opened(browser, tmp_path / "report.html")
    try:
        assert opened.complaints == []
        assert len(opened.remote()) == 1
        assert opened.tab.evaluate("window.pwned") is None
        assert opened.tab.evaluate("document.querySelectorAll('script').length") == 2
        assert "<img src=x onerror=" in opened.tab.locator("h1").inner_text()
        assert opened.tab.locator(".curve path").count() == 1
        assert opened.tab.locator("main a").first.get_attribute("href") == "./a%20b%23%3F%26%27%22.mp4"
        # Should escaping ever fail, the policy still stops what was smuggled in.
        opened.tab.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 2';"
            " document.body.append(s); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=pwned=3>') }"
        )
        opened.until("() => true")
        assert opened.tab.evaluate("window.pwned") is None
        assert opened.tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    finally:
        opened.close()


def test_a_large_proxy_lies_beside_the_page(browser, tmp_path: Path) -> None:
    made(tmp_path, report(), mosaics(), contact_sheet=False, embed_limit=1000)
    opened = Opened(browser, tmp_path / "report.html")
    try:
        assert opened.complaints == []
        assert {Path(url).name for url in opened.remote()} == {"report.html", "layers.mp4"}
        opened.tab.evaluate("retake.seek(13)")
        # A canvas that shows another file cannot be read back: look at the screen instead.
        shot = cv2.imdecode(np.frombuffer(opened.tab.locator("#view").screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert shot is not None
        height, width = shot.shape[:2]
        bars = [shot[height // 4, int(width * (bit + 0.5) / 8), 1] > 127 for bit in range(8)]
        assert sum(int(on) << bit for bit, on in enumerate(bars)) == 13
        red, green = shot[int(height * 0.8), [width // 4, width * 3 // 4]][:, ::-1].tolist()
        assert near(red, BACKGROUND["source"])
        assert near(green, BACKGROUND["result"])
    finally:
        opened.close()
    made(tmp_path, report(), mosaics())
    assert not (tmp_path / "layers.mp4").exists()


@pytest.mark.parametrize("names", [("source",), ("source", "mask")])
def test_a_partial_report_shows_what_there_is(names: tuple[str, ...], browser, tmp_path: Path) -> None:
    bare = edit_page.ReportData("until masks", "dog", FPS, FRAMES, (128, 96), TILE, len(names), names)
    made(tmp_path, bare, mosaics(names, len(names)))
    opened = Opened(browser, tmp_path / "report.html", color_scheme="dark", device_scale_factor=1)
    try:
        assert opened.complaints == []
        opened.tab.set_viewport_size({"width": 390, "height": 800})
        opened.tab.evaluate("retake.seek(14)")
        opened.shows(14)
        assert opened.tab.locator("#bar").is_visible() == (len(names) > 1)
        assert near(opened.pixel(100, 80), BACKGROUND[names[-1]])
        for section in (".scores", ".stages", ".recipe"):
            assert opened.tab.locator(section).count() == 0
        assert opened.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        opened.close()
