"""Propagate: put a picture into an object, or paint one frame by hand, and carry it along. No model.

A reference image is placed over the masked object on one frame; hand-edited frames (anchors) are taken as they are.
Every other frame asks the two nearest anchors what stands at each of its pixels (object_motion.py), cross-fades
their answers by distance, and lays the result over the object with a feathered edge. What covers the object in the
source covers the edit too, because the mask leaves it out. It is the baseline of every diffusion method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from retake.errors import ConfigError, MediaError
from retake.formats import CHUNK, FrameSeries, RegionSeries
from retake.imaging.rgba import premultiplied_resize, with_alpha
from retake.imaging.soft_mask import Box, bounding_box, seam
from retake.machine.threads import single_threaded
from retake.methods import Inputs, Patch
from retake.methods.patches import assembled
from retake.methods.propagate.object_motion import ObjectMotion, apply
from retake.video import read_image, resize

VERSION = 2
NEEDS = ("optical_flow", "region", "tracks")

CHANGED = 10  # of 255: a hand-edited pixel differs from the source by more than this


class Params(BaseModel, frozen=True, extra="forbid"):
    """What is carried, and how it sits on the object."""

    name: Literal["propagate"] = "propagate"
    reference: str | None = Field(
        None,
        description="picture to put into the object (PNG, JPEG; alpha is honoured)",
        json_schema_extra={"file": ""},
    )
    frame: int | None = Field(
        None, ge=0, description="working frame the reference is placed on; null: the mask's frame"
    )
    anchors: dict[int, str] | None = Field(
        None, description="hand-edited frames: working frame number -> image", json_schema_extra={"file": ""}
    )
    fit: Literal["cover", "contain", "stretch"] = Field("cover", description="how the reference fills the object's box")
    strength: float = Field(1.0, ge=0, le=1, description="opacity of the edit")
    feather: float = Field(3.0, ge=0.5, le=100, description="width of the soft edge, working pixels")
    grow: float = Field(1.0, ge=-50, le=50, description="how far the edge is moved outwards, working pixels")
    residual: float = Field(1.0, ge=0, le=1, description="weight of the flow residual on top of the affine")


def check_settings(params: Params, beside: Mapping[str, Any]) -> None:
    """Raises ConfigError E230 (no picture to insert)."""
    if not params.reference and not params.anchors:
        raise ConfigError("E230", "no picture to insert", "Give edit.reference=IMAGE, or 'edit.anchors={0: IMAGE}'.")


def check(params: Params, frames: Mapping[str, Any]) -> None:
    """Raises ConfigError E231 (a frame that the clip does not have), MediaError E431 (an anchor of another shape) and
    what reading the images raises."""
    for frame in [*(params.anchors or {}), *([params.frame] if params.frame is not None else [])]:
        if frame >= frames["count"]:
            raise ConfigError("E231", f"there is no frame {frame}", f"The clip has frames 0 to {frames['count'] - 1}.")
    if params.reference:
        read_image(params.reference)
    for path in (params.anchors or {}).values():
        check_shape(path, read_image(path), frames)


@dataclass(frozen=True)
class Layer:
    """What stands on an anchor frame. `picture` float32 RGBA [h,w,4] in 0..255 and 0..1; `place` [2,3] takes
    working pixels of the anchor frame to pixels of the picture; `free` says where alpha may leave the mask."""

    frame: int
    picture: np.ndarray
    place: np.ndarray
    free: np.ndarray | None = None


def edit(
    latents: None, backbone: None, priors: Mapping[str, Any], inputs: Inputs, params: Params, rng: np.random.Generator
) -> Iterator[Patch]:
    """One Patch a chunk. Raises ConfigError E233 (no object on the anchor frame), E234 (a reference and an anchor on
    one frame) and MediaError (unreadable image)."""
    frames, masks = inputs.frames, priors["region"]
    layers = [edited_layer(frames, masks, t, path) for t, path in sorted((params.anchors or {}).items())]
    if params.reference:
        frame = masks.meta.get("frame", 0) if params.frame is None else params.frame
        if any(layer.frame == frame for layer in layers):
            raise ConfigError(
                "E234",
                f"both edit.reference and an anchor are on frame {frame}",
                "Leave one of them out, or place the reference elsewhere: edit.frame=N",
            )
        layers.append(reference_layer(masks, frame, read_image(params.reference), params.fit))
    layers.sort(key=lambda layer: layer.frame)

    motions = motions_between(layers, len(frames), priors, params, inputs)
    with single_threaded():
        for index in range(inputs.first_chunk, frames.chunks()):
            span = range(index * CHUNK, min((index + 1) * CHUNK, len(frames)))
            yield assembled([render(t, layers, motions, masks[t], masks.opacity(t), params) for t in span])


def motions_between(
    layers: list[Layer], count: int, priors: Mapping[str, Any], params: Params, inputs: Inputs
) -> dict[int, list[tuple[Layer, ObjectMotion, float]]]:
    """For every frame, the one or two anchors that speak for it, with weights that sum to 1."""
    spoken: dict[int, list[tuple[Layer, ObjectMotion, float]]] = {t: [] for t in range(count)}

    def motion(layer: Layer, span: range) -> ObjectMotion:
        series = priors["tracks"], priors["optical_flow"], priors["region"]
        return ObjectMotion(layer.frame, span, *series, params.residual, inputs.scratch)

    edges = [None, *layers, None]
    for left, right in pairwise(edges):
        start = left.frame + 1 if left else 0
        stop = right.frame if right else count
        if left:
            forward = motion(left, range(start, stop))
            spoken[left.frame] = [(left, forward, 1.0)]
            for t in range(start, stop):
                spoken[t].append((left, forward, fade(t, left.frame, right.frame) if right else 1.0))
        if right:
            backward = motion(right, range(stop - 1, start - 1, -1))
            for t in range(start, stop):
                spoken[t].append((right, backward, fade(t, right.frame, left.frame) if left else 1.0))
    return spoken


def fade(t: int, own: int, other: int) -> float:
    """Weight of an anchor: 1 on its own frame, 0 on the other's, smooth between."""
    s = 1 - abs(t - own) / abs(other - own)
    return s * s * (3 - 2 * s)


def render(
    t: int,
    layers: list[Layer],
    motions: dict[int, list[tuple[Layer, ObjectMotion, float]]],
    mask: np.ndarray,
    opacity: np.ndarray | None,
    p: Params,
) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """(box, rgb uint8 [h,w,3], alpha uint8 [h,w]) of one frame, or None when nothing of the edit is seen."""
    reach = edge_reach(p)
    soft = seam(mask, opacity, p.feather, p.grow)
    inside = bounding_box(mask, reach) if opacity is None else bounding_box(opacity > 0, 0)
    painted = any(layer.free is not None for layer, _, _ in motions[t])
    box = free_box(t, motions[t], mask.shape, inside, reach) if painted else inside
    if box is None:
        return None
    x0, y0, x1, y1 = box
    object_alpha = soft[y0:y1, x0:x1]
    colour = np.zeros((y1 - y0, x1 - x0, 3), np.float32)
    alpha = np.zeros((y1 - y0, x1 - x0), np.float32)
    for layer, motion, weight in motions[t]:
        where = motion.to_anchor_map(t, box)
        rgba = look_up(layer.picture, apply(layer.place, where))
        cover = object_alpha
        if layer.free is not None:
            cover = np.maximum(cover, look_up(layer.free, where, outside=0.0))
        share = weight * rgba[..., 3] * cover
        colour += share[..., None] * rgba[..., :3]
        alpha += share
    rgb = colour / np.maximum(alpha, 1e-6)[..., None]
    return (
        box,
        np.rint(rgb.clip(0, 255)).astype(np.uint8),
        np.rint(255 * p.strength * alpha.clip(0, 1)).astype(np.uint8),
    )


def reference_layer(masks: RegionSeries, frame: int, image: np.ndarray, fit: str) -> Layer:
    """Place an image, uint8 [h,w,3 or 4], over the object's box on `frame`. Raises ConfigError E233."""
    box = bounding_box(masks[frame], 0)
    if box is None:
        raise ConfigError(
            "E233", f"the mask is empty on frame {frame}", "Choose another one: edit.frame=N; or correct the masks."
        )
    width, height = box[2] - box[0], box[3] - box[1]
    rgba = with_alpha(image)
    across, down = rgba.shape[1] / width, rgba.shape[0] / height
    if fit != "stretch":
        across = down = min(across, down) if fit == "cover" else max(across, down)
    if (shrink := min(1 / across, 1 / down)) < 1:  # one picture pixel a working pixel, so that sampling does not alias
        size = (max(1, round(rgba.shape[1] / across)), max(1, round(rgba.shape[0] / down)))
        if fit != "stretch":
            size = (max(1, round(rgba.shape[1] * shrink)), max(1, round(rgba.shape[0] * shrink)))
        scale = size[0] / rgba.shape[1], size[1] / rgba.shape[0]
        rgba = premultiplied_resize(rgba, size)
        across, down = across * scale[0], down * scale[1]
    centre = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
    middle = (rgba.shape[1] - 1) / 2, (rgba.shape[0] - 1) / 2
    place = np.array([[across, 0, middle[0] - across * centre[0]], [0, down, middle[1] - down * centre[1]]])
    return Layer(frame, rgba, place)


def edited_layer(frames: FrameSeries, masks: RegionSeries, frame: int, path: str) -> Layer:
    """A hand-edited frame: what differs from the source is the edit. Raises MediaError E431, ConfigError E232."""
    image = read_image(path)[..., :3]
    check_shape(path, image, frames.meta)
    image = resize(image, (frames.width, frames.height))
    source = frames[frame]
    changed = (np.abs(image.astype(np.int16) - source).max(axis=2) > CHANGED).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # single pixels are coding noise
    changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    if not changed.any():
        raise ConfigError("E232", f"{path} is the same as frame {frame} of the clip", "Paint into it, then try again.")
    alpha = cv2.GaussianBlur(cv2.dilate(changed, np.ones((3, 3), np.uint8)).astype(np.float32), (0, 0), 1.0)
    beyond = cv2.GaussianBlur((~masks[frame]).astype(np.float32), (0, 0), 1.0)
    rgba = np.dstack([image.astype(np.float32), alpha])
    return Layer(frame, rgba, np.hstack([np.eye(2), np.zeros((2, 1))]), free=beyond)


def check_shape(path: str, image: np.ndarray, frames: Mapping[str, Any]) -> None:
    """Raises MediaError E431 unless an image has the clip's shape."""
    width, height = frames["source_width"], frames["source_height"]
    if image.shape[1] * height != image.shape[0] * width:
        raise MediaError(
            "E431",
            f"{path} is {image.shape[1]}x{image.shape[0]}, the clip {width}x{height}",
            "Paint into a frame of this clip: retake frame CLIP 0 --plain",
        )


def edge_reach(p: Params) -> int:
    """How many pixels beyond the mask the soft edge can reach."""
    return max(0, int(np.ceil(p.grow + p.feather / 2 + 1)))


def free_box(
    t: int, spoken: list[tuple[Layer, ObjectMotion, float]], shape: tuple[int, ...], inside: Box | None, reach: int
) -> Box | None:
    """Box on frame t of everything that hand-edited layers paint, together with the object's own."""
    boxes = [inside] if inside else []
    for layer, motion, _ in spoken:
        if (painted := bounding_box(layer.picture[..., 3] > 0.002, reach)) is None:
            continue
        corners = np.array([(x, y) for x in (painted[0], painted[2]) for y in (painted[1], painted[3])], np.float32)
        moved = apply(cv2.invertAffineTransform(motion.to_anchor[t]), corners)
        low, high = np.floor(moved.min(axis=0)) - 8, np.ceil(moved.max(axis=0)) + 8
        x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
        x1, y1 = min(shape[1], int(high[0])), min(shape[0], int(high[1]))
        if x1 > x0 and y1 > y0:
            boxes.append((x0, y0, x1, y1))
    if not boxes:
        return None
    stacked = np.array(boxes)
    return (*map(int, stacked[:, :2].min(axis=0)), *map(int, stacked[:, 2:].max(axis=0)))  # type: ignore[return-value]


def look_up(picture: np.ndarray, where: np.ndarray, outside: float | None = None) -> np.ndarray:
    """Bilinear samples of a picture at (x, y) pixel coordinates [h,w,2]. Beyond its edge it is mirrored, or
    `outside` stands there."""
    mode = cv2.BORDER_REFLECT_101 if outside is None else cv2.BORDER_CONSTANT
    fill = 0.0 if outside is None else outside
    x, y = np.ascontiguousarray(where[..., 0]), np.ascontiguousarray(where[..., 1])
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=mode, borderValue=fill)
