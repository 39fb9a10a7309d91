"""Which trials continue at a rung: ASHA."""
