"""What makes commands, runs, checkpoints and processes work. It works, and need not be read."""
