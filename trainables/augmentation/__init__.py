"""Augmentation in batches on the training device, with a draw per image."""
