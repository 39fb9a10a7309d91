"""Quorum: from a labelled image data set and a compute budget to one small classifier."""
