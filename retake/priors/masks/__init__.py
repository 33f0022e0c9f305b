"""Masks: where the objects are. Beside what every prior states (retake/priors) a module follows prompts and has

    tracker(params, size, state, reverse) -> Tracker (retake/priors/masks/prompt.py)

with Params derived from `Prompted`; size is (width, height) in working pixels, `state` what `Tracker.state` gave at the
end of the chunk before (None: start at the prompt), `reverse` that time runs backwards. A tracker's `begin`, `step` and
`correct` give masks bool [H, W] by object id, with `overlap` 0 to 1 (prompt.Followed). Or a module reads masks that
exist and has, with a field `path` among its Params,

    masks(path, params, count, size) -> iterator of {object id: bool [H, W]}, one for each of `count` frames

with the same ids on every frame; an object that is not there has an empty mask. prompt.py is shared code and no choice
of the settings: it states no VERSION.
"""
