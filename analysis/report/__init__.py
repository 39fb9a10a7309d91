"""The PDF report: a Typst template and the sections that feed it."""
