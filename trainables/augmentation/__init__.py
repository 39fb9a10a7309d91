"""Batched augmentation, drawn per image."""
