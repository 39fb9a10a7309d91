"""What the terminal shows: the live display, tables and status."""
