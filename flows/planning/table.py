"""A plan as text: one line per stage, then the totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.planning.forecast import Forecast
from flows.runners import Planned
from retake.machine.disk import format_bytes
from retake.weights.local import fetch_command, size_and_licence

GIB = 1 << 30


def table(planned: Sequence[Planned]) -> Iterator[str]:
    """One line per stage (status, expected cost, reason), then the totals and the weights to fetch first."""
    for p in planned:
        if p.status == "cached":
            said = [f"saves {p.seconds:.1f} s, {format_bytes(p.bytes or 0)}" if p.seconds is not None else ""]
        else:
            said = [format_forecast(p.forecast), "needs weights" if p.lacks else "", p.why]
        yield f"{p.stage:15} {p.status:9} {'; '.join(filter(None, (p.says, *said)))}".rstrip()
    if any(p.forecast for p in planned):
        yield format_total(planned)
    if missing := list(dict.fromkeys(reference for p in planned for reference in p.lacks)):
        yield f"{'first':15} {fetch_command(missing)}   ({', '.join(map(size_and_licence, missing))})"


def format_forecast(one: Forecast | None) -> str:
    """`about 3.2 min, up to 44 PFLOP, at most 5.9 GiB on the device`."""
    if one is None:
        return ""
    parts = [
        format_duration(one.seconds) if one.seconds is not None else None,
        f"up to {format_flops(one.flops)}" if one.flops else None,
        f"at most {format_device_memory(one.memory)} on the device" if one.memory else None,
    ]
    return ", ".join(filter(None, parts))


def format_total(planned: Sequence[Planned]) -> str:
    """Total time, disk, operations and memory of all stages that would run: at least so much, where some of them never
    ran here."""
    some = [p.forecast for p in planned if p.forecast is not None]  # corrections repeat a stage
    unknown = list(dict.fromkeys(p.stage for p in planned if p.forecast is not None and p.forecast.seconds is None))
    known = [one.seconds for one in some if one.seconds is not None]
    parts = [total_cost(sum(known), sum(one.bytes or 0 for one in some), unknown, bool(known))]
    if flops := sum(one.flops or 0 for one in some):
        parts.append(f"up to {format_flops(flops)}")
    if most := max(one.memory or 0 for one in some):
        parts.append(f"at most {format_device_memory(most)} on the device")
    return f"{'in all':15} {', '.join(parts)}"


def total_cost(seconds: float, size: int, unknown: Sequence[str], known: bool) -> str:
    """`about 19.4 s, 97.9 MB on disk`; `at least 13.9 s and 97.9 MB on disk (not run here yet: inversion, edit)`. size:
    bytes; unknown: stages whose time is not known; known: whether that of any is."""
    if not known:
        return "time not known (none of these stages has run here yet)"
    if not unknown:
        return f"{format_duration(seconds)}, {format_bytes(size)} on disk"
    least = format_duration(seconds, "at least")
    return f"{least} and {format_bytes(size)} on disk (not run here yet: {', '.join(unknown)})"


def format_duration(seconds: float, how: str = "about") -> str:
    """`about 3.2 min`: seconds below 90 s, minutes below 90 min, else hours."""
    if seconds < 90:
        return f"{how} {seconds:.1f} s"
    return f"{how} {seconds / 60:.1f} min" if seconds < 5400 else f"{how} {seconds / 3600:.1f} h"


def format_device_memory(count: int) -> str:
    """`5.9 GiB`: device memory, in powers of 1024."""
    return f"{count / GIB:.1f} GiB" if count > GIB / 10 else f"{count / (1 << 20):.0f} MiB"


def format_flops(flops: int) -> str:
    """`44 PFLOP`: floating-point operations, in powers of 1000."""
    value, units = flops / 1e9, ["GFLOP", "TFLOP", "PFLOP", "EFLOP"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
