"""Predictions and costs of every stage of a run, and the ledger written from them."""
