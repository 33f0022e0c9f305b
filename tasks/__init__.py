"""Stages: one a file. Each gathers its inputs, calls the library and hands back files; `version` is raised by hand."""
