"""Weights of networks: which there are (catalogue.py), where they are on this machine (local.py), how to download them
(fetch.py). Nothing is downloaded unless `retake weights NAME` is asked to."""
