"""What the next trial samples, and when a trial is stopped early."""
