"""Figures, the HTML report, and images, all drawn from records."""
