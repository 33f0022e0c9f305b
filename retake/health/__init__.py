"""Whether masks can be trusted, told from the clip itself: no truth is needed.

signals.py   what a frame shows: does the outline follow edges, are the colours inside others than around it, ...
watch.py     signals gathered over a clip
verdict.py   what they come to: good, frames to look at, probably wrong
"""
