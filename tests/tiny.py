"""A complete run that is small enough for a test: 4 trials of 1 or 2 epochs on digits."""

from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping

TINY = {
    "name": "tiny",
    "dataset": {"name": "digits"},
    "splits": {"counts": [400, 400, 400]},
    "trials": 4,
    "concurrent": 1,  # starting a worker takes longer than all its work
    "rungs": [1, 2],
    "reduction_factor": 2,
    "startup_trials": 2,
    "members": 2,
    "recipe": {"batch_size": 64, "flip": False, "width": 8, "optimizer": "adamw"},
    "space": {
        "adamw_lr": {"type": "float", "low": 2e-3, "high": 2e-2, "log": True},
        "attention": {"type": "categorical", "choices": ["se", "eca"]},
    },
    "gates": {"max_accuracy_loss": 0.5},  # two epochs are too few for the default margin
    "student": {
        "recipe": {"block": "plain", "activation": "relu", "epochs": 3},
        "license": "CC0-1.0",
    },
}


def tiny_spec() -> SweepSpec:
    return spec_from_mapping(TINY)
