"""Run benchmarks, print markdown; with --write, replace their sections of docs/benchmarks.md, or docs/faults.md. One
that cannot run here says why on stderr, and its section stays."""

from __future__ import annotations

import argparse
import datetime
import importlib
import re
import sys
import time
from pathlib import Path

from benchmarks import NAMES
from benchmarks.table import load, machine, markdown
from retake.errors import RetakeError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    """Run what was asked for; the exit status of the first benchmark that could not run, 0 where all could."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all by default")
    parser.add_argument("--write", action="store_true", help="put the results into docs/benchmarks.md")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(NAMES)}")
    status = 0
    for name in args.names or NAMES:
        try:
            text = section(name)
        except RetakeError as error:
            print(f"{name}: {error}\n", file=sys.stderr, flush=True)
            status = status or error.exit_code
            continue
        print(f"## {name}\n\n{text}\n", flush=True)
        if args.write:
            page = PAGE.with_name("faults.md") if name.startswith("faults.") else PAGE
            page.write_text(replaced(page.read_text(encoding="utf-8"), name, text), encoding="utf-8")
    return status


def section(name: str) -> str:
    """Run one benchmark: its tables, with date, machine and command."""
    before, begun = load(), time.perf_counter()
    rows = importlib.import_module(f"benchmarks.{name}").run()
    took = time.perf_counter() - begun
    line = (
        f"{datetime.date.today().isoformat()} · `python -m benchmarks {name}` ({took:.0f} s) · {machine()} · "
        f"load before the run {before:.1f}"
    )
    return f"{line}\n\n{markdown(rows)}"


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the two comments that name a benchmark. Raises ValueError without them."""
    begin, end = f"<!-- results of {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page lacks the lines {begin} and {end}")
    return pattern.sub(lambda match: f"{begin}\n{text}\n{end}", page, count=1)


if __name__ == "__main__":
    sys.exit(main())
