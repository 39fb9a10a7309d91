"""Synthetic runs: real files with invented numbers, written without training."""
