"""Fine-grained pruning: masks of single weights, and sensitivity scans."""
