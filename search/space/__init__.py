"""The YAML specification of a sweep and its typed, conditional search space."""
