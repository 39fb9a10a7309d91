"""Explanations of a net's answers: confusions, examples, heat maps, attention weights."""
