"""A table as spreadsheets write it: what encoding, what stands between cells, which rows are empty."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retake.errors import ConfigError

SEPARATORS = (",", ";", "\t")


def decoded(raw: bytes, path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a mark in front. Raises ConfigError E297 for other encodings."""
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in raw[:4096]:
            hint = (
                "A manifest is a CSV file, or JSON lines. For one clip: retake edit CLIP; of a folder of them its name."
            )
            raise ConfigError("E297", f"{path} is no text, and so no manifest", hint) from error
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            "E297",
            f"{path} is not in UTF-8: line {line} is in another encoding, perhaps Windows-1252",
            "Save it as CSV UTF-8, or: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW",
        ) from error


class Table:
    """Rows of a CSV in the order of the file: `columns`, and iterated over (line, cells by column); rows of empty cells
    are passed over. Raises csv.Error."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        """`known`: names of columns, by which the separator is recognised; a first line `sep=;` names it itself."""
        self._before = 0  # lines in front of the columns
        if said := re.match(r'"?sep=([^\w\s"]|\t)"?\r?\n', text):
            text, self.separator, self._before = text[said.end() :], said[1], 1
        else:
            headers = {separator: _header(text, separator) for separator in SEPARATORS}
            self.separator = max(SEPARATORS, key=lambda separator: sum(name in known for name in headers[separator]))
        self._reader = _reader(text, self.separator)
        self.columns = [name.strip() for name in next(self._reader, [])]

    @property
    def line(self) -> int:
        """The line that was read last, counted from 1."""
        return self._reader.line_num + self._before

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for cells in self._reader:
            if any(cell.strip() for cell in cells):
                while len(cells) > len(self.columns) and not cells[-1].strip():
                    cells.pop()  # what spreadsheets add at the end
                yield self.line, cells


def _reader(text: str, separator: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)


def _header(text: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(_reader(text, separator), [])]
    except csv.Error:
        return []
