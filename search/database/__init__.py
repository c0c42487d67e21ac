"""Reaching a study's database: its address, its connection, its locks, what may go wrong with it."""
