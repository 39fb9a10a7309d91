"""Explanations of a network's predictions: confusions, examples, heat maps, attention weights."""
