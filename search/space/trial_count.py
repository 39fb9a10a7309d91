"""The number of trials that gives an ensemble enough to be chosen from.

With R rungs and reduction factor η, about one trial in η^(R−1) is trained to the last rung. The
pool holds these and the trials stopped one rung earlier, which also had a cooldown and so a whole,
shorter schedule: together about one in η^(R−2).
"""

from common.formats import plural

POOL_PER_MEMBER = 3
"""Trials in the pool per member of the ensemble; fewer leave little to choose from."""

DEFAULT_TRIALS = 24
"""Smallest number of trials if the sweep sets none: with fewer, TPE learns little."""


def enough_trials(members: int, *, rungs: int, reduction_factor: int) -> int:
    """Return the smallest number of trials that is enough to choose `members` members from.

    On average at least `members` of them are trained to the last of `rungs` rungs, and at least
    POOL_PER_MEMBER times as many get into the pool.
    """
    if rungs == 1:
        return POOL_PER_MEMBER * members
    trials_per_pool_member: int = reduction_factor ** (rungs - 2)
    return members * trials_per_pool_member * max(POOL_PER_MEMBER, reduction_factor)


def pool_note(trials: int, members: int, *, rungs: int, reduction_factor: int) -> str | None:
    """Return a sentence for the user if `trials` are too few for a choice of `members`, or None."""
    enough = enough_trials(members, rungs=rungs, reduction_factor=reduction_factor)
    if trials >= enough:
        return None
    finished = trials / reduction_factor ** (rungs - 1)
    pool = trials / reduction_factor ** max(0, rungs - 2)
    fewer_rungs = rungs > 1 and enough > enough_trials(
        members, rungs=rungs - 1, reduction_factor=reduction_factor
    )
    are = "is" if trials == 1 else "are"
    return (
        f"{plural(trials, 'trial')} {are} too few to choose {plural(members, 'member')} from: on "
        f"average {pool:.3g} get into the pool and {finished:.3g} to the last rung, where "
        f"{POOL_PER_MEMBER * members} and {members} are needed; set trials to at least {enough}"
        + (", or use fewer rungs" if fewer_rungs else "")
    )
