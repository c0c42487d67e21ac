"""One trial, from recipe to measurement, saved step by step."""
