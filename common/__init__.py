"""Shared code free of torch and Ray: errors, files, locks, parsing, seeds, provenance."""
