"""Weights of networks: which there are (catalogue.py), where they lie on this machine (local.py), how they are got
(fetch.py). Nothing is downloaded unless `retake weights NAME` is asked to."""
