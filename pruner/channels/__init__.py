"""Channel pruning: which channels stay, cutting the others, and reconstruction."""
