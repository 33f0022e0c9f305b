"""Benchmarks: `python -m benchmarks` runs all of them, `python -m benchmarks NAME` one.

Each is a module with `run() -> list[dict]`, one dict a row, whose docstring says what is measured against which peer.
The key `table` of a row names the table it belongs to. Figures that are kept stand in docs/benchmarks.md, written by
`--write` with date, kind of machine and command; those of `faults` in docs/faults.md. `SMOKE` holds arguments of `run`
with which a benchmark runs on next to no data, as the suite does with those in tests/test_benchmarks_smoke.py.
"""

NAMES = (
    "ground_truth",
    "moving",
    "depth",
    "health",
    "stages",
    "lengths",
    "overhead",
    "memory",
    "beside",
    "store",
    "sprites",
    "embedded",
    "next_models",
    "motion_probe",
    "interpretation",
    "steering",
    "steering_given",
    "round_trip",
    "diffusion",
    "fifo",
    "long_edit",
    "moca",
    "motionv2v",
    "overfit",
    "branch_depth",
    "motion_subspace",
    "alignment",
    "ivediff",
    "datasets",
    "gallery",
    "faults.failpoints",
    "faults.kills",
    "faults.damage",
    "faults.crowd",
    "faults.media",
    "faults.containers",
    "faults.attacks",
    "faults.reading",
)
