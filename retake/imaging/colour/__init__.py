"""Colours: how a file's code values stand for them, and the picture that stages and models work on.

coding.py    what is known of a clip's code values: layout, depth, matrix, range, primaries, transfer
convert.py   code values to non-linear RGB and back, exact to a quarter of a level
view.py      the view: uint8 RGB with the primaries of BT.709; wide gamut is converted, HDR is tone-mapped
planes.py    planes as arrays: their names, their sizes, turned upright
recode.py    code values of one coding as those of another, for files that are written
"""
