"""Sources of trials: Optuna samplers, fixed lists, seeds."""
