"""Files, checkpoints, seeds, threads, and packages that may be absent."""
