"""MLflow: the mirror of a run and the model registry."""
