"""What a benchmark lacks is said in one sentence, before it begins."""

import glob
import importlib.util
import os
import pathlib
import shutil
import sys

MODULE = "ngx_http_llm_dispatch_module.so"


def need(build, *, built=(MODULE,), programs=("nginx",), packages=()):
    """Ends the program unless all is there: `built` in the directory `build`, `programs` in PATH (and where Debian has servers), Python's `packages`."""
    for name in built:
        if not (pathlib.Path(build) / name).exists():
            sys.exit(f"{pathlib.Path(build) / name} is not built: make build does it; --build names another directory.")
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *glob.glob("/usr/lib/postgresql/*/bin")])
    for name in programs:
        if not shutil.which(name, path=places):
            sys.exit(f"{name} is not installed: scripts/deps.sh build test bench does it on Debian.")
    for name in packages:
        if importlib.util.find_spec(name) is None:
            sys.exit(f"The Python package {name} is not installed: scripts/venv.sh makes .venv with it, then .venv/bin/python {sys.argv[0]}")
