"""Many trials at once: workers, the pool that supervises them, and what they report."""
