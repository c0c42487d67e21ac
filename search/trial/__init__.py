"""One trial, from recipe to measurement, kept step by step."""
