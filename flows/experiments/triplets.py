"""Triplets of the IVE-Benchmark's kind: a sequence of a DAVIS tree, its masks, and a picture to edit it by.

    REFERENCES/APPLICATION/SEQUENCE/NAME.png                  what is in the masks, by this picture
    REFERENCES/APPLICATION/SEQUENCE/OBJECT_ID/NAME.png        one object of them

APPLICATION is texture_transfer or object_modification. The benchmark's own list of triplets was never published; its
sources are DAVIS and pictures from Pexels (Li et al. 2025, sec. 5.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import get_args

from flows.datasets.manifest import ManifestError, Row
from flows.datasets.sources import davis_clips
from retake.clip import IMAGES, slug
from retake.errors import ConfigError
from retake.methods.ivediff.targets import Application


def triplets(davis: str, references: str) -> list[Row]:
    """All of them, the applications in turn, by sequence. Raises ConfigError E297 where the tree or the folder is not
    one, or a picture is for a sequence that the tree does not have, with its masks."""
    root, folder = Path(davis).expanduser(), Path(references).expanduser()
    if not (root / "JPEGImages").is_dir():
        raise ConfigError("E297", f"{davis} is not a DAVIS tree: it has no JPEGImages", "Give the folder that has it.")
    known = {row.clip.rpartition(":")[2]: row for row in davis_clips(root) if "masks.path" in row.settings}
    found: dict[str, list[Row]] = {application: [] for application in get_args(Application)}
    problems, ids = [], set()
    for path in pictures(folder):
        application, *inner = path.relative_to(folder).parts[:-1]
        if application not in found or not inner:
            problems.append(f"{path}: a picture lies in {'|'.join(found)}/SEQUENCE")
            continue
        sequence, *inner = inner
        if sequence not in known or len(inner) > 1 or (inner and not inner[0].isdecimal()):
            problems.append(f"{path}: no sequence with masks, or no object, of that name")
            continue
        name = slug("-".join([application, sequence, *inner, path.stem]))
        if name in ids:
            problems.append(f"{path}: another picture has its name, {name}")
        ids.add(name)
        settings = {**known[sequence].settings, "edit.reference": str(path), "edit.application": application}
        if inner:  # methods that know no object edit, and metrics look at, that one as well
            settings |= {"edit.object_id": int(inner[0]), "region.objects": [int(inner[0])]}
        found[application].append(Row(name, application, known[sequence].clip, settings))
    rows = [row for some in zip_longest(*found.values()) for row in some if row is not None]
    if not rows and not problems:
        problems.append(f"no picture as {'|'.join(found)}/SEQUENCE/NAME.png")
    if problems:
        raise ManifestError(folder, problems)
    return rows


def pictures(folder: Path) -> Iterator[Path]:
    """Pictures in the folders below one, by name."""
    return (path for path in sorted(folder.glob("*/**/*")) if path.is_file() and path.suffix.lower() in IMAGES)
