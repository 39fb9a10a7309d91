"""From a pool of predictions to one student."""
