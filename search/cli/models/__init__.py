"""The commands that take a network's file and no study."""
