"""The command line: words to calls, a module a group of commands."""
