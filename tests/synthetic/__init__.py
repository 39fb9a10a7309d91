"""Runs made up without training: real files, invented numbers."""
