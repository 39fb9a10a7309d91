"""The certificate of an ensemble's weights, in sentences for the report and the terminal."""

from common.formats import fixed, two_digits
from ensemble.selection.certificate import Optimality
from ensemble.selection.selection import Selection


def certificate_sentences(selection: Selection) -> tuple[str, ...]:
    """Say how much other weights could lower the NLL on holdout, after and before calibration."""
    certificate = selection.certificate
    bounds = (
        f"no reweighting lowers the NLL by more than {two_digits(selection.gap_support)} nats with "
        f"these members, or {two_digits(selection.gap_pool)} with the whole pool"
    )
    if certificate is None:
        return (f"Certificate: on holdout, before the temperature, {bounds}.", LIMITS)
    return (
        f"Certificate: the ensemble's NLL on holdout is {fixed(certificate.nll, 4)}, in sample. "
        "Against the optimal weights, each after its own temperature, it loses "
        f"{_excess(certificate.support)} with these members and {_excess(certificate.pool)} with "
        "the whole pool; those weights are optimal before the temperature, to within "
        f"{two_digits(max(certificate.support.gap, certificate.pool.gap))} nats.",
        f"The bounds at the chosen weights are wider: before the temperature and for raw "
        f"probabilities, {bounds}.",
        LIMITS,
    )


LIMITS = "This certifies the optimization on holdout, not the generalization to new images."


def _excess(optimality: Optimality) -> str:
    if optimality.excess < 0:
        return f"nothing (it is {two_digits(-optimality.excess)} nats better)"
    return f"{two_digits(optimality.excess)} nats"
