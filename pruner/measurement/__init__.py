"""What came out: accuracy, operations, bytes, latency."""
