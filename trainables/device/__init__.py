"""Measurements on the training device: the fastest data type and layout, and time per epoch."""
