"""What several test files and benchmarks need: the command line, small networks and clips, stores under fire.

A test file imports from here, never from another test file."""
