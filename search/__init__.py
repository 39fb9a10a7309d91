"""A sweep: search space, samplers, schedulers, timetable, Ray Tune, MLflow, ablations."""
