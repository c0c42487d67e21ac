"""One study file, several searches: each goes on from the networks that the one before left."""
