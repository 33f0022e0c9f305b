"""Pictures of priors, one frame at a time: masks, flow and depth colours, track trails, the mosaic of tiles.

Every function takes and returns one frame, so a caller streams a clip of any length. Frames are uint8 RGB
[H, W, 3] and are never written in place.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import cache

import cv2
import numpy as np

MASK_COLOUR, OUTLINE = (255, 0, 200), (255, 255, 255)  # magenta: rarer in pictures than red or green
REGION_COLOUR = (0, 190, 255)
BACKDROP = 24  # grey level behind a tile that is missing or of another shape
WHEEL = (  # corners of the colour wheel, and where they stand among its 55 colours
    (0, (255, 0, 0)),
    (15, (255, 255, 0)),
    (21, (0, 255, 0)),
    (25, (0, 255, 255)),
    (36, (0, 0, 255)),
    (49, (255, 0, 255)),
    (55, (255, 0, 0)),
)
HUES = 1 << 14  # each within a quarter of a level of the next
_TILE_STEP = 8  # tiles are multiples of H.264's transform, so no block straddles two tiles


def overlay_mask(
    rgb: np.ndarray,
    mask: np.ndarray,
    colour: tuple[int, int, int] = MASK_COLOUR,
    opacity: float = 0.45,
) -> np.ndarray:
    """Tints the masked pixels and outlines the mask in white, so that its edge can be judged on any colour.

    rgb: uint8 [H, W, 3]; mask: bool [H, W]; opacity: 0 (outline only) to 1. Returns uint8 [H, W, 3].
    Raises ValueError when the sizes differ.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"mask {mask.shape} does not fit a frame of {rgb.shape[:2]} (height, width)")
    inside = mask.astype(bool)
    picture = rgb.astype(np.float32)
    picture[inside] = picture[inside] * (1 - opacity) + np.array(colour, np.float32) * opacity
    picture = np.ascontiguousarray((picture + 0.5).astype(np.uint8))
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture, outlines, -1, OUTLINE, _stroke(rgb))


def overlay_objects(rgb: np.ndarray, masks: Mapping[int, np.ndarray]) -> np.ndarray:
    """Every object in its own colour, with its id written where it is widest. One object alone needs neither: it is
    drawn as `overlay_mask` does.

    rgb: uint8 [H, W, 3]; masks: id -> bool [H, W]. Returns uint8 [H, W, 3]. Raises ValueError when the sizes differ.
    """
    if len(masks) == 1:
        return overlay_mask(rgb, next(iter(masks.values())))
    picture = rgb
    for identity, mask in masks.items():
        picture = overlay_mask(picture, mask, id_colour(identity))
    for identity, mask in masks.items():  # after all tints, so that no label is tinted
        if mask.any():
            draw_label(picture, str(identity), label_position(mask, 10 + 4 * _stroke(rgb)), id_colour(identity))
    return picture


def label_position(mask: np.ndarray, room: int) -> tuple[int, int]:
    """(x, y) for the middle of a label: the pixel of a mask, bool [H, W], that lies farthest from its edge and the
    picture's; above the mask where that is less than `room` pixels from it, so that no label hides its object."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    x, y = int(column) - 1, int(row) - 1
    return (x, y) if depth[row, column] >= room else (x, int(np.flatnonzero(mask.any(axis=1))[0]) - room)


def draw_label(picture: np.ndarray, text: str, centre: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Draws text on a dark box around `centre`, moved inside the picture, in place into uint8 [H, W, 3]."""
    font, size, pad = cv2.FontFace("sans"), 10 + 4 * _stroke(picture), 3
    _, _, width, height = cv2.getTextSize((1, 1), text, (0, 0), font, size, 700)
    x, y = (
        max(pad, min(middle - extent // 2, limit - extent - pad))
        for middle, extent, limit in zip(centre, (width, height), picture.shape[1::-1], strict=True)
    )
    cv2.rectangle(picture, (x - pad, y - pad), (x + width + pad, y + height + pad), (0, 0, 0), -1)
    cv2.putText(picture, text, (x, y + height), colour, font, size, 700)


def depth_peak(depth: np.ndarray) -> float:
    """99th percentile of a depth map's finite values, on every second pixel; its maximum over a clip is `nearest` of
    `depth_image`."""
    values = depth[::2, ::2]
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 99)) if len(values) else 0.0


def depth_image(depth: np.ndarray, nearest: float) -> np.ndarray:
    """Colours of a depth map, at one scale for the whole clip: dark violet is far, bright yellow is near.

    Matplotlib's inferno, as OpenCV ships it: its lightness rises evenly, so it reads the same in grey.
    depth: float [H, W], relative inverse depth, larger is nearer; non-finite values are drawn grey.
    nearest: what has the brightest colour, e.g. the clip's largest `depth_peak`; larger values are cut to it, and
    0 draws all black. Returns uint8 [H, W, 3].
    """
    known = np.isfinite(depth)
    share = np.where(known, depth, 0) / max(float(nearest), 1e-6)
    levels = (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    picture[~known] = 128
    return picture


def depth_bar(width: int = 96, height: int = 16) -> np.ndarray:
    """The legend of `depth_image`, far on the left: uint8 [height, width, 3]."""
    return depth_image(np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1)), 1.0)


def flow_peak(flow: np.ndarray) -> float:
    """99th percentile of a field's vector lengths, in pixels; its maximum over a clip is `max_px` of `flow_image`. The
    longest vector is mostly an outlier at the border, and would leave the rest pale."""
    length = np.hypot(flow[..., 0], flow[..., 1])
    length = length[np.isfinite(length)]
    return float(np.percentile(length, 99)) if len(length) else 0.0


@cache
def colour_wheel() -> np.ndarray:
    """HUES colours of the wheel, from its first to its last: float32 [HUES, 3]."""
    corners, colours = zip(*WHEEL, strict=True)
    place = np.linspace(0, corners[-1] - 1, HUES)
    channels = [np.interp(place, corners, channel) for channel in zip(*colours, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def flow_image(flow: np.ndarray, max_px: float) -> np.ndarray:
    """Colours of a flow field, at one scale for the whole clip: hue is direction, saturation is length.

    The wheel of Baker et al. (A Database and Evaluation Methodology for Optical Flow, IJCV 2011), as torchvision's
    `flow_to_image` has it, which scales each image by its own longest vector. Here a vector of `max_px` pixels is
    always the full colour, longer ones are cut to it, and zero is white.

    flow: float [H, W, 2] in pixels, (right, down); non-finite vectors are drawn black.
    max_px: length of the full colour in pixels, e.g. the clip's largest `flow_peak`; 0 draws all white.
    Returns uint8 [H, W, 3].
    """
    # Of our own, as importing torchvision for it took longer than all the rest of a short edit.
    unknown = ~_finite(flow)
    right, down = np.moveaxis(np.where(unknown[..., None], 0, flow).astype(np.float32), -1, 0)
    length = np.minimum(np.hypot(right, down) / max(float(max_px), 1e-6), 1)
    turn = np.arctan2(-down, -right) * np.float32(0.5 / np.pi) + np.float32(0.5)  # 0 to 1
    missing = (255 - colour_wheel()).take((turn * (HUES - 1)).astype(np.intp), axis=0)
    picture = (255 - length[..., None] * missing).astype(np.uint8)
    picture[unknown] = 0
    return picture


def flow_wheel(size: int = 64) -> np.ndarray:
    """The legend of `flow_image`: uint8 RGBA [size, size, 4], the colour of each direction and length."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    field = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.hypot(field[..., 0], field[..., 1]) <= 1
    return np.dstack([flow_image(field, 1.0), np.where(inside, 255, 0).astype(np.uint8)])


def draw_tracks(rgb: np.ndarray, trail: np.ndarray, visible: np.ndarray, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Draws each point where it is now, with the path it came along.

    rgb: uint8 [H, W, 3].
    trail: float [k, P, 2], (x, y) in pixels of `rgb` over the last k frames, oldest first, k >= 1;
        non-finite positions are skipped.
    visible: bool [k, P]; a segment is drawn where both its ends are visible, a hidden point now is a ring.
    ids: P integers; a point keeps its colour as long as it keeps its id.
    Returns uint8 [H, W, 3]. Raises ValueError when the shapes disagree.
    """
    steps, points = trail.shape[:2]
    if steps < 1 or trail.shape != (steps, points, 2) or visible.shape != (steps, points) or len(ids) != points:
        raise ValueError(f"trail {trail.shape}, visible {visible.shape} and {len(ids)} ids do not fit together")
    picture, stroke = rgb.copy(), _stroke(rgb)
    known = _finite(trail)
    seen = known & visible
    colours = [id_colour(int(identity)) for identity in ids]
    # cv2 draws at 1/16 px; far-away positions are cut so that they fit its integers.
    fixed = np.rint(np.clip(np.where(known[..., None], trail, 0), -1e4, 1e4) * 16).astype(int)
    for age in range(steps - 1):
        strength = 0.25 + 0.75 * (age + 1) / (steps - 1)  # older is darker
        for p in np.flatnonzero(seen[age] & seen[age + 1]).tolist():
            colour = tuple(int(c * strength) for c in colours[p])
            cv2.line(picture, fixed[age, p].tolist(), fixed[age + 1, p].tolist(), colour, stroke, cv2.LINE_AA, 4)
    for p in np.flatnonzero(known[-1]).tolist():
        centre, colour = fixed[-1, p].tolist(), colours[p]
        if visible[-1, p]:
            cv2.circle(picture, centre, (2 * stroke + 1) * 16, (0, 0, 0), -1, cv2.LINE_AA, 4)
            cv2.circle(picture, centre, 2 * stroke * 16, colour, -1, cv2.LINE_AA, 4)
        else:
            cv2.circle(picture, centre, (2 * stroke + 1) * 16, colour, 1, cv2.LINE_AA, 4)
    return picture


def draw_moved(
    rgb: np.ndarray, source: np.ndarray, edited: np.ndarray, ids: Sequence[int] | np.ndarray, hidden: np.ndarray
) -> np.ndarray:
    """Draws where points shall be, with a line from where they are; a cross where one is taken away.

    rgb: uint8 [H, W, 3]. source, edited: float [P, 2], (x, y) in pixels of `rgb`. ids: P integers, of the colours.
    hidden: bool [P].
    Returns uint8 [H, W, 3].
    """
    picture, stroke = rgb.copy(), _stroke(rgb)
    ends = np.rint(np.clip(np.stack([source, edited]), -1e4, 1e4) * 16).astype(int)
    moved = np.abs(ends[1] - ends[0]).max(-1, initial=0) >= 16  # by a pixel
    for p in range(len(ids)):
        colour = id_colour(int(ids[p]))
        if hidden[p]:
            at = np.rint(ends[0, p] / 16).astype(int).tolist()
            cv2.drawMarker(picture, at, colour, cv2.MARKER_TILTED_CROSS, 6 * stroke, stroke, cv2.LINE_AA)
            continue
        if moved[p]:
            dark = tuple(c // 2 for c in colour)
            cv2.line(picture, ends[0, p].tolist(), ends[1, p].tolist(), dark, stroke, cv2.LINE_AA, 4)
        cv2.circle(picture, ends[1, p].tolist(), (2 * stroke + 1) * 16, (0, 0, 0), -1, cv2.LINE_AA, 4)
        cv2.circle(picture, ends[1, p].tolist(), 2 * stroke * 16, colour, -1, cv2.LINE_AA, 4)
    return picture


def id_colour(identity: int) -> tuple[int, int, int]:
    """A bright RGB colour for an id; neighbouring ids lie a golden angle of hue apart."""
    red, green, blue = colorsys.hsv_to_rgb(identity * 0.6180339887 % 1.0, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def scale_points(xy: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Positions [..., 2] on another grid: (x + 0.5) * s - 0.5 for the two factors `scale` = (sx, sy)."""
    return (xy + 0.5) * np.asarray(scale, dtype=xy.dtype) - 0.5


def tile_size(width: int, height: int, longest: int = 640) -> tuple[int, int]:
    """(width, height) of a tile for frames of that size: no larger, both sides multiples of 8, at least 16.

    The rounding bends the shape by a per cent or two; the page shows tiles at the frame's own shape.
    """
    scale = min(1.0, longest / max(width, height))
    fit = [max(16, round(side * scale / _TILE_STEP) * _TILE_STEP) for side in (width, height)]
    return fit[0], fit[1]


def columns_for(count: int) -> int:
    """Columns of a mosaic of `count` tiles that keep it roughly as wide as it is high."""
    return 1 if count <= 1 else 2 if count <= 4 else 3


def mosaic(tiles: Sequence[np.ndarray | None], tile_size: tuple[int, int], columns: int) -> np.ndarray:
    """Packs tiles row by row into one frame; the page cuts them out again.

    tiles: uint8 [h, w, 3] of any size, resampled to fill the tile (area averaging when shrinking, cubic when
        growing); None leaves the tile grey, as for the flow of a clip's last frame.
    tile_size: (width, height), even. Returns uint8 [rows * height, columns * width, 3].
    """
    width, height = tile_size
    if width % 2 or height % 2 or columns < 1 or not tiles:
        raise ValueError(f"a mosaic needs tiles, columns and even tile sizes, got {tile_size} x {columns}")
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * height, columns * width, 3), BACKDROP, np.uint8)
    for index, tile in enumerate(tiles):
        if tile is not None:
            tile_view(canvas, index, tile_size, columns)[:] = resize_to(tile, tile_size)
    return canvas


def tile_view(mosaic: np.ndarray, index: int, tile_size: tuple[int, int], columns: int) -> np.ndarray:
    """The view of tile `index` in a mosaic frame: uint8 [height, width, 3]."""
    (width, height), (row, column) = tile_size, divmod(index, columns)
    return mosaic[row * height : (row + 1) * height, column * width : (column + 1) * width]


def resize_to(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture or field resampled to exactly `size` = (width, height); the same object when it has it already."""
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    shrinks = size[0] <= rgb.shape[1] and size[1] <= rgb.shape[0]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _finite(xy: np.ndarray) -> np.ndarray:
    return np.isfinite(xy[..., 0]) & np.isfinite(xy[..., 1])


def _stroke(rgb: np.ndarray) -> int:
    return max(1, round(min(rgb.shape[:2]) / 360))
