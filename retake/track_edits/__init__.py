"""Edits of point tracks: where and when things shall move, said as data.

operators.py   what can be said: the operators, as models of JSON
program.py     a list of operators, from settings or a file
keys.py        key frames and easings
camera.py      global motion from one frame to another, fitted to points
evaluate.py    edited places of points, frame by frame
clip_source.py the tracks of a clip, and which object each of its points lies on
"""
