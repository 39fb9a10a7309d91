"""Labels, sentences and table cells of the ledger, shared by terminal, figures and report."""
