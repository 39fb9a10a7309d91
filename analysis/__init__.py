"""Tables, figures, explanations, the report."""
