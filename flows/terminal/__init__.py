"""What a person types and reads: arguments, progress, exit codes."""
