#!/usr/bin/env bash
# Makes .venv with the Python packages of the end-to-end tests, or brings it up to date with tests/requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/requirements.txt
optional=tests/requirements-optional.txt
# its programs name their directory, and their packages the version of Python: a checkout that was moved needs a new one
works() { .venv/bin/pip --version >/dev/null 2>&1; }
cmp -s <(cat tests/requirements.txt "$optional") "$stamp" && works && exit 0

echo "== Installing the Python packages of the tests into .venv"
# Debian's own python3, whose venv module scripts/deps.sh installed; another one first in PATH may lack it.
works || rm -rf .venv/*
/usr/bin/python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt || {
    echo "The Python packages of the tests could not be installed (pip says why above). Without the internet: PIP_INDEX_URL names another index." >&2
    exit 1
}
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$optional" || {
    echo "Not there, and the tests that need them are skipped: $(grep -v '^#' "$optional" | sed 's/[; ].*//' | paste -sd' ')"
}
cat tests/requirements.txt "$optional" >"$stamp"
