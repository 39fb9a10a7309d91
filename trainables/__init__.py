"""One trial: from a recipe to a record."""
