"""Ablations: train a recipe without each of its factors in turn."""
