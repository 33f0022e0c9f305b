"""Manifests as spreadsheets save them."""

from __future__ import annotations

import codecs

import numpy as np
import pytest

from flows.datasets.jobs import work_of
from flows.datasets.manifest import ManifestError, read_rows
from flows.experiments.pairs import read_pairs
from flows.settings.compose import compose
from retake.errors import ConfigError
from retake.video import write_png

HEAD = ["id", "clip", "masks.box", "edit.strength"]
ROWS = [["a", "clip one.mp4", "[55,85,125,155]", "0.5"], ["b", "Größe.mp4", "20,20,120,110", "0.8"]]


def table(separator: str, end: str = "\r\n") -> str:
    def cell(text: str) -> str:
        return f'"{text}"' if separator in text else text

    return "".join(separator.join(map(cell, row)) + end for row in [HEAD, *ROWS])


SHEETS = {
    "commas with a mark": codecs.BOM_UTF8 + table(",").encode(),
    "semicolons": table(";").encode(),
    "tabs": table("\t").encode(),
    "semicolons, said": ("sep=;\r\n" + table(";")).encode(),
    "bars, said": ("sep=|\r\n" + table("|")).encode(),
    "tabs in UTF-16": table("\t").encode("utf-16"),
    "lines of old Macs": table(",", "\r").encode(),
    "names with spaces": table(",").replace("id,clip,", "id, clip ,").encode(),
    "empty rows": (table(";") + ";;;\r\n\r\n ; ;;\r\n").encode(),
    "empty cells at the end of lines": table(",").replace("\r\n", ",,\r\n").replace("strength,,", "strength").encode(),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_is_read_however_it_was_saved(tmp_path, name):
    (tmp_path / "sheet.csv").write_bytes(SHEETS[name])
    rows, problems = read_rows(tmp_path / "sheet.csv")
    assert problems == []
    assert [(row.id, row.clip) for row in rows] == [("a", "clip one.mp4"), ("b", "Größe.mp4")]
    assert [row.settings["masks.box"] for row in rows] == [[55, 85, 125, 155], [20, 20, 120, 110]]
    assert [row.settings["edit.strength"] for row in rows] == [0.5, 0.8]
    assert [row.line for row in rows] == ([3, 4] if "said" in name else [2, 3])


def test_another_encoding_is_named_with_its_line(tmp_path):
    (tmp_path / "ansi.csv").write_bytes(table(";").encode("cp1252"))
    with pytest.raises(ConfigError, match=r"line 3 .* Windows-1252") as refusal:
        read_rows(tmp_path / "ansi.csv")
    assert "iconv" in refusal.value.hint
    (tmp_path / "clip.csv").write_bytes(b"\x00\x00\x00\x20ftypisom\xff\xfe")
    with pytest.raises(ConfigError, match="no text") as refusal:
        read_rows(tmp_path / "clip.csv")
    assert refusal.value.code == "E297"


def test_a_table_without_known_columns_says_what_separates_them(tmp_path):
    (tmp_path / "bars.csv").write_text(table("|"))
    assert any("semicolons or tabs" in problem for problem in read_rows(tmp_path / "bars.csv")[1])


def problems_of(path) -> tuple[str, ...]:
    words = ["dataset=manifest", f"dataset.manifest={path}", "edit.reference=params/dataset/ball.png"]
    with pytest.raises(ManifestError) as refusal:
        work_of(compose([*words, "masks.box=[1,2,30,40]"]))
    return refusal.value.problems


def test_every_clip_is_said_only_of_every_clip(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("id,clip,edit.feather\na,sprites:drift,\nb,sprites:drift,\nc,,\nd,,\n")
    assert problems_of(path) == ("line 4: no clip", "line 5: no clip")
    path.write_text("id,clip,edit.feather\na,sprites:drift,soft\nb,sprites:drift,soft\nc,,\n")
    feather = "edit.feather takes a number, not 'soft'"
    assert problems_of(path) == (f"every clip: {feather}", "line 4: no clip")
    path.write_text("id,clip,edit.feather\na,sprites:drift,soft\nb,sprites:drift,\n")
    assert problems_of(path) == (f"line 2: {feather}",)


def test_pairs_are_read_alike(tmp_path):
    write_png(tmp_path / "cat.png", np.full((32, 32, 3), 80, np.uint8))
    text = "id;clip;edit.reference;masks.box\r\na;sprites:drift;cat.png;20,20,120,110\r\n;;;\r\n"
    (tmp_path / "pairs.csv").write_bytes(codecs.BOM_UTF8 + text.encode())
    (pair,) = read_pairs(tmp_path / "pairs.csv")
    assert pair.settings == {"edit.reference": str(tmp_path / "cat.png"), "masks.box": [20, 20, 120, 110]}
