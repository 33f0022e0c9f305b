"""Edited tracks: where the points of a clip shall be, beside where they are. Beside what every prior states
(retake/priors) a module has

    program(params) -> Program (retake/track_edits/program.py), which the stage does to the tracks

or reads edited tracks that exist and has

    tracks(params, meta) -> PointTracks (retake/exchange/tracks.py), by the ids of the clip's own tracks
"""
