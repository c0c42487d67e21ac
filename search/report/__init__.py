"""Figures, the HTML report, and images, all made from records."""
