"""The numeric core where nothing of the pipeline is installed, as on a rented GPU."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
from helpers.command import CHECKOUT

ALLOWED = {"torch", "numpy", "safetensors", "diffusers", "transformers", "peft", "pydantic", "accelerate", "retake"}
OTHER = os.environ.get("RETAKE_PYTHON")  # an interpreter of the other Python, with those packages


@pytest.mark.parametrize("interpreter", [sys.executable, OTHER], ids=["this Python", "RETAKE_PYTHON"])
def test_it_samples_and_inverts_without_the_pipeline(interpreter):
    if interpreter is None:
        pytest.skip("RETAKE_PYTHON names no other interpreter")
    paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])
    run = subprocess.run(
        [interpreter, "tests/helpers/bare.py"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.endswith("sampled, inverted, decoded\n")


def test_it_imports_nothing_else():
    found = set()
    for folder in ("diffusion", "training"):
        for path in sorted((CHECKOUT / "retake" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    found.add(str(node.module).partition(".")[0])
    assert found - set(sys.stdlib_module_names) - {"__future__"} <= ALLOWED
