"""One run, open for work: its folder, deadline and observers; listing and cleaning runs."""
