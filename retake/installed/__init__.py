"""Where the program stands: flows/, tasks/ and the shipped params/, in this folder in a wheel, beside retake/ in a
checkout. Hydra and DVC find the shipped settings as the package `retake.installed.params`, whichever it is."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
IN_WHEEL = (_HERE / "flows").is_dir()
CODE = _HERE if IN_WHEEL else _HERE.parents[1]
__path__ = [str(CODE)]
