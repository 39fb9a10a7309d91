"""A run planned in time: capacity, pace, fitting, plan, deadlines, forecast, dry run."""
