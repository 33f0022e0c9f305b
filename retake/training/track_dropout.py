"""What a control branch is not told of tracks, so that it does with few points and on few frames.

Each pair of source and target track takes one mode, with the shares of MotionV2V's development code (Burgert et al.
2025; training/dataset.py at 5303302); its masks there clear a whole track where one frame is dropped, which is a slip:
here they are kept frame by frame.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Visible = NDArray[np.bool_]

MODES = {"full": 1 / 6, "target": 1 / 6, "both": 1 / 6, "points": 2 / 6, "track_to_points": 1 / 6}
"""full: all is kept; target: frames of the target are dropped; both: the same frames of both; points: both are seen on
a few key frames alone; track_to_points: the target alone is."""
KEPT = 0.6  # share of frames that are kept, where frames are dropped
WIDER = 2  # frames by which a key may be longer, at most


def dropped(source: Visible, target: Visible, rng: np.random.Generator) -> tuple[Visible, Visible]:
    """Visibility [F, P] of source and target tracks of which some is dropped. A pair of which one is never seen is
    hidden in both; one pair is left, where there was one."""
    source, target = source.copy(), target.copy()
    before = source.copy(), target.copy()
    for p in range(source.shape[1]):
        mode = str(rng.choice(list(MODES), p=list(MODES.values())))
        if mode == "target":
            target[:, p] &= runs(len(target), KEPT, rng)
        elif mode == "both":
            kept = runs(len(target), KEPT, rng)
            source[:, p] &= kept
            target[:, p] &= kept
        elif mode != "full":
            kept = keys(source[:, p] & target[:, p], rng)
            target[:, p] &= kept
            if mode == "points":
                source[:, p] &= kept
    never = ~(source.any(0) & target.any(0))
    source[:, never] = target[:, never] = False
    if never.all() and (whole := before[0].any(0) & before[1].any(0)).any():
        one = int(rng.choice(np.flatnonzero(whole)))
        source[:, one], target[:, one] = before[0][:, one], before[1][:, one]
    return source, target


def runs(count: int, share: float, rng: np.random.Generator) -> Visible:
    """Frames in runs, of which about a share is kept; one is, at least."""
    cuts = np.sort(rng.integers(0, count + 1, rng.integers(0, max(count // 4, 1) + 1)))
    ends = [0, *cuts.tolist(), count]
    kept = np.zeros(count, bool)
    for first, last in pairwise(ends):
        kept[first:last] = rng.uniform() < share
    if not kept.any():
        kept[int(rng.integers(count))] = True
    return kept


def keys(seen: Visible, rng: np.random.Generator) -> Visible:
    """A few of the frames on which a point is seen, most often one to seven, each perhaps a little longer."""
    kept = np.zeros(len(seen), bool)
    at = np.flatnonzero(seen)
    if not len(at):
        return kept
    count = len(at)
    for _ in range(3):  # small numbers are likely, large ones happen
        count = int(rng.integers(1, count + 1))
    for t in rng.choice(at, count, replace=False):
        kept[t : t + 1 + int(rng.integers(0, WIDER + 1))] = True
    return kept & seen
