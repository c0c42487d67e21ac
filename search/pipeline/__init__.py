"""One study file, several searches: each starts from the best networks of the previous one."""
