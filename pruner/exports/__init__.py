"""Export: the pickle of stock classes that is handed in, and other file formats."""
