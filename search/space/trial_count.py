"""The number of trials that gives an ensemble enough to be chosen from.

With R rungs and reduction factor η, about one trial in η^(R−1) is trained to the last rung. The
pool of the ensemble holds those and the trials that were stopped one rung before, about one in
η^(R−2): they have had a cooldown there, so theirs are whole schedules too, only shorter.
"""

from common.formats import count, plural

POOL_PER_MEMBER = 3
"""Trials in the pool for each member that the ensemble may have: fewer leave little choice."""

FEWEST_TRIALS = 24
"""Trials of a sweep that states no number, at least: with fewer, TPE learns little."""


def enough_trials(members: int, *, rungs: int, reduction_factor: int) -> int:
    """Return the smallest number of trials that give a choice of `members` members.

    As many as the members are trained to the last of `rungs` rungs, and the pool has
    POOL_PER_MEMBER times as many.
    """
    if rungs == 1:
        return POOL_PER_MEMBER * members
    halvings: int = reduction_factor ** (rungs - 2)
    return members * halvings * max(POOL_PER_MEMBER, reduction_factor)


def pool_note(trials: int, members: int, *, rungs: int, reduction_factor: int) -> str | None:
    """Return a sentence for the user if `trials` are too few for a choice of `members`, or None."""
    enough = enough_trials(members, rungs=rungs, reduction_factor=reduction_factor)
    if trials >= enough:
        return None
    finished = max(1, round(trials / reduction_factor ** (rungs - 1)))
    pool = max(1, round(trials / reduction_factor ** max(0, rungs - 2)))
    return (
        f"with {plural(rungs, 'rung')}, {plural(trials, 'trial')} give a pool of about "
        f"{count(pool)}, of which about {count(finished)} {'is' if finished == 1 else 'are'} "
        f"trained to the last rung; to choose up to {plural(members, 'member')} from, aim at "
        f"{count(POOL_PER_MEMBER * members)} and {count(members)}: set trials to {enough} or more, "
        "or use fewer rungs"
    )
