"""Files that other programs read and write: flow.py (.flo, KITTI PNG, npz), depth.py (PNG16, EXR, npy, npz), exr.py.

A file that was given is not trusted: its size is known before its pixels are read, and nothing in it is executed.
"""
