"""The ledger's typed values, and the arithmetic that fills them from arrays of predictions."""
