"""Shared ground floor without torch and Ray: errors, files, parsing, seeds, provenance."""
