"""Ablations: a recipe trained without each of its factors in turn."""
