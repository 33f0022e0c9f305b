"""Shift, size and angle over time: key frames, and how one goes over into the next."""

from __future__ import annotations

from retake.track_edits.operators import Easing, Key, Move, Pair, Rotate, Scale, Span


def as_key(one: Move | Scale | Rotate) -> Key:
    """What move, scale and rotate come to in the end."""
    if isinstance(one, Move):
        return Key(frame=0, by=one.by, easing=one.easing)
    if isinstance(one, Scale):
        return Key(frame=0, scale=one.by, easing=one.easing)
    return Key(frame=0, rotate=one.by, easing=one.easing)


def grown(key: Key, span: Span | None) -> tuple[Key, ...]:
    """Keys of what grows from nothing to `key` over a span; at once where the span is one frame."""
    if span is None:
        return (key,)
    whole = key.model_copy(update={"frame": span[1]})
    if span[0] < span[1]:
        return Key(frame=span[0], easing=key.easing), whole
    return (Key(frame=span[0] - 1, easing="hold"), whole) if span[0] else (whole,)


def interpolated(keys: tuple[Key, ...], t: float) -> tuple[Pair, float, float]:
    """Shift, factor and angle at t: between two keys by the easing of the first; sizes go by factors."""
    after = next((n for n, key in enumerate(keys) if key.frame > t), len(keys))
    if after == 0 or after == len(keys):
        key = keys[0 if after == 0 else -1]
        return key.by, key.scale, key.rotate
    a, b = keys[after - 1], keys[after]
    s = eased((t - a.frame) / (b.frame - a.frame), a.easing)
    by = (a.by[0] + s * (b.by[0] - a.by[0]), a.by[1] + s * (b.by[1] - a.by[1]))
    return by, a.scale * (b.scale / a.scale) ** s, a.rotate + s * (b.rotate - a.rotate)


def eased(s: float, easing: Easing) -> float:
    """Share of the way at share s of the time, both 0..1."""
    if easing == "ease_in":
        return s * s
    if easing == "ease_out":
        return s * (2 - s)
    if easing == "ease_in_out":
        return s * s * (3 - 2 * s)
    return 0.0 if easing == "hold" else s
