"""Where things stand: the checkout, the store, and the folders that results are handed out to."""

from __future__ import annotations

import os
from pathlib import Path

from retake.dvc import cache_dir
from retake.store import Store

CHECKOUT = Path(__file__).resolve().parent.parent
OUTS = CHECKOUT / "artifacts"  # a folder a stage, which DVC tracks; edits and datasets beside them


def open_store() -> Store:
    """The store of this checkout (DVC's cache folder, or RETAKE_STORE)."""
    return Store(cache_dir(CHECKOUT) / "retake")


def edits_home() -> Path:
    """Folder of all single edits: artifacts/edits of the checkout, or RETAKE_EDITS."""
    return _chosen("RETAKE_EDITS", OUTS / "edits")


def datasets_home() -> Path:
    """Folder of all datasets: artifacts/datasets of the checkout, or RETAKE_DATASETS."""
    return _chosen("RETAKE_DATASETS", OUTS / "datasets")


def _chosen(variable: str, default: Path) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser().absolute() if chosen else default
