"""Metrics. One file each; a name in `metrics.names` is a file here, its settings are the entry of its name in
params/metrics/, and no line of code changes. (default.yaml and all.yaml hold the entries; all.yaml also lists what
`metrics=all` computes.)

A metric module states

    VERSION        raised by hand when its numbers change for equal inputs
    NEEDS          names of the priors it reads, of "optical_flow", "masks", "region" and "tracks"; what was not
                   made is None
    DESCRIPTIONS   value name -> (what it is and in which unit, "lower" or "higher": which is better, or "":
                   neither is, it tells what to make of others); no two metrics share a value name
    Params         a frozen pydantic model with a default for every field, and the metric's name in the field `name`;
                   fields that hold a path are marked `file`, those that hold weights `weights`
    Metric(params, **networks)   takes a clip frame by frame, see below
    weights(params) -> {role: reference}   optional: the weights that these settings use
    networks(params) -> {role: network}    with weights: what Metric is given, loaded from local weights; raises
                                           MachineError E302 when they are missing
    without(params, roles) -> Params       optional: the settings without those roles, whose weights are missing; value
                                           names then begin with their role. Else nothing is measured without weights
    OF_A_DATASET   optional: why a clip has no number, where only a dataset has one

A Metric has

    update(sample)   called for every frame, in order. A Sample (common/sample.py) has
                         t             the frame's number, from 0
                         source        uint8 [H, W, 3], RGB, the frame at working size
                         result        uint8 [H, W, 3], the same frame of the result, resized to working size
                         region        bool [H, W], True = edited, or None
                         flow          float32 [H, W, 2], x and y in pixels, the source's motion from t-1 to t on the
                                       grid of t-1, or None
                         backward      float32 [H, W, 2], the same from t to t-1 on the grid of t, or None
                         fps           frames a second, or None
                         tracks        xy float32 [N, P, 2] in pixels and visible bool [N, P], points of the source over
                                       the N frames from t on, where such a window begins; None at all other frames
                         objects       bool [H, W] by object id, where "masks" are read
                         scale         pixels of H x W a pixel of the clip, across and down
                     A metric keeps what it needs of earlier frames, never the clip.
    result()         a Result (common/sample.py), or what has its methods:
                         summary()     value name -> number for the clip, NaN where there is none
                         per_frame()   value name -> {frame: number}; the value of a pair stands at its first frame
                         reasons()     value name -> why the clip has no number
                         files()       file name -> content, of what is kept beside the numbers
    networks()       optional: value name -> name of the network that it comes from

Values are float, in the unit that DESCRIPTIONS gives. Modules import nothing heavy at the top: a plan reads VERSION,
NEEDS and Params of all of them.
"""
