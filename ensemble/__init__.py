"""Select an ensemble from a pool of predictions, distill it into one student, score them all."""
