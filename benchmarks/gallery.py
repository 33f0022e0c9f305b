"""What a gallery of 200 edits costs in a browser: until it is painted, until it is loaded, and each time that it is
searched, sorted or narrowed to some states.

The page is made by retake/report/gallery_page.py; its thumbnails are frames of the sprite world before and after.
Headless Chromium opens it from disk, anew for every round. *Answer* is from the input event to the message behind the
next painted frame, so it holds the wait for that frame, up to 17 ms; *script* is the part in which the page's code
runs.
Peer: the same entries, all their metrics and the same thumbnails as a table of plain HTML, without style or script,
which can only be painted.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from retake.errors import MachineError
from retake.report import gallery_page
from retake.report.gallery_page import Card

ENTRIES = 200
ROUNDS = 15
SIZES = (1280, 800), (390, 844)
METRICS = ("warp_error_edit", "warp_error", "psnr_unedited", "tc_full", "clip_i", "boundary_error")
REASONS = {
    "quarantined": "E405 the file has no complete index: an interrupted copy or recording",
    "failed": "E408 reading the file took 60 s, and was stopped",
    "skipped": "6 frames, fewer than dataset.skip.shorter_than=16",
}
PAINTED = """() => new Promise((done) => {
  const told = () => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const load = performance.getEntriesByType("navigation")[0].loadEventEnd;
    paint && load ? done([paint.startTime, load]) : setTimeout(told, 5);
  };
  told();
})"""
ANSWER = """([id, value]) => new Promise((done) => {
  const field = document.querySelector(id), channel = new MessageChannel();
  if (field.type === "checkbox") field.checked = value;
  else field.value = value;
  const begun = performance.now();
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const script = performance.now() - begun;
  channel.port1.onmessage = () => done([performance.now() - begun, script]);
  requestAnimationFrame(() => channel.port2.postMessage(0));
})"""
# What a person does, and what undoes it before the next round.
INPUTS = {
    "find a clip by its name": ("#find", "walk-07", ""),
    "find by a reason": ("#find", "no complete index", ""),
    "find nothing": ("#find", "no such thing", ""),
    "sort by a metric": ("#sort", "warp_error_edit", ""),
    "hide a state": ("#states input[value=ok]", False, True),
}
SMOKE = {"entries": 3, "rounds": 1}


def run(entries: int = ENTRIES, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Rows of two tables. Raises MachineError E504 without Chromium or Playwright."""
    with tempfile.TemporaryDirectory(prefix="retake-bench-") as folder, browser() as chromium:
        pages = written(Path(folder), entries)
        painted = {(name, size): [] for name in pages for size in SIZES}
        answers: dict[tuple[str, tuple[int, int]], list[list[float]]] = {}
        for _ in range(rounds):  # page and peer in turn
            for name, size in painted:
                with opened(chromium, pages[name], size) as tab:
                    painted[name, size].append(tab.evaluate(PAINTED))
                    for what, (field, value, before) in INPUTS.items() if name == "gallery" else ():
                        answers.setdefault((what, size), []).append(tab.evaluate(ANSWER, [field, value]))
                        tab.evaluate(ANSWER, [field, before])
        weights = {name: path.stat().st_size / 1e3 for name, path in pages.items()}
    return [*rows_of(painted, weights, entries, rounds), *rows_of_answers(answers, entries, rounds)]


def rows_of(painted: Any, weights: Any, entries: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row a page and window."""
    for (name, size), times in painted.items():
        paint, load = zip(*times, strict=True)
        yield {
            "table": f"{entries} entries, opened {rounds} times",
            "": "gallery" if name == "gallery" else "  peer: plain table",
            "window": f"{size[0]}x{size[1]}",
            "HTML, kB": weights[name],
            "first paint, ms, median": statistics.median(paint),
            "largest": max(paint),
            "loaded, ms, median": statistics.median(load),
        }


def rows_of_answers(answers: Any, entries: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row an input and window."""
    for (what, size), times in sorted(answers.items(), key=lambda answer: SIZES.index(answer[0][1])):
        answer, script = ([float(time) for time in part] for part in zip(*times, strict=True))
        yield {
            "table": f"Answers of the page with {entries} entries, {rounds} of each",
            "": what,
            "window": f"{size[0]}x{size[1]}",
            "answer, ms, median": statistics.median(answer),
            "largest": max(answer),
            "script, ms, median": statistics.median(script),
        }


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        raise MachineError(
            "E504", "no Chromium on PATH, or no Playwright", "Install chromium, and pip install playwright."
        )
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium: Any, page: Path, size: tuple[int, int]) -> Iterator[Any]:
    """A page in a context of its own, offline."""
    context = chromium.new_context(offline=True, viewport={"width": size[0], "height": size[1]})
    tab = context.new_page()
    tab.goto(page.as_uri())
    yield tab
    context.close()


def written(folder: Path, entries: int) -> dict[str, Path]:
    """The gallery and its peer in one folder with their thumbnails."""
    cards = list(cards_of(folder, entries))
    pages = {"gallery": gallery_page.page("dataset walks", cards), "table": table(cards)}
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def cards_of(folder: Path, entries: int) -> Iterator[Card]:
    """Two edits of each clip, one clip in eight of them bad in some way; thumbnails go into the folder."""
    from retake.synthetic import World, pair

    (folder / "thumbnails").mkdir(parents=True)
    states = [*["ok"] * 8, "quarantined", *["cached"] * 8, "skipped", *["ok"] * 5, "failed"]
    for n in range(entries):
        clip, edit, state = f"walk-{n // 2:02d}", ("whole", "half")[n % 2], states[n // 2 % len(states)]
        if state in REASONS:
            yield Card(clip, edit, state, REASONS[state])
            continue
        both = pair(n // 2, width=320, height=180, frames=9)
        frames = [World(scene).frame(4) for scene in (both.source, both.target)]
        picture = f"thumbnails/{clip}-{edit}.jpg"
        (folder / picture).write_bytes(gallery_page.thumbnail(*frames))
        scores = {name: (n * 37 + k * 11) % entries / entries + k for k, name in enumerate(METRICS)}
        yield Card(clip, edit, state, "", 1.0 + n % 7, f"report/{clip}/{edit}/report.html", picture, scores)


def table(cards: Iterable[Card]) -> str:
    """The peer."""
    rows = []
    for card in cards:
        picture = f'<img src="{card.picture}" alt="">' if card.picture else ""
        cells = [card.clip, card.edit, card.state, card.reason, *(f"{card.scores.get(m, '')}" for m in METRICS)]
        rows.append(f"<tr><td>{picture}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<!doctype html><meta charset="utf-8"><title>walks</title><table>{"".join(rows)}</table>'
