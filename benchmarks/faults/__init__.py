"""Campaigns against Retake: each module is a benchmark, `python -m benchmarks faults.NAME`, that counts what broke.

media     damaged and odd clips        attacks  hostile settings, names and references
kills     SIGKILL at random            failpoints  a crash or an error at every write of the store
damage    flipped and cut files        crowd    many processes on one key
reading   what verifying costs

What they found stands in docs/faults.md.
"""

import sys
from pathlib import Path

# What is aimed (the zoo, the attacks, the store under fire) lies with the tests, which aim with it, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
