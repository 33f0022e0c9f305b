"""A plan for people: one line a stage, and what all of it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from flows.planning.forecast import Forecast
from flows.runners import Planned
from retake.machine.disk import format_bytes
from retake.weights.local import command, described

GIB = 1 << 30


def table(planned: Sequence[Planned]) -> Iterator[str]:
    """Lines of text: status, what it is likely to take, why; then the sum, and what to fetch first."""
    for p in planned:
        if p.status == "cached":
            text = f"saves {p.seconds:.1f} s, {format_bytes(p.bytes or 0)}" if p.seconds is not None else ""
        else:
            text = "; ".join(filter(None, (in_words(p.forecast), "needs weights" if p.lacks else "", p.why)))
        yield f"{p.stage:13} {p.status:9} {text}".rstrip()
    if forecasts := [p.forecast for p in planned if p.forecast is not None]:
        yield total(forecasts)
    if missing := list(dict.fromkeys(reference for p in planned for reference in p.lacks)):
        yield f"{'first':13} {command(' '.join(missing))}   ({', '.join(map(described, missing))})"


def in_words(one: Forecast | None) -> str:
    """`about 3.2 min, up to 44 PFLOP, at most 5.9 GiB on the device`."""
    if one is None:
        return ""
    parts = [
        duration(one.seconds) if one.seconds is not None else None,
        f"up to {operations(one.flops)}" if one.flops else None,
        f"at most {memory(one.memory)} on the device" if one.memory else None,
    ]
    return ", ".join(filter(None, parts))


def total(forecasts: Iterable[Forecast]) -> str:
    """What everything that would run comes to, and of how many stages the time is not known."""
    some = list(forecasts)
    known = [one.seconds for one in some if one.seconds is not None]
    parts = [duration(sum(known)) if known else ""]
    parts.append(f"{format_bytes(sum(one.bytes or 0 for one in some))} on disk" if known else "")
    if flops := sum(one.flops or 0 for one in some):
        parts.append(f"up to {operations(flops)}")
    if most := max(one.memory or 0 for one in some):
        parts.append(f"at most {memory(most)} on the device")
    text = ", ".join(part for part in parts if part) or "not known"
    if unknown := len(some) - len(known):
        text += f"; {unknown} of {len(some)} stages never ran here, so their time is not known"
    return f"{'in all':13} {text}"


def duration(seconds: float) -> str:
    """About so many seconds, minutes or hours."""
    if seconds < 90:
        return f"about {seconds:.1f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def memory(count: int) -> str:
    """Bytes on a device, as its makers count them."""
    return f"{count / GIB:.1f} GiB" if count > GIB / 10 else f"{count / (1 << 20):.0f} MiB"


def operations(flops: int) -> str:
    """Floating-point operations, powers of 1000."""
    value, units = flops / 1e9, ["GFLOP", "TFLOP", "PFLOP", "EFLOP"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
