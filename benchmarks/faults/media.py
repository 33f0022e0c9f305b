"""Damaged clips through the path that reads frames: probe and decode, strictly, in the child as always.

Every kind of the zoo that is a clip is damaged in one of twelve ways, and what comes out is judged against the
undamaged clip, bit for bit. *Refused*: an error with a code. *Right*: the very frames at their times. *Other tags*: the
same frames, all of them, shown as a damaged tag or time says. *Fewer*: frames are left out and nothing was said; most
such files have damaged edit lists or time tables, and say so themselves. *Wrong pixels*: the right pictures in order,
but not bit for bit. *Wrong frames*: a barcode that is unreadable or out of its place. The last two, and *fewer*, are
silent: most codecs carry no checksum, so damage that decodes cannot be seen from the file. Files that are refused as
they are get damaged, too: there only crashes and time count.

*Late*: a run past its limit by two seconds. The peer is PyAV as it comes, in a process of its own: the same files, and
the same judge, which is told the undamaged clip's tags.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from zoo.judge import Original, Outcome, compared, judge, original, plainly_decoded
from zoo.kinds import KINDS, Kind
from zoo.mutations import MUTATIONS, mutated

from retake import video
from retake.errors import RetakeError
from retake.video import Limits, VideoInfo

MUTANTS = 5000
LIMITS = Limits(stall=5, wall=10, wall_per_frame=0.05)
ENDS = ("refused", "right", "other tags", "fewer", "wrong pixels", "wrong frames", "crashes", "late")
SILENT = ("fewer", "wrong pixels", "wrong frames")
SMOKE = {"mutants": 10, "kinds": (*KINDS[:4], *[kind for kind in KINDS if kind.frames is None][:1])}


def run(mutants: int = MUTANTS, kinds: Sequence[Kind] = KINDS) -> list[dict[str, Any]]:
    """Rows by kind of damage, by codec, by code, and what holds of the whole campaign."""
    by_damage, by_codec, peers = (defaultdict[str, Counter[str]](Counter) for _ in range(3))
    codes = Counter[str]()
    slowest, clean_refused, ruins, peer = 0.0, 0, Counter[str](), Peer()
    with tempfile.TemporaryDirectory(prefix="retake-faults-") as folder:
        clips = [original(kind, Path(folder)) for kind in kinds if kind.frames is not None]
        clean_refused = sum(judge(clip, clip.path, LIMITS).verdict != "right" for clip in clips)
        for n, (name, clip, path) in enumerate(_damaged(clips, Path(folder), mutants)):
            outcome = judge(clip, path, LIMITS)
            ends = _ends(outcome)
            by_damage[name].update(ends)
            by_codec[clip.info.codec].update(ends)
            codes.update([outcome.code] * (outcome.verdict == "refused"))
            peers[name].update(_ends(peer.judged(clip, path)))
            slowest = max(slowest, outcome.seconds)
            if n % 500 == 499:
                print(f"media: {n + 1} of {mutants}, {dict(sum(by_damage.values(), Counter()))}", file=sys.stderr)
        ruins = _damaged_ruins(Path(folder), mutants // 10, kinds)
    peer.end()
    video.shutdown()
    left = [child for child in psutil.Process().children(recursive=True) if "retake.video.child" in child.cmdline()]
    return [
        *_table("Damaged clips, by kind of damage", "damage", by_damage, [*MUTATIONS]),
        *_table("Damaged clips, by codec", "codec", by_codec, sorted(by_codec)),
        *_table("Peer: PyAV as it comes", "damage", peers, [*MUTATIONS]),
        *({"table": "Refusals", "code": code, "files": count} for code, count in sorted(codes.items())),
        *_whole(len(clips), clean_refused, ruins, slowest, len(left)),
    ]


class Peer:
    """PyAV in a process that is started anew when it crashes or hangs."""

    def __init__(self) -> None:
        self._start()

    def judged(self, clip: Original, damaged: Path) -> Outcome:
        """The verdict on what PyAV makes of a file. A process that dies or hangs counts as crashed."""
        try:
            frames = self._pool.submit(_peers_frames, damaged, clip.info).result(timeout=LIMITS.wall)
        except (TimeoutError, BrokenProcessPool):
            self.end()
            self._start()
            return Outcome("crashed")
        if isinstance(frames, str):
            return Outcome("refused", frames)
        return compared(clip, clip.info, list(zip(clip.times + [0.0] * len(frames), frames, strict=False)))

    def end(self) -> None:
        """Stop the process."""
        for process in self._pool._processes.values():
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_confined)


def _peers_frames(path: Path, info: VideoInfo) -> list[np.ndarray] | str:
    try:
        return plainly_decoded(path, info)
    except Exception as error:  # those of PyAV do not travel between processes
        return type(error).__name__


def _confined() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMITS.data_bytes, LIMITS.data_bytes))


def _damaged(clips: list[Original], folder: Path, mutants: int) -> Iterator[tuple[str, Original, Path]]:
    data = [clip.path.read_bytes() for clip in clips]
    for seed in range(mutants):
        clip = clips[seed % len(clips)]
        name, content = mutated(data[seed % len(clips)], seed, data)
        path = folder / f"damaged-{seed}{clip.kind.suffix}"  # a name of its own: the child remembers what it probed
        path.write_bytes(content)
        yield name, clip, path
        path.unlink()


def _ends(outcome: Outcome) -> list[str]:
    """The columns that a file counts in."""
    end = {"wrong": "wrong frames" if outcome.numbers_wrong else "wrong pixels", "crashed": "crashes"}
    frames = outcome.info.frames if outcome.info else 0
    late = outcome.seconds > LIMITS.wall + LIMITS.wall_per_frame * frames + 2
    return ["files", end.get(outcome.verdict, outcome.verdict), *["late"] * late]


def _damaged_ruins(folder: Path, mutants: int, kinds: Sequence[Kind]) -> Counter[str]:
    """Files that are refused as they are, damaged further."""
    ruins = [kind.build(folder) for kind in kinds if kind.frames is None]
    data, found = [path.read_bytes() for path in ruins], Counter[str]()
    for seed in range(mutants):
        path = ruins[seed % len(ruins)].with_stem(f"ruin-{seed}")
        path.write_bytes(mutated(data[seed % len(ruins)], seed, data)[1])
        try:
            found["taken"] += bool(sum(1 for _ in video.decode(path, limits=LIMITS)))
        except RetakeError:
            found["refused"] += 1
        except Exception:
            found["crashes"] += 1
    return found


def _table(title: str, key: str, found: dict[str, Counter[str]], order: list[str]) -> list[dict[str, Any]]:
    rows = [(name, found[name]) for name in order] + [("all", sum(found.values(), Counter[str]()))]
    return [
        {"table": title, key: name, "files": counts["files"]}
        | {end: counts[end] for end in ENDS}
        | {"silent, %": 100 * sum(counts[end] for end in SILENT) / max(1, counts["files"])}
        for name, counts in rows
    ]


def _whole(clips: int, refused: int, ruins: Counter[str], slowest: float, left: int) -> list[dict[str, Any]]:
    facts = {
        f"undamaged kinds refused or wrong, of {clips}": refused,
        f"refused kinds damaged further, {sum(ruins.values())} files: crashes": ruins["crashes"],
        "of these taken as a clip": ruins["taken"],
        "slowest file, s": slowest,
        "children left over": left,
    }
    return [{"table": "The whole campaign", "": name, "count": value} for name, value in facts.items()]
