"""Seeds of one configuration: those that were begun come first."""

from journal.history import History
from search.samplers.fixed import Seeds
from trainables.recipe import Recipe


def test_seeds_that_were_begun_come_first_and_none_comes_twice() -> None:
    history = History()
    recipe = Recipe(epochs=4)
    for name, number in (("s00", 0), ("s01", 1)):
        started = {"event": "trial_started", "trial": name, "number": number, "kind": "seed",
                   "recipe": recipe.to_mapping(), "seed": 7, "attempt": 1}  # fmt: skip
        history.apply(started)
    history.apply({"event": "trial_ended", "trial": "s00", "status": "completed"})
    found = Seeds(recipe=recipe, count=4, deadline=None).suggestions(history, root=0)
    assert [(one.trial, one.attempt) for one in found] == [("s01", 2), ("s02", 1), ("s03", 1)]
    assert len({one.seed for one in found}) == 3
