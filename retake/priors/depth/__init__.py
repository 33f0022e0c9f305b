"""Depth: how near everything is. Beside what every prior states (retake/priors) a module has

    maps(frames, flow, params, first=0) -> iterator of maps of frames first, first + 1, ...
    notes(params) -> list of str     optional: sentences for the report on how far the result can be trusted

frames: a series of uint8 RGB [H, W, 3] at working size; flow: the pairs between them (retake.formats.FlowSeries), None
unless NEEDS names optical_flow. A map is float32 [H, W], relative inverse depth: 0 is far, larger is nearer, without
unit, kept as float16 and therefore below 65504. A map must not depend on `first`.
"""
