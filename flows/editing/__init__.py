"""One clip: edit it, look at a frame of it, score a result, hand files out, list what was made."""
