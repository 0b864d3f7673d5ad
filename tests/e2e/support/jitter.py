"""With E2E_JITTER=1 (`make test-jitter`) system calls of what is tested take their time now and then, as on a busy machine: jitter.cpp."""

import functools
import os
import pathlib
import subprocess

from .paths import BUILD

ACTIVE = os.environ.get("E2E_JITTER") == "1"


def environment():
    return {"LD_PRELOAD": str(_library())} if ACTIVE else {}


@functools.cache
def _library():
    """Compiled once per process of tests; the last to rename it wins, and all are the same."""
    source, library = pathlib.Path(__file__).with_name("jitter.cpp"), BUILD / "jitter.so"
    made = BUILD / f"jitter.{os.getpid()}.so"
    subprocess.run(["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", made, source], check=True)
    made.replace(library)
    return library
