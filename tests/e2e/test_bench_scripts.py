"""What the benchmarks say before they begin: what is missing, in one sentence, and never a figure that was not measured."""

import os
import shutil
import subprocess
import sys

import pytest

from support.paths import BUILD, ROOT

SCRIPTS = ["clients", "dispatch-latency", "event-streams", "gateway-overhead", "metrics-scrape", "parked-memory"]


def said(*argv, **environment):
    """(exit status, what it printed)"""
    done = subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


def one_sentence(text):
    return text.count("\n") == 1 and "Traceback" not in text


def test_every_script_is_tested():
    assert SCRIPTS == sorted(path.parent.name for path in (ROOT / "bench").glob("*/run.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_missing_is_one_sentence(tmp_path, script):
    script = ROOT / "bench" / script / "run.py"
    status, text = said(sys.executable, script, "--build", tmp_path)
    assert status == 1 and one_sentence(text) and f"{tmp_path}/ngx_http_llm_dispatch_module.so is not built" in text
    for name in ("ngx_http_llm_dispatch_module.so", "llm-engine"):
        (tmp_path / name).touch()
    if "packages=" in script.read_text():
        # a Python that has its standard library only
        status, text = said(sys.executable, "-I", "-S", script, "--build", tmp_path)
        assert status == 1 and one_sentence(text) and "scripts/venv.sh" in text


def test_a_missing_program_is_one_sentence(tmp_path):
    (tmp_path / "ngx_http_llm_dispatch_module.so").touch()
    status, text = said(sys.executable, ROOT / "bench" / "gateway-overhead" / "run.py", "--build", tmp_path, PATH=str(tmp_path))
    assert status == 1 and one_sentence(text) and text.startswith("wrk is not installed: scripts/deps.sh")


def test_no_figure_without_a_gpu(tmp_path):
    """Not even of those that others have published."""
    for name in ("bash", "dirname", "grep"):
        (tmp_path / name).symlink_to(shutil.which(name))
    status, text = said("bash", ROOT / "bench" / "engine-gpu", PATH=str(tmp_path))
    assert (status, text) == (1, "No NVIDIA GPU was found on this machine: nothing was measured.\n")
    # a driver without a GPU
    (tmp_path / "nvidia-smi").write_text("#!/bin/bash\necho 'No devices were found'\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert said("bash", ROOT / "bench" / "engine-gpu", PATH=str(tmp_path)) == (status, text)
    status, text = said("bash", ROOT / "bench" / "engine-gpu", "--quick")
    assert status == 2 and one_sentence(text) and "--no-http" in text


@pytest.mark.skipif(not (BUILD / "queue_bench").exists(), reason="this build has no benchmarks")
@pytest.mark.parametrize("number", ["many", "0", "-5", "12x", "100001", "99999999999"])
def test_a_wrong_number_is_one_sentence(number):
    status, text = said(BUILD / "queue_bench", number)
    assert status == 2 and one_sentence(text) and "1 to 100000" in text
