"""Study files, read and checked: what is searched, and how trials are scored."""
