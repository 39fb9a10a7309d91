"""Terminal output: the live display, status, and the tables that commands print."""
