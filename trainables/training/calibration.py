"""Fit a temperature to log-probabilities on the device that computed them.

Axes: N examples, K classes. Elements are float32 and sums float64, in chunks of rows. The results
agree up to rounding with `common.statistics.metrics`, which computes in float64 on the CPU.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.statistics.metrics import LOG_FLOOR
from common.statistics.temperature import minimizing_temperature, platt_smoothing

_CHUNK_VALUES = 1 << 18
"""Values of a chunk on the CPU: its temporaries stay in the cache."""
_DEVICE_CHUNK_VALUES = 1 << 26


class Calibration:
    """Log-probabilities of labelled examples, to be divided by a temperature."""

    def __init__(self, logp: Tensor, labels: Tensor) -> None:
        """`logp` is float32 [N, K] and `labels` int64 [N], both on the same device."""
        floored = logp.float().clamp(min=LOG_FLOOR)
        # The row's maximum is subtracted because exp needs precise values near 0, where float32
        # has them.
        self._scores = floored.sub_(floored.amax(dim=1, keepdim=True))
        self._true = self._scores.gather(1, labels[:, None])[:, 0].double()
        others = max(1, logp.shape[1] - 1)
        smoothing = platt_smoothing(len(logp))
        sums = torch.cat([part.sum(dim=1, dtype=torch.float64) for part in self._chunks()])
        target = (1 - smoothing) * self._true + smoothing * (sums - self._true) / others
        self._target = float(target.mean())
        """Mean score of the smoothed labels, which the loss subtracts."""

    def temperature(self) -> float:
        """Return the temperature of `common.statistics.metrics.fit_temperature`."""
        return minimizing_temperature(self._derivatives)

    def nll(self, temperature: float) -> float:
        """Return the mean NLL of log_softmax(logp / temperature), in nats, with metrics' floor."""
        totals = [(part / temperature).exp_().sum(dim=1).double().log_() for part in self._chunks()]
        scaled = self._true / temperature - torch.cat(totals)
        return float(-scaled.clamp(min=LOG_FLOOR).mean())

    def _derivatives(self, sharpness: float) -> tuple[float, float]:
        """Return the smoothed NLL's first and second derivative by sharpness, 1 / temperature."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._scores.device)
        for part in self._chunks():
            weights = (part * sharpness).exp_()
            total = weights.sum(dim=1)
            mean = weights.mul_(part).sum(dim=1) / total
            square = weights.mul_(part).sum(dim=1) / total
            variance = (square - mean.square()).clamp_(min=0)
            sums += torch.stack([mean.double().sum(), variance.double().sum()])
        slope, curvature = (sums / len(self._scores)).tolist()
        return slope - self._target, curvature

    def _chunks(self) -> Iterator[Tensor]:
        cpu = self._scores.device.type == "cpu"
        values = _CHUNK_VALUES if cpu else _DEVICE_CHUNK_VALUES
        rows = max(1, values // self._scores.shape[1])
        for start in range(0, len(self._scores), rows):
            yield self._scores[start : start + rows]
