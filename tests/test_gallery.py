"""The gallery at 200 entries, in a real browser: what it shows is what Python picks and orders from the same cards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retake.report import gallery_page
from retake.report.gallery_page import Card
from retake.video import encode

STATES = ("ok", "ok", "ok", "cached", "cached", "quarantined", "failed", "skipped")
HOSTILE = "<img src=x onerror=window.pwned=1></script>{{ data }} "
SHOWN = """() => [...document.querySelectorAll("#cards > .card")].filter((box) => box.offsetParent !== null)
  .map((box) => [box.querySelector("b").textContent, box.querySelector(".soft span").textContent].join("/"))"""


def cards() -> list[Card]:
    """100 clips, two edits of each; one in five of the good ones has no warp error, some have equal ones."""
    luck = random.Random(0)
    made = []
    for n in range(200):
        state = luck.choice(STATES)
        good = state in ("ok", "cached")
        reason = "" if good else f"E4{n % 20:02d} the file {luck.choice(('is empty', 'has no index', HOSTILE))}"
        scores = {"psnr_unedited": luck.uniform(20, 50)} if good else {}
        if good and n % 5:
            scores["warp_error"] = luck.randrange(60) / 64 - 0.25
        page = f"report/{n}/report.html" if good else ""
        video = "of clip#1.mp4" if n == 3 else ""
        made.append(Card(f"clip-{n // 2:03d}", ("whole", "half")[n % 2], state, reason, n / 7, page, "", scores, video))
    wrong = Card("clip-last", "whole", "ok", "the mask is probably wrong in frames 0-3", 1.0, "a.html", health="wrong")
    return [*made[:-1], wrong]


def names(chosen: list[Card]) -> list[str]:
    return [f"{card.clip}/{card.edit}" for card in chosen]


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    page = tmp_path_factory.mktemp("gallery") / "index.html"
    encode(page.with_name("of clip#1.mp4"), (np.full((64, 96, 3), 20 * t, np.uint8) for t in range(12)), 24, crf=20)
    page.write_text(gallery_page.page(f"dataset {HOSTILE}", cards()), encoding="utf-8")
    tab = browser.new_context(offline=True, viewport={"width": 1280, "height": 800}).new_page()
    tab.complaints = []
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.goto(page.as_uri())
    yield tab
    tab.context.close()


@pytest.fixture
def fresh(tab):
    tab.reload()
    yield tab
    assert tab.complaints == []


def test_all_of_it_is_there_and_names_are_text(fresh):
    assert fresh.evaluate(SHOWN) == names(cards())
    assert fresh.locator("#count").inner_text() == "200 edits"
    assert fresh.evaluate("window.pwned") is None
    assert HOSTILE.strip() in fresh.locator("h1").inner_text()
    linked = [card for card in cards() if card.report]
    assert fresh.locator("a.card").count() == len(linked)
    assert fresh.locator("a.card").last.get_attribute("href") == linked[-1].report


@pytest.mark.parametrize("typed", ["clip-07", "HALF", " no index", "e40", "onerror=", "nothing like it"])
def test_a_search_finds_clips_edits_and_reasons(fresh, typed: str):
    fresh.fill("#find", typed)
    wanted = [c for c in cards() if typed.strip().lower() in f"{c.clip} {c.edit} {c.reason}".lower()]
    assert fresh.evaluate(SHOWN) == names(wanted)
    assert fresh.locator("#count").inner_text() == f"{len(wanted)} of 200 edits"
    assert fresh.locator("#none").is_visible() == (not wanted)


def test_states_edits_and_words_narrow_together(fresh):
    left = cards()
    for state in ("ok", "failed"):
        fresh.uncheck(f"#states input[value={state}]")
        left = [card for card in left if card.state != state]
        assert fresh.evaluate(SHOWN) == names(left)
    fresh.select_option("#edit", "half")
    left = [card for card in left if card.edit == "half"]
    assert fresh.evaluate(SHOWN) == names(left)
    fresh.fill("#find", "clip-07")
    left = [card for card in left if card.clip.startswith("clip-07")]
    assert 0 < len(left) < 10
    assert fresh.evaluate(SHOWN) == names(left)
    fresh.check("#states input[value=ok]")
    wanted = [c for c in cards() if c.state != "failed" and c.edit == "half" and c.clip.startswith("clip-07")]
    assert fresh.evaluate(SHOWN) == names(wanted)


@pytest.mark.parametrize("metric", ["warp_error", "psnr_unedited", "seconds"])
@pytest.mark.parametrize("down", [False, True])
def test_sorting_puts_what_has_no_value_last(fresh, metric: str, down: bool):
    def value(card: Card) -> float | None:
        return (card.seconds or None) if metric == "seconds" else card.scores.get(metric)

    fresh.select_option("#sort", metric)
    fresh.set_checked("#down", down)
    have = [card for card in cards() if value(card) is not None]
    rounded = {id(card): float(f"{value(card):.5g}") for card in have}
    wanted = sorted(have, key=lambda card: -rounded[id(card)] if down else rounded[id(card)])
    wanted += [card for card in cards() if value(card) is None]
    assert fresh.evaluate(SHOWN) == names(wanted)
    # A card that the browser has not drawn yet (content-visibility) has a text, but no inner text.
    first = fresh.locator(".card").first.locator(".soft span").last.text_content()
    assert first.startswith(metric)
    assert float(first.split()[1]) == pytest.approx(value(wanted[0]), rel=1e-3)


def test_what_was_chosen_still_holds_on_the_way_back_from_a_report(fresh):
    fresh.uncheck("#states input[value=ok]")
    fresh.fill("#find", "half")
    fresh.select_option("#sort", "seconds")
    fresh.check("#down")
    before = fresh.evaluate(SHOWN)
    assert before[0] > before[-1]
    fresh.goto("about:blank")
    fresh.go_back()
    assert (fresh.input_value("#find"), fresh.is_checked("#states input[value=ok]")) == ("half", False)
    assert fresh.evaluate(SHOWN) == before


def test_it_fits_a_phone(fresh, tmp_path: Path):
    try:
        fresh.set_viewport_size({"width": 390, "height": 844})
        fresh.select_option("#sort", "warp_error")
        assert fresh.evaluate("document.documentElement.scrollWidth <= innerWidth")
        fresh.evaluate("scrollTo(0, 3000)")
        assert fresh.evaluate("document.getElementById('controls').getBoundingClientRect().bottom") < 0
    finally:
        fresh.set_viewport_size({"width": 1280, "height": 800})


def test_a_result_plays_while_the_pointer_is_on_its_card(fresh):
    card = fresh.locator(".card").nth(3)
    assert fresh.locator("video").count() == 1  # its first frame stands for a picture
    card.hover()
    playing = card.locator("video.playing")
    playing.wait_for(state="attached")
    assert playing.evaluate("v => [v.muted, v.loop]") == [True, True]
    fresh.wait_for_timeout(300)
    assert playing.evaluate("v => v.readyState > 1 && v.currentTime > 0")
    fresh.mouse.move(5, 5)
    assert fresh.locator("video.playing").count() == 0
    card.focus()  # it has no page, so that the keyboard passes it by
    assert fresh.locator("video.playing").count() == (1 if cards()[3].report else 0)


def test_doubt_about_a_mask_stands_on_the_card_and_is_found(fresh):
    fresh.fill("#find", "probably wrong")
    assert fresh.evaluate(SHOWN) == ["clip-last/whole"]
    assert "wrong" in fresh.locator(".card:visible .reason").get_attribute("class").split()
