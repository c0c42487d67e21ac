"""The stock-class pickle that is handed in, and the other file formats."""
