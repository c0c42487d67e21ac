"""A study file, read and checked: what is searched, and what a trial is worth."""
