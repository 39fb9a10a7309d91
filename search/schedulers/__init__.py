"""Deciding which trials continue at a rung: ASHA."""
