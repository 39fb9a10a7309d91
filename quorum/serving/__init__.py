"""Serve a classifier on this machine: a page for people, JSON for programs."""
