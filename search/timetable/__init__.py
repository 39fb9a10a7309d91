"""What a time budget buys: costs, pace, plan, deadlines, forecast."""
