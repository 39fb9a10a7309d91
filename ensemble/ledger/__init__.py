"""The ledger: rows and differences from arrays of predictions."""
