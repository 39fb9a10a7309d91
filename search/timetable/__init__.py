"""A run planned in time: capacity, pace, plan, deadlines, forecast, dry run."""
