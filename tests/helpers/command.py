"""The command line as tests run it, with a store and a results folder of its own: in this process, or in a child where
signals, a full disk, another checkout or what gets imported are the point."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class CommandResult:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON. Fails when the command did."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The JSON error, the last line of standard error."""
        return json.loads(self.err.splitlines()[-1])["error"]

    def statuses(self) -> dict[str, str]:
        """status by stage."""
        return {stage["stage"]: stage["status"] for stage in self.data["stages"]}

    def ran(self) -> list[str]:
        return [stage for stage, status in self.statuses().items() if status == "ran"]


class Shell:
    """`shell("edit", clip, "--json")` runs `retake edit clip --json`; `home` holds the store and the results."""

    def __init__(self, home: Path, checkout: Path = CHECKOUT) -> None:
        self.home, self.checkout = home, checkout
        kept = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS")
            if name in os.environ
        }
        self.environment = kept | {
            "RETAKE_STORE": str(home / "store"),
            "RETAKE_EDITS": str(home / "edits"),
            "RETAKE_DATASETS": str(home / "datasets"),
            "PREFECT_HOME": str(home / "prefect"),
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def start(self, *words: object, before: Callable[[], object] | None = None, **environment: str) -> Any:
        """The running child."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *map(str, words)],
            cwd=self.checkout,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,  # type: ignore[arg-type]
        )

    def __call__(self, *words: object, **environment: str) -> CommandResult:
        """As a child would, in this process: the environment, the folder and the signals are put back afterwards."""
        from flows.__main__ import main
        from retake.checkout import enter

        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        code: Any = 0
        try:
            with (
                mock.patch.dict(os.environ, self.environment | environment, clear=True),
                mock.patch.object(sys, "argv", ["retake", *map(str, words)]),
                mock.patch.object(sys, "path", [*sys.path]),
                contextlib.chdir(self.checkout),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                enter(self.checkout)
                main()
        except SystemExit as stop:
            code = stop.code
        except Exception:  # with --debug: Python shows it and ends with 1
            traceback.print_exc(file=err)
            code = 1
        finally:
            for number, handler in signals.items():
                signal.signal(number, handler)
        streams = []
        for stream in (out, err):
            stream.flush()
            streams.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return CommandResult(code or 0, *streams)


class Child(Shell):
    """The same, each call a Python of its own."""

    def __call__(self, *words: object, before: Callable[[], object] | None = None, **environment: str) -> CommandResult:
        child = self.start(*words, before=before, **environment)
        out, err = child.communicate(timeout=120)
        return CommandResult(child.returncode, out, err)


def sprite_clip(path: Path, frames: int = 20, size: tuple[int, int] = (160, 96), scene: str = "drift") -> Path:
    """A small MP4 of the sprite world; on frame 0 of `drift` the object lies within 20,20,80,80 of 160x96."""
    from retake.synthetic import scenes
    from retake.synthetic.world import World
    from retake.video import encode

    world = World(scenes.scene(scene, width=size[0], height=size[1], frames=frames))
    encode(path, (world.frame(t) for t in range(frames)), 24.0)
    return path


def reference(path: Path) -> Path:
    """A picture to put into the object."""
    from retake.synthetic.pictures import reference_image
    from retake.video import write_png

    write_png(path, reference_image("patchwork", 64)[..., :3])
    return path
