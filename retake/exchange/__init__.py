"""Files that other programs read and write: flow.py (.flo, KITTI PNG, npz), depth.py (PNG16, EXR, npy, npz), exr.py.

Input files are not trusted: sizes are checked before pixels are read, and nothing in a file is executed.
"""
