"""Whether a study's files and database agree, and bringing them together."""
