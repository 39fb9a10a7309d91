"""Matplotlib figures, one file per family, in one style."""
