"""A sweep: spaces, suggestions, decisions, durability."""
