"""The embedded models from nothing: one recipe in two sizes.

    python -m retake.training.embedded --size cpu --folder artifacts/training --minutes 170
    python -m retake.training.embedded --size gpu --folder artifacts/training --minutes 9      (in slices)

Parts are made in the order of PARTS, each in slices that resume; `--part` makes one of them, so that a second process
can work beside the first. `--on-shipped` takes the parts that ship as finished and trains the others on them; with
`--further` a part begins as it ships: another round, in a folder in which it was not begun. `export.py` makes the
shipped folders of a finished training, or of its finished parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from retake.errors import ConfigError, did_you_mean
from retake.training import judging
from retake.training.loop import Stopped
from retake.training.sizes import SIZES
from retake.training.workshop import PARTS, Workshop


def run(
    size: str,
    folder: Path,
    part: str | None = None,
    minutes: float = float("inf"),
    device: str = "cpu",
    share: tuple[int, int] = (0, 1),
    on_shipped: bool = False,
    further: bool = False,
    say: Callable[[str], None] = print,
    clips: Sequence[tuple[Path, list[str]]] = (),
    encoder: str | None = None,
) -> bool:
    """Train the parts that are not finished, in order, or one of them, for at most so long; whether all is done. clips,
    encoder: as the workshop's.

    Raises ConfigError E247 for a size or a part that there is not.
    """
    shop = workshop(size, folder, part, device, share, on_shipped, further, say, encoder)
    shop.clips = clips
    ends = time.monotonic() + 60 * minutes
    for name in shop.wanted(part):
        left = (ends - time.monotonic()) / 60
        if left <= 0 or not shop.make(name, left):
            return False
    return True


def workshop(
    size: str,
    folder: Path,
    part: str | None,
    device: str,
    share: tuple[int, int] = (0, 1),
    on_shipped: bool = False,
    further: bool = False,
    say: Callable[[str], None] = print,
    encoder: str | None = None,
) -> Workshop:
    """The training in a folder. Raises ConfigError E247 for a size or a part that there is not, or a part that needs
    others first."""
    for what, name, known in (("size", size, tuple(SIZES)), ("part", part or PARTS[0], PARTS)):
        if name not in known:
            raise ConfigError("E247", f"the embedded models have no {what} {name!r}", did_you_mean(name, list(known)))
    shop = Workshop(folder / size, SIZES[size], device, share, on_shipped, further, say, judging.judged, encoder)
    if part is not None:
        shop.ready(part)
    return shop


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded models; goes on from where it was.")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--folder", type=Path, required=True, help="where the training lives")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="of rendering fours")
    parser.add_argument("--on-shipped", action="store_true", help="take the parts that ship as finished")
    parser.add_argument("--further", action="store_true", help="begin as the part ships")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        how = (given.device, tuple(given.share), given.on_shipped, given.further)
        done = run(given.size, given.folder, given.part, given.minutes, *how, say)
    except Stopped:
        done = False
    say("finished" if done else "not finished: the same command goes on from here")


if __name__ == "__main__":
    main()
