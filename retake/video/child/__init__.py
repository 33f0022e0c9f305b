"""What runs in the child process alone: everything that parses a file which may be anything.

__main__     serves requests (`python -m retake.video.child PARENT_PID`), one at a time
probe        what a clip is: container, stream, first frame, and whether the file is whole
decode       frames in order; `beside` makes good what decord does not read as PyAV does
encode, tag  an MP4, and its comment
image        still pictures
"""
