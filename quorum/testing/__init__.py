"""Contract tests that an implementation of a plug-in point can run."""
