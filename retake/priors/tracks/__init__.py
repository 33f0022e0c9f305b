"""Tracks: points followed through the clip. Beside what every prior states (retake/priors) a module follows points and
has

    gray(frame) -> what `step` compares, of a frame uint8 RGB [H, W, 3]
    lay(frame, region, params, existing, meta) -> float32 [P, 2], new points beside the existing ones
    step(before, after, xy, params, region) -> (float32 [P, 2], bool [P]): places one frame on, and which were found

Places are (x, y) in working pixels; region is bool [H, W] or None, meta that of the frames artifact. `step` runs in
both directions of time. Params then has the fields `queries`, `frame` and `reseed`, which the stage reads. Or a module
reads tracks that exist and has

    tracks(params, meta) -> PointTracks (retake/exchange/tracks.py)

whose `ids` are int64 [P], ascending, and whose `blocks()` yields (xy float32 [n, P, 2], NaN where unknown, visible
bool [n, P]) of 16 frames each.
"""
