"""The shipped settings. A package, so that the params/config.yaml of a project can name it to Hydra:
pkg://retake.installed.params."""
