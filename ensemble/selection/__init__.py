"""Choosing and weighting an ensemble from a pool of predictions."""
