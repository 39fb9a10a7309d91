"""Where trials come from: Optuna samplers, fixed lists, seeds."""
