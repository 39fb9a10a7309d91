"""Start Ray safely for the length of a sweep, or join a cluster.

A private Ray listens on the loopback address only, with a token that only this process and its
children know. It sends no usage reports. Its workers do not run in the user's working
directory, where they might import a user's package named `search` or `analysis` instead of
ours.
"""

import gc
import logging
import os
import secrets
import site
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path

import ray
from ray._private import services
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

import trainables
from common.cpu_runtime import usable_cores
from common.errors import RunError

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Otherwise Ray warns that it will leave CUDA_VISIBLE_DEVICES alone in the future.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Otherwise two idle workers that no trial uses would start and import Ray.
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The driver handles Ctrl-C: Tune would swallow it and clean up for many seconds.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's own snapshots are never read: a resume starts from the journal.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # The searcher limits the trials at a time; those that it hands over may all wait for nodes.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

SET_BY_RAY = ("RAY_AUTH_MODE", "PYTHONBREAKPOINT")
"""Variables that ray.init sets in the environment."""

QUIET = ("ray", "ray.tune", "ray.train", "ray.data")
"""Loggers that are silenced."""


@contextmanager
def ray_session(
    *,
    address: str | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
    folder: Path | None = None,
    object_store_bytes: int = 100_000_000,
    init: Callable[..., object] = ray.init,
) -> Iterator[None]:
    """Run Ray until the end of the block.

    Without `address`, start a private Ray on this machine with `cpus` (by default all usable
    cores) and `gpus` (by default all). With `address` ("auto" or host:port), join a running
    cluster and leave it running. If the caller has started Ray, use it and leave it running.
    Workers inherit `folder` (the run's) as their working directory. `object_store_bytes` is at
    least 80 MB; `init` starts or joins Ray.

    Raises:
        RunError: there is no cluster at `address`.
    """
    if ray.is_initialized():
        with _environment(ENVIRONMENT), _quiet():
            yield
        return
    local = address is None
    away = nullcontext() if folder is None else chdir(folder)
    values = {**ENVIRONMENT, **_python_path(), **(_token() if local else {})}
    with _own_authentication(), _environment(values), _quiet():
        with away, _loopback() if local else _joining(address):
            init(
                address="local" if local else address,
                include_dashboard=False if local else None,
                num_cpus=(cpus or usable_cores()) if local else None,
                num_gpus=gpus if local else None,
                object_store_memory=max(object_store_bytes, 80_000_000) if local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1" if local else None,
            )
        try:
            yield
        finally:
            # Tune's objects refer to each other and to objects of Ray. If another thread freed them
            # while Ray shuts down, Ray would end this process (seen once in some hundred sweeps).
            gc.collect()
            ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and its children; restore the old ones at the end."""
    old = {key: os.environ.get(key) for key in (*values, *SET_BY_RAY)}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in old.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray's loggers: failures are journalled and logged by us in one line."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _loopback() -> Iterator[None]:
    """Make Ray listen on 127.0.0.1 only, and contact no other machine.

    ray.init replaces a loopback address with the machine's own, so that other machines can
    reach it; here they must not. Without a dashboard it still starts the API server for the
    usage reporter, which asks the metadata services of three clouds even when reporting is off.
    Nothing else needs that server.
    """
    resolve, serve = services.resolve_ip_for_localhost, services.start_api_server
    services.resolve_ip_for_localhost = lambda host: host
    services.start_api_server = lambda *_, **__: ("", None)  # no address, no process
    try:
        yield
    finally:
        services.resolve_ip_for_localhost, services.start_api_server = resolve, serve


@contextmanager
def _joining(address: str | None) -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"no Ray cluster at {address!r} ({reason}); start one with `ray up cluster.yaml`, "
            "or leave out --address"
        ) from None


def _token() -> dict[str, str]:
    """Return a token for Ray, which would otherwise write one to the user's home folder."""
    if os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _own_authentication() -> Iterator[None]:
    """Clear Ray's cached authentication mode and token afterwards.

    Otherwise Ray would reuse this session's token when it later joins another cluster.
    """
    try:
        yield
    finally:
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _python_path() -> dict[str, str]:
    """Return the path on which workers find our packages when they run from a checkout."""
    root = Path(trainables.__file__).resolve().parent.parent
    if str(root) in (*site.getsitepackages(), site.getusersitepackages()):
        return {}
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
