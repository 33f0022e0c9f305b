"""Code that runs in the child process only: everything that parses untrusted files.

__main__     serves requests (`python -m retake.video.child PARENT_PID`), one at a time
probe        what a clip is: container, stream, first frame, and whether the file is whole
decode       frames in order; decord_frames.py reads them with decord, checked against PyAV
encode, tag  an MP4, and its comment
image        still pictures
"""
