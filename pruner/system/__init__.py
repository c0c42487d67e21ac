"""Files, checkpoints, seeds, threads, and optional packages."""
