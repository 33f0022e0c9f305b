"""The corpus of attacks, once, watched: everything hostile is refused with its code, and nothing else happens."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from attacks import HARMLESS, LEAST, corpus, pictures, watched
from helpers.command import CHECKOUT
from helpers.hydra import composed_by_hydra

from benchmarks.faults import attacks as benchmark
from flows.settings.compose import compose
from retake.video import read_image

# What a hostile case might do, one line each; `T` is a folder.
MISDEEDS = {
    "open": "open(T + '/x', 'w')",
    "os.mkdir": "os.mkdir(T + '/d')",
    "os.remove": "os.path.exists(T) and os.remove(T + '/here')",
    "os.rename": "os.rename(T + '/there', T + '/gone')",
    "os.symlink": "os.symlink('/', T + '/root')",
    "socket.connect": "socket.socket().connect_ex(('127.0.0.1', 9))",
    "socket.getaddrinfo": "socket.getaddrinfo('127.0.0.1', 1)",
    "subprocess.Popen": "subprocess.run(['true'])",
    "os.system": "os.system('true')",
    "os.posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "os.fork": "os.fork() or os._exit(0)",
    "pickle.find_class": "pickle.loads(pickle.dumps(os.getcwd))",
    "compile": "compile('1', 'x', 'eval')",
    "exec": "exec('1')",
    "ctypes.dlopen": "ctypes.CDLL(None)",
    "import": "importlib.import_module('this')",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict[str, Any]]:
    return watched(tmp_path_factory.mktemp("attacks"))


@pytest.fixture(scope="module")
def refused(rows) -> list[dict[str, Any]]:
    return [row for row in rows if row["got"] != HARMLESS]


def test_every_family_is_large_and_no_case_stands_twice():
    cases = corpus()
    assert not {key: n for key, n in Counter((case.family, case.name) for case in cases).items() if n > 1}
    counts = Counter(case.family for case in cases)
    assert set(counts) == set(LEAST)
    assert {family: counts[family] for family in LEAST if counts[family] < LEAST[family]} == {}


def test_every_attack_is_refused_with_its_code_or_comes_to_nothing(rows):
    assert [(row["family"], row["name"]) for row in rows] == [(case.family, case.name) for case in corpus()]
    wrong = [
        (row["family"], row["name"], row["got"], row["shown"]) for row in rows if row["got"] not in row["expected"]
    ]
    assert wrong == []


def test_nothing_is_written_called_started_or_imported(rows):
    assert [(row["name"], row["events"]) for row in rows if row["events"]] == []


def test_the_benchmark_makes_its_tables_of_them(rows):
    tables = benchmark.rows_of(rows)
    assert "By family" in {row["table"] for row in tables}
    assert sum(row["cases"] for row in tables if row["table"] == "By family") == len(rows)


def test_a_refusal_is_short_and_says_what_to_do_next(refused):
    for row in refused:
        lines = row["shown"].strip("\n").split("\n")
        assert lines[0].startswith(row["got"]), row
        assert row["hint"], row
        assert len(lines) >= 2, row
        assert len(lines) <= 6 or row["got"] == "E297", row  # of a manifest, every line that is wrong
        assert "Traceback" not in row["shown"], row


def test_nothing_in_a_message_speaks_to_the_terminal(refused):
    strange = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    for row in refused:
        assert not {unicodedata.category(c) for c in row["shown"].replace("\n", "")} & strange, ascii(row["shown"])


# ---- what is good goes through as before -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["edit=sdedit", "edit.prompt='a red disc, moving'", "edit.seed=3"],
        ["edit.prompt='a, b'", "edit=sdedit", "edit.prompt=last one (counts)"],
        ["edit.anchors={0:a.png,7:b.png}"],
        ["+edit.anchors.3=a.png", "++edit.strength=0.25"],
        ["edit.anchors={a:1}", "edit.anchors={a:2}", "+edit.anchors={b:{c:[1,2]}}"],
        [
            "masks.box=[1,2.5,-3,4e1]",
            "masks.points=[[1,2,0],[3,4,1]]",
            "masks.corrections=[{frame:3,points:[[1,2,1]]}]",
        ],
        ["metrics.names=[region,ssim]", "metrics.names.0=lpips", "metrics.lpips.weights=lpips_vgg"],
        ["edit.reference=a path/with 'quotes' and \\\\ back.png", "edit.frame=null"],
        ["~edit.residual", "region.steps=[rectangle]", "report.tile=64"],
        [
            "dataset=manifest",
            "dataset.manifest=/a b/c.csv",
            "dataset.skip.shorter_than=4",
            "dataset.skip={longer_than:9}",
        ],
        ["model=animatediff", "model.schedule={spacing:trailing}", "latents.fit=stretch"],
        ["+evaluation=moca", "evaluation.first=3", "evaluation.only=[sdedit]"],
    ],
)
def test_what_settings_will_be_is_what_hydra_makes_of_them(words):
    assert compose(words) == composed_by_hydra(words)


def test_a_picture_is_what_its_pixels_are_whatever_stands_beside_them(tmp_path: Path):
    rng = np.random.default_rng(5)
    beside = [
        pictures.chunk(b"gAMA", (45455).to_bytes(4, "big")),
        pictures.chunk(b"sRGB", b"\0"),
        pictures.chunk(b"tEXt", b"Comment\0by hand"),
        pictures.chunk(b"pHYs", bytes(9)),
    ]
    for shape, kind in (((9, 7, 3), "u1"), ((9, 7, 4), "u1"), ((9, 7), "u1"), ((9, 7, 3), "u2")):
        plain = cv2.imencode(".png", rng.integers(0, 255, shape).astype(kind))[1].tobytes()
        (tmp_path / "plain.png").write_bytes(plain)
        (tmp_path / "more.png").write_bytes(plain[:33] + b"".join(beside) + plain[33:] + b"behind")
        assert np.array_equal(read_image(tmp_path / "plain.png"), read_image(tmp_path / "more.png"))
    jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (16, 16, 3)).astype("u1"))[1].tobytes()
    many = jpeg[:2] + pictures.segment(0xE2, b"x" * 1000) * 300 + b"\xff" * 500 + jpeg[2:]
    (tmp_path / "plain.jpg").write_bytes(jpeg)
    (tmp_path / "more.jpg").write_bytes(many)
    assert np.array_equal(read_image(tmp_path / "plain.jpg"), read_image(tmp_path / "more.jpg"))


# ---- the watch itself --------------------------------------------------------------------------------------------


def alone(script: str) -> str:
    """What a script says that runs in a process of its own."""
    paths = os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths}
    words = [sys.executable, "-c", script]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("event", MISDEEDS)
def test_the_watch_sees(event, tmp_path: Path):
    """So that its silence means something."""
    (tmp_path / "here").touch()
    (tmp_path / "there").touch()
    script = (
        "import contextlib, ctypes, importlib, os, pickle, socket, subprocess, sys\n"
        "from attacks.watch import Watch\n"
        f"T, watch = {str(tmp_path)!r}, Watch()\n"
        "def misdeed():\n"
        f"    {MISDEEDS[event]}\n"
        "with watch() as seen, contextlib.redirect_stdout(None):\n"
        "    misdeed()\n"
        "print('\\n'.join(seen))\n"
    )
    said = alone(script)
    assert any(line.startswith(event) for line in said.splitlines()), said


def test_the_watch_leaves_good_work_alone(tmp_path: Path):
    script = (
        "from attacks.watch import Watch, benign_settings\n"
        "from flows.settings.compose import settings\n"
        "benign_settings()\n"
        "watch = Watch()\n"
        "with watch() as seen:\n"
        "    settings(['edit=sdedit', 'edit.prompt=a red disc'])\n"
        "print(seen)\n"
    )
    said = alone(script)
    assert said.strip() == "[]"
