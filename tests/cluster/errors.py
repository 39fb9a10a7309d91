"""Reasons for which a scenario does not pass."""


class ScenarioError(Exception):
    """The cluster did not do what the scenario expects; `output` helps to find the cause."""

    def __init__(self, reason: str, output: str = "") -> None:
        """`reason` is one line."""
        super().__init__(reason)
        self.output = output


class CommandError(ScenarioError):
    """A command on a host ended with an unexpected code, or too late."""


class UnavailableError(Exception):
    """The machine lacks something that the scenario needs."""
