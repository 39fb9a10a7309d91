"""Tests that every sampler passes.

class TestMySampler(SamplerContract):
    def make(self, state: RunState) -> Sampler:
        return MySampler(state, trials=self.TRIALS)
"""

from collections.abc import Callable, Iterable

from journal.events import Cause, EpochEnded, Event, RunStarted, Status, TrialEnded, TrialStarted
from journal.state import RunState
from search.samplers.suggestions import Sampler, Suggestion


class SimulatedRun:
    """A run in memory: a sampler, and the state that it learns from."""

    def __init__(self, make: Callable[[RunState], Sampler], events: Iterable[Event] = ()) -> None:
        """Fold `events` first, as a resumed run does; a new run starts without any."""
        self.events = list(events) or [RunStarted(run="simulated", spec={}, time=0.0)]
        self.state = RunState.from_events(self.events)
        self.sampler = make(self.state)

    def emit(self, event: Event) -> None:
        """Fold an event and pass it to the sampler."""
        self.state.apply(event)
        self.events.append(event)
        self.sampler.observe(event)

    def start(self) -> Suggestion | None:
        """Start the sampler's next trial, if there is one."""
        suggestion = self.sampler.next()
        if suggestion is not None:
            self.emit(
                TrialStarted(
                    trial=suggestion.trial,
                    number=suggestion.number,
                    kind=suggestion.kind,
                    recipe=suggestion.recipe.to_mapping(),
                    seed=suggestion.seed,
                    attempt=suggestion.attempt,
                    time=0.0,
                )
            )
        return suggestion

    def score(self, trial: str, rung: int, val_nll: float | None) -> None:
        """Score a trial at a rung."""
        step = self.state.trials[trial].step + 1
        self.emit(
            EpochEnded(trial=trial, step=step, epoch=rung, rung=rung, val_nll=val_nll, time=0.0)
        )

    def end(self, trial: str, status: Status, cause: Cause | None = None) -> None:
        """End a trial."""
        kind = self.state.trials[trial].kind
        self.emit(TrialEnded(trial=trial, kind=kind, status=status, cause=cause, time=0.0))


class SamplerContract:
    """Tests of a sampler; subclass it and define `make`."""

    TRIALS = 3
    """Trials that the sampler hands out in all."""

    def make(self, state: RunState) -> Sampler:
        """Return a new sampler of TRIALS trials that follows `state`."""
        raise NotImplementedError

    def test_each_trial_is_handed_out_once(self) -> None:
        """Then the sampler has no more, however often it is asked."""
        run = SimulatedRun(self.make)
        names = [suggestion.trial for _ in range(self.TRIALS) if (suggestion := run.start())]
        assert len(set(names)) == self.TRIALS
        assert list(run.state.trials) == names
        assert [run.sampler.next(), run.sampler.next()] == [None, None]
        assert not run.sampler.more

    def test_a_trial_without_time_is_left_for_later(self) -> None:
        """It is the next one again; others that fit may be handed out before it."""
        run = SimulatedRun(self.make)
        assert run.sampler.next(lambda _: False) is None
        assert run.sampler.more
        assert list(run.state.trials) == []
        assert len([run.start() for _ in range(self.TRIALS)]) == self.TRIALS
        resumed = SimulatedRun(self.make, run.events)
        first, *_ = run.state.trials
        later = resumed.sampler.next(lambda trial: trial is not None and trial.trial != first)
        assert later is not None
        assert later.trial != first
        left = [suggestion.trial for _ in range(self.TRIALS) if (suggestion := resumed.start())]
        assert left[0] == first
        assert len(left) == self.TRIALS - 1

    def test_a_trial_that_is_taken_back_is_left_again(self) -> None:
        """Its name is handed out again, before and after a resume, and no trial is lost."""
        run = SimulatedRun(self.make)
        taken = run.sampler.next()
        assert taken is not None
        run.sampler.take_back(taken)
        names = [suggestion.trial for _ in range(self.TRIALS) if (suggestion := run.start())]
        assert names[0] == taken.trial
        assert len(set(names)) == self.TRIALS
        resumed = SimulatedRun(self.make, run.events)
        unfinished = resumed.sampler.next()
        assert unfinished is not None
        resumed.sampler.take_back(unfinished)
        again = [s.trial for _ in range(self.TRIALS) if (s := resumed.start())]
        assert again == names

    def test_new_trials_start_afresh_with_seeds_of_their_own(self) -> None:
        """The first attempt has no checkpoint to resume from."""
        run = SimulatedRun(self.make)
        suggestions = [s for _ in range(self.TRIALS) if (s := run.start())]
        assert {(s.attempt, s.checkpoints) for s in suggestions} == {(1, ())}
        assert len({s.seed for s in suggestions}) == self.TRIALS
        assert len({s.number for s in suggestions}) == self.TRIALS

    def test_after_a_resume_unfinished_trials_come_first(self) -> None:
        """No finished trial comes again, and the number of trials stays."""
        run = SimulatedRun(self.make)
        first, second = run.start(), run.start()
        assert first is not None
        assert second is not None
        run.end(first.trial, "failed")
        resumed = SimulatedRun(self.make, run.events)
        again = resumed.start()
        assert again is not None
        assert (again.trial, again.attempt, again.seed) == (second.trial, 2, second.seed)
        assert again.recipe == second.recipe
        later = [s.trial for _ in range(self.TRIALS) if (s := resumed.start())]
        assert len(later) == self.TRIALS - 2
        assert first.trial not in later

    def test_a_rebuilt_sampler_continues_as_the_live_one(self) -> None:
        """The next suggestion follows from the run's state alone."""
        run = SimulatedRun(self.make)
        first = run.start()
        assert first is not None
        run.score(first.trial, first.recipe.schedule.epochs, 0.5)
        run.end(first.trial, "completed")
        resumed = SimulatedRun(self.make, run.events)
        assert resumed.start() == run.start()

    def test_it_accepts_every_outcome(self) -> None:
        """Scores that are not finite, and trials without any score, included."""
        outcomes: list[tuple[Status, float | None]] = [("failed", None), ("pruned", None)]
        run = SimulatedRun(self.make)
        for status, val_nll in outcomes:
            suggestion = run.start()
            assert suggestion is not None
            run.score(suggestion.trial, 1, val_nll)
            run.end(suggestion.trial, status)
        assert run.start() is not None
