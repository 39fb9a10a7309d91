"""The report, figures, terminal display and explanations."""
