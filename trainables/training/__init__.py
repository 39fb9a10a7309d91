"""The training loop: schedule, optimizers, losses, moving average, checkpoints."""
