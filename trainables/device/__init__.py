"""Measurements on the training device: data type, memory layout, threads, time per epoch."""
