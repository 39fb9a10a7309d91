"""Turn off the usage reports of the libraries in use.

Ray, MLflow and the Hugging Face hub (a dependency of timm) report usage by default;
Optuna, torch, torchvision and the ONNX tools do not report any.
"""

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables that the libraries read on import; child processes inherit them."""


def disable_telemetry() -> None:
    """Turn off the telemetry of all libraries, for this process and its children."""
    os.environ.update(TELEMETRY_OFF)
