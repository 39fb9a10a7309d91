"""Metrics, calibration, confidence intervals and paired differences."""
