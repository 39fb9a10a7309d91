"""Images that a network was not trained on: corrupted ones, and those of another data set."""
