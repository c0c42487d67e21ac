"""What is stored of a study, in its database and on disk, and who may change it."""
