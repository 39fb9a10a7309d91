"""Formatting of numbers, durations and names, shared by terminal, figures and report."""
