"""The operator's tool, run as an operator runs it."""

import dataclasses
import hashlib
import json
import os
import subprocess

from .paths import BUILD

LLMCTL = BUILD / "llmctl"


@dataclasses.dataclass
class Result:
    status: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


def environment(**more):
    """Without what the developer's own shell says of databases and gateways."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "PG"))}
    return {**kept, **more}


def llmctl(*words, stdin="", env=None, status=0):
    """Runs it and asserts the exit status (None: any)."""
    assert LLMCTL.exists(), f"{LLMCTL} is not built; make build does"
    done = subprocess.run([str(LLMCTL), *map(str, words)], input=stdin, capture_output=True, text=True, timeout=60, check=False,
                          env=environment(**(env or {})))
    assert status is None or done.returncode == status, f"{words} ended with {done.returncode}, not {status}:\n{done.stdout}{done.stderr}"
    assert "Sanitizer" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def sha256(secret):
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
