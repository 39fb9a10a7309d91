"""Facts about a run, from which reports, figures and tables are made."""
