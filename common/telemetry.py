"""Nothing that we use tells anybody that it is used.

Ray, MLflow and the Hugging Face hub (a dependency of timm) would report to their makers
unless told otherwise; Optuna, torch, torchvision and the ONNX tools do not.
"""

import os

OFF = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Read by the libraries when they are imported; processes that we start inherit it."""


def report_nothing() -> None:
    """Turn the telemetry of all libraries off, for this process and those that it starts."""
    os.environ.update(OFF)
