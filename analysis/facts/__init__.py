"""The values that reports, figures and tables are computed from."""
