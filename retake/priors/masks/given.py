"""Masks that somebody made already: DAVIS annotations, a folder of images, or a mask video.

Palette and grey images are index images, as in DAVIS: every value but 0 is an object, and its id. Images in black and
white, mattes (values.py says what is one), an alpha that is not the same everywhere, images with colours, and a video
hold one object, with the id 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.exchange.files import check_shape, unread
from retake.exchange.mask_pictures import OTHERS, PNG, MaskPicture, mask_files, read
from retake.exchange.numbering import gap_note, gap_words, gaps
from retake.priors.masks.values import BRIGHT, MAX_OBJECTS, Tally

VERSION = 3
NEEDS: tuple[str, ...] = ()

SOFT_NOTE = (
    "a soft matte: the object is where it is one half or more; its opacity, not edit.feather and edit.grow, is the edge"
)
HARD_NOTE = (
    "grey values are read as the edge of one object, which is where they are one half or more; "
    "masks.values=ids: each value is an object"
)
_HINT = "Give masks made from this clip, uncropped."


class Params(BaseModel, frozen=True, extra="forbid"):
    """Which masks, and which object in them."""

    name: Literal["given"] = "given"
    path: str | None = Field(
        None,
        description="folder of images, one a frame in the order of their names, or a mask video",
        json_schema_extra={"file": ""},
    )
    object: int | None = Field(
        None, description="value of the only object to take from index images; none takes all", ge=1, le=255
    )
    values: Literal["auto", "ids", "matte"] = Field(
        "auto", description="what the values of images are: ids of objects, or opacity; auto: what they look like"
    )
    own: bool = Field(
        False,
        description="the masks that the clip itself knows, in place of a path: of scenes of the sprite world",
        json_schema_extra={"inert": "the clip is an ingredient of such masks"},
    )


@dataclass(frozen=True)
class GivenMasks(Iterator[dict[int, np.ndarray]]):
    """The masks, frame by frame: {id: bool [H, W]}, of a soft matte {1: uint8 [H, W]}, its opacity; and what a person
    should know of how they were read."""

    frames: Iterator[dict[int, np.ndarray]]
    notes: list[str]

    def __next__(self) -> dict[int, np.ndarray]:
        return next(self.frames)


@dataclass(frozen=True)
class Reading:
    """What the pictures of a folder or the frames of a video mean. `ids`: id to the value that stands for it, None for
    a matte; `alpha`: alpha is the mask, where there is one; `soft`: opacity is kept."""

    ids: Mapping[int, int] | None
    alpha: bool = False
    soft: bool = False
    notes: list[str] = field(default_factory=list)


def check_settings(params: Params) -> None:
    """Raises ConfigError E223 when no path is given, or one beside the clip's own masks."""
    if not params.own:
        _path(params.path)
    elif params.path:
        raise ConfigError("E223", "masks.own=true has no use for masks.path", "Give one of them.")


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Before anything runs: raises ConfigError E223 when no path is given, MediaError E400 when nothing is there, E430
    when a folder does not hold one mask a frame."""
    if params.own:
        return
    path = _require(params.path)
    if path.is_dir():
        _check_count(path, len(mask_files(path)), frames["count"])


def ids(path: str | Path | None, params: Params) -> tuple[int, ...]:
    """Ids of the objects, ascending: the values that stand in any index image of the folder, `params.object` alone
    where it is set, else 1. Reads every image of a folder, one at a time.

    Raises ConfigError E223 (no path, or `object` for what holds no ids), MediaError E400 (nothing at `path`, or an
    image that is not a file), E420 and E421 (an image that is unreadable or too large), E438 (neither ids nor a matte:
    a value above 255, or more than 64 different ones).
    """
    path = _require(path)
    return tuple(_reading(path, params).ids or (1,)) if path.is_dir() else (1,)


def masks(path: str | Path | None, params: Params, count: int, size: tuple[int, int]) -> GivenMasks:
    """The masks of a clip of `count` frames, at `size` = (width, height). Every frame names the same `ids`; an object
    that is not there has an empty mask.

    Folder: palette and grey images are index images, as in DAVIS (`Annotations/480p/NAME/%05d.png`). Mattes and alpha:
    above 127. Coloured images: any channel not 0. Names are ordered by the numbers in them; hidden files are left out.
    Video: luma (BT.601 weights) above 127. Masks of another size are resampled; a pixel belongs to an object where half
    of it does.

    Raises what `ids` raises, MediaError E430 when the number of masks or their shape does not match the clip, and what
    `retake.video.decode` raises for a video.
    """
    path = _require(path)
    return _from_folder(path, params, count, size) if path.is_dir() else _from_video(path, params, count, size)


def _require(path: str | Path | None) -> Path:
    path = _path(path)
    if not path.exists():
        raise MediaError("E400", f"no masks at {path}", "Check masks.path: a folder of images or a video.")
    return path


def _path(path: str | Path | None) -> Path:
    if not path:
        raise ConfigError(
            "E223", "masks=given needs masks.path", "Give masks.path=PATH: a folder of PNG images or a mask video."
        )
    return Path(path)


def _from_folder(path: Path, params: Params, count: int, size: tuple[int, int]) -> GivenMasks:
    files = mask_files(path)
    _check_count(path, len(files), count)
    how = _reading(path, params)

    def frames() -> Iterator[dict[int, np.ndarray]]:
        for file in files:
            picture = read(file)
            if picture.alpha is not None and how.alpha:
                found = _one(picture.alpha, how.ids or (1,), how.soft)
            elif how.ids is None or picture.coloured:
                found = _one(picture.grey, how.ids or (1,), how.soft)
            else:
                found = {i: picture.values == value for i, value in how.ids.items()}
            yield {i: _fit(mask, size, file) for i, mask in found.items()}

    missing = gaps([file.stem for file in files])
    return GivenMasks(frames(), [*how.notes, gap_note(missing, count)] if missing else how.notes)


def _from_video(path: Path, params: Params, count: int, size: tuple[int, int]) -> GivenMasks:
    from retake import video

    if params.object is not None:
        raise ConfigError(
            "E223",
            f"masks.object={params.object}, but {path.name} is a video",
            "Drop masks.object: a video is black and white.",
        )
    _check_count(path, video.probe(path).frames, count)
    tally = Tally()

    def greys() -> Iterator[np.ndarray]:
        number = 0
        for _, rgb in video.decode(path):
            number += 1
            yield cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        _check_count(path, number, count)

    for grey in greys():
        tally.add(grey, grey)
    soft = tally.soft
    frames = ({1: _fit(_one(grey, (1,), soft)[1], size, path)} for grey in greys())
    return GivenMasks(frames, [SOFT_NOTE] if soft else [])


def _reading(path: Path, params: Params) -> Reading:
    """How the pictures of a folder are read, after a look at all of them."""
    files = mask_files(path)
    if params.object is not None:
        for file in files:
            _require_index(read(file), file, params.object)
        return Reading({params.object: params.object})
    plain, under, alphas = Tally(), Tally(), Tally()  # without alpha; beside alpha; alpha itself
    palette, rgb, drawn = False, True, False
    for file in files:
        picture = read(file)
        palette, rgb, drawn = palette or picture.palette, rgb and picture.rgb, drawn or picture.coloured
        if picture.alpha is not None:
            alphas.add(picture.alpha, picture.alpha)
        (plain if picture.alpha is None else under).add(picture.values, picture.grey)
    notes = [] if not files or files[0].suffix.lower() in PNG else [f"no PNG: {len(files)} other images are read"]
    alpha = alphas.varied and params.values != "ids"
    if not alpha and alphas.met.any() and params.values != "ids":
        notes.append("their alpha is the same everywhere: not alpha, brightness is the mask")
    seen = plain if alpha else plain.with_those_of(under)
    matte = params.values == "matte" or (params.values == "auto" and not palette and seen.matte(rgb))
    if matte or seen.white:
        whole = seen.with_those_of(alphas) if alpha else seen
        if whole.soft:
            return Reading(None, alpha, True, [*notes, SOFT_NOTE])
        told = matte and not seen.white
        return Reading(None, alpha, False, [*notes, HARD_NOTE] if told else notes)
    if not seen.fits_ids:
        raise MediaError(
            "E438",
            f"{path} holds neither ids nor a matte: {len(seen.values)} values up to {seen.largest} were met",
            f"Ids are 1 to 255, at most {MAX_OBJECTS}, and fill areas; a matte is white inside. "
            "masks.values=matte takes the values as opacity, masks.object=N one of them as the object.",
        )
    found = seen.values
    if not palette and len(found) > 1 and found[-1] >= BRIGHT and params.values == "auto":
        named = ", ".join(map(str, found[:8])) + ", ..." * (len(found) > 8)
        notes.append(f"the grey values {named} are read as ids of objects; masks.values=matte: as opacity")
    ids = sorted({*found, 1}) if drawn or alpha else found
    return Reading({i: i for i in ids}, alpha, False, notes)


def _require_index(picture: MaskPicture, file: Path, wanted: int) -> None:
    varied = picture.alpha is not None and picture.alpha.min() != picture.alpha.max()
    if varied or picture.coloured:
        raise ConfigError(
            "E223",
            f"masks.object={wanted}, but {file} is an image with {'alpha' if varied else 'colours'} and holds no index",
            "Drop masks.object, or give palette images as DAVIS does.",
        )


def _one(opacity: np.ndarray, ids: Iterable[int], soft: bool) -> dict[int, np.ndarray]:
    """An opacity as the mask of object 1; other objects are not on this picture."""
    mask = opacity if soft else opacity > 127
    return {i: mask if i == 1 else np.zeros_like(mask) for i in ids}


def _fit(mask: np.ndarray, size: tuple[int, int], source: Path) -> np.ndarray:
    check_shape(source, mask.shape, size, "E430", _HINT)
    height, width = mask.shape
    if (width, height) == size:
        return mask
    shrinks = width >= size[0] and height >= size[1]
    fitted = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return fitted >= 0.5 if mask.dtype == bool else np.rint(fitted).astype(np.uint8)


def _check_count(path: Path, found: int, wanted: int) -> None:
    if found != wanted:
        missing = gaps([file.stem for file in mask_files(path)]) if path.is_dir() else []
        raise MediaError(
            "E430",
            f"{path} holds {found} mask{'s' * (found != 1)}{unread(path, (*PNG, *OTHERS))}, the clip has {wanted} "
            f"frames{'; ' * bool(missing)}{gap_words(missing)}",
            "Give one mask a frame of those that are selected, in the order of their names.",
        )
