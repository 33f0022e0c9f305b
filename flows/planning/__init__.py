"""What a graph would do before it does it: time, memory, and why a stage runs again."""
