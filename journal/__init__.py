"""The append-only journal of a run and the state folded from it; no torch, no Ray."""
