"""Names of clips: paths, scenes, links, devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .case import HARMLESS, Case, file_case, readable, somebody_else

FAMILY = "names"
SAFE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
NOWHERE = [
    "../../x",
    "../../../../../../etc/shadow-none",
    "/nowhere/x.mp4",
    "a\0b.mp4",
    "\0",
    "x" * 300,
    "x" * 5000,
    "a/" * 3000 + "x",
    "./" * 2000 + "x:y",
    "/" * 4000 + "nowhere",
    "\U0001f600.mp4",
    "\u202egnp.4pm",
    "a\nb.mp4",
    "a\r\nb",
    "\x1b[31mred\x1b[0m.mp4",
    "\x1b]0;title\x07",
    "-rf",
    "--help",
    "-",
    "~nobody-here/x.mp4",
    "~",
    "con",
    "nul.mp4",
    "clip.mp4.",
    "clip.mp4 ",
    " ",
    "",
    "\t",
    "\ud800.mp4",
    "caf\udce9.mp4",
    "$HOME/x.mp4",
    "${oc.env:HOME}",
    "$(id).mp4",
    "; id",
    "| id",
    "*.mp4",
    "%00",
    "clip.mp4?x=1",
    "clip.mp4#t=1",
    "DAVIS:bear",
    "/nowhere/DAVIS:../../x",
    "C:\\clip.mp4",
    "\\\\server\\share\\x.mp4",
]
SCHEMES = ("http", "https", "ftp", "rtmp", "rtsp", "srt", "tcp", "udp", "tls", "gopher", "smb", "sftp", "hls", "dash")
SCHEMES += ("mms", "data", "file")
ADDRESSES = [f"{scheme}://example.org/x.mp4" for scheme in SCHEMES]
ADDRESSES += [
    "concat:/etc/passwd|/etc/hosts",
    "data:video/mp4;base64,AAAA",
    "file:/etc/passwd",
    "pipe:0",
    "pipe:",
    "crypto:x",
    "subfile,,start,0,end,9,,:/etc/passwd",
    "cache:http://example.org",
    "async:http://example.org/a",
    "HTTP://example.org",
    "lavfi:color=red",
    "movie=x.mp4",
    "unix:/x",
    "fd:0",
    "javascript:alert(1)",
    "jar:file:///x!/y",
    "\thttp://example.org",
]
SCENES = [
    "sprites:",
    "sprites:../x",
    "sprites:drift:",
    "sprites:drift:-1",
    "sprites:drift:" + "9" * 10,
    "sprites:drift:1:2",
    "sprites:drift:1e9",
    "sprites:drift:0x1",
    "sprites:drift\n",
    "sprites:drift:7\n",
    "sprites:Drift",
    "sprites:__init__",
    "sprites:os",
    "sprites:a" * 500,
    "sprites:" + "a" * 10_000,
    "sprites:nothing",
    "sprites:nothing:7",
    "sprites:\0",
    "sprites:${oc.env:HOME}",
    "sprites::",
    "sprites:captioned:-",
]


def opened(spec: str) -> Any:
    """Open and ask for what is known; the folder name that it gets must be safe before anything else."""
    import re

    from retake.clip import open_clip

    clip = open_clip(spec)
    assert re.fullmatch(SAFE, clip.name), clip.name
    return clip.info(24.0)


def named(spec: str, *expected: str) -> Case:
    return Case(FAMILY, readable(spec), lambda _: opened(spec), frozenset(expected))


def placed(name: str, write: Callable[[Path], Any], *expected: str) -> Case:
    """`write` returns the path that is then opened."""
    return file_case(FAMILY, name, write, lambda path: opened(str(path)), *expected)


def cases() -> Iterator[Case]:
    yield from (named(spec, "E400", "E404", "E410") for spec in NOWHERE)
    yield from (named(spec, "E404", "E400") for spec in ADDRESSES)
    yield from (named(spec, "E240") for spec in SCENES)
    for text in (
        "a/../../b",
        "..",
        ".",
        "...",
        "con",
        "NUL",
        "lpt1.mp4",
        "a.",
        "-a",
        "",
        "\0",
        "\U0001f600",
        "x" * 300,
        "a\nb",
        "x" * 127 + ".y",
    ):
        yield Case(FAMILY, f"slug {readable(text)}", lambda _, text=text: slugged(text), frozenset({HARMLESS}))
    for name in (
        "con.mp4",
        "-x.mp4",
        "a b.mp4",
        "a\nb.mp4",
        "\u202egnp.mp4",
        "\U0001f600.mp4",
        "http:x.mp4",
        "x.mp4.",
        "x ",
        ".mp4",
        "a" * 250,
        "caf\udce9.mp4",
        "\x1b[31m",
    ):
        yield placed(f"rubbish called {readable(name)}", lambda folder, name=name: rubbish(folder / name), "E402")
    for name, target in {"a link to itself": "self", "a link to nothing": "nothing"}.items():
        yield placed(name, lambda folder, target=target: link(folder / "self", folder / target), "E400")
    for device in (
        "/dev/null",
        "/dev/zero",
        "/dev/urandom",
        "/dev/stdin",
        "/dev/fd",
        "/proc/self/environ",
        "/proc/self/mem",
        "/etc",
        "/",
    ):
        expected = ("E400", "E401", "E402", "E410")
        yield named(device, *expected)
        yield placed(f"a link to {device}", lambda folder, to=device: link(folder / "clip.mp4", Path(to)), *expected)
    yield placed("a pipe", lambda folder: (os.mkfifo(folder / "a.mp4"), folder / "a.mp4")[1], "E400")
    yield placed("an empty folder", lambda folder: folder, "E410")
    yield placed(
        "a folder of links to devices", lambda folder: (link(folder / "0.png", Path("/dev/zero")), folder)[1], "E400"
    )
    yield placed("a folder of folders", lambda folder: ((folder / "0.png").mkdir(), folder)[1], "E400")
    yield placed("a folder of rubbish", lambda folder: rubbish(folder / "0.png").parent, "E420")
    yield placed("a DAVIS tree without sequences", lambda folder: davis(folder, ()) + ":bear", "E400")
    yield placed("a DAVIS tree left by dots", lambda folder: davis(folder, ("bear",)) + ":..", "E400")
    yield placed("a DAVIS tree and a path", lambda folder: davis(folder, ("bear",)) + ":bear/../../..", "E400")
    yield file_case(
        FAMILY,
        "a link that is turned once the clip is open",
        lambda folder: link(folder / "a.mp4", rubbish(folder / "b.mp4")),
        turned,
        "E400",
        "E402",
    )
    yield file_case(
        FAMILY,
        "a file that is a folder once the clip is open",
        lambda folder: rubbish(folder / "a.mp4"),
        gone,
        "E400",
        "E401",
    )


def slugged(text: str) -> None:
    import re

    from retake.clip import RESERVED, slug

    assert re.fullmatch(SAFE, slug(text))
    assert not RESERVED.fullmatch(slug(text))
    assert slug(text)[-1] not in ". "


def rubbish(path: Path) -> Path:
    path.write_bytes(b"rubbish " * 100)
    return path


def link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def davis(folder: Path, names: tuple[str, ...]) -> str:
    for name in ("", *names):
        (folder / "JPEGImages" / "480p" / name).mkdir(parents=True, exist_ok=True)
    return str(folder)


def turned(path: Path) -> Any:
    """Somebody points the link elsewhere between the opening of the clip and the reading of it."""
    from retake.clip import open_clip

    clip = open_clip(str(path))
    with somebody_else():
        path.unlink()
        link(path, Path("/dev/zero"))
    return clip.info(24.0)


def gone(path: Path) -> Any:
    from retake.clip import open_clip

    clip = open_clip(str(path))
    with somebody_else():
        path.unlink()
        path.mkdir()
    return clip.info(24.0)
