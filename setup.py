"""What pyproject.toml cannot say: a wheel carries flows/, tasks/, params/ and what projects are made of in retake/."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("flows", "tasks", "params")
FILES = ("dvc.yaml", "params.yaml", "prefect.yaml", "constraints.txt", ".dvc/config", ".dvc/.gitignore")


class Carrying(build_py):
    def run(self) -> None:
        if self.editable_mode:  # the checkout itself is used
            super().run()
            return
        here, target = Path(__file__).resolve().parent, Path(self.build_lib, "retake", "installed")
        shutil.rmtree(target.parent, ignore_errors=True)  # of an earlier build: a module that is gone would be a choice
        super().run()
        for name in FOLDERS:
            shutil.copytree(here / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here / name, target / name)


setup(cmdclass={"build_py": Carrying})
