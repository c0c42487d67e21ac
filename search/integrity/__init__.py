"""Check whether a study's files and database agree, and repair them."""
