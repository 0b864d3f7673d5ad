"""Waiting for something to become true, never for time to pass."""

import time

from .paths import BUILD

# programs built with a sanitizer are several times slower
_PATIENCE = 4 if BUILD.name in ("asan", "tsan") else 1


def until(condition, what, seconds=10.0):
    """Calls condition() until it returns something true, and returns that; fails with `what` when the time is up."""
    deadline = time.monotonic() + seconds * _PATIENCE
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * _PATIENCE} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def stays(condition, what, seconds):
    """Asserts that condition() holds all the time; for proving that something does not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.01)
