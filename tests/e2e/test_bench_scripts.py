"""What the benchmarks say before they begin: what is missing, in one sentence, and never a figure that was not measured."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest

from support.paths import BUILD, ROOT
from support.poll import until
from support.process import Adopted

SCRIPTS = ["clients", "dispatch-latency", "event-streams", "gateway-overhead", "metrics-scrape", "parked-memory", "peers"]


needs_wrk = pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("cc")), reason="wrk or cc is not installed")


def said(*argv, timeout=60, **environment):
    """(exit status, what it printed)"""
    done = subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout, env={**os.environ, **environment})
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


@pytest.mark.parametrize("name", ["queue", "engines", "simulate", "engine-cpu"])
def test_a_build_that_fails_says_why(tmp_path, name):
    """And is no figure out of its bounds."""
    for part in ("bench", "scripts"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cmake").write_text("#!/bin/sh\n[ \"$1\" != --build ] || { echo 'x.cpp:1: error: it is wrong'; exit 1; }\n")  # as ninja: on its standard output
    (tmp_path / "bin" / "cmake").chmod(0o755)
    status, text = said(tmp_path / "bench" / name, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", BUILD_DIR="")
    assert status == (1 if name == "engine-cpu" else 2)
    assert text.startswith("x.cpp:1: error: it is wrong\nThe build failed. (everything is in "), text


PEERS = ROOT / "bench" / "peers" / "run.py"


@needs_wrk
@pytest.mark.timeout(240)
def test_peers_that_are_not_here_are_left_out(tmp_path):
    names = ["nginx proxy_pass", "llm_dispatch", "LiteLLM", "Aristote Dispatcher"]
    status, text = said(sys.executable, PEERS, "--build", BUILD, "--work", tmp_path, "--check", "--only", ",".join(names), timeout=200)
    assert status == 0, text
    figures = [line for line in text.splitlines() if re.search(r" us .* MB ", line)]
    assert [line.startswith(name) for line, name in zip(figures, names)] == [True, True], text
    assert "not run: LiteLLM: not installed: " in text and "--install does it" in text
    assert "not run: Aristote Dispatcher: no source: git clone --branch v" in text
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def peers(tmp_path):
    """The script as a module, and its bench with its engine."""
    spec = importlib.util.spec_from_file_location("bench_peers", PEERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bench = module.Bench(tmp_path, 1)
    yield module, bench
    bench.engine.kill()


@needs_wrk
@pytest.mark.parametrize("directive", ["return 503;", "return 200 '{}';", "limit_req zone=few;"])
def test_a_peer_that_answers_wrongly_has_no_figures(tmp_path, peers, directive):
    """Not even where it is right as long as little is asked."""
    module, bench = peers

    class Hasty(module.PlainNginx):
        values = {**module.PlainNginx.values, "http": "limit_req_zone $server_port zone=few:1m rate=1000r/s;",
                  "location": module.PlainNginx.values["location"] + directive}

    (tmp_path / "hasty").mkdir()
    gateway = Hasty(None, tmp_path / "hasty", bench.port, BUILD)
    gateway.start()
    try:
        if "limit_req" not in directive:
            with pytest.raises(module.Wrong):
                bench.wait_ready(gateway, seconds=1)
        figures, failed = bench.measure([gateway], 1)
        assert figures == {} and "Wrong: " in failed[gateway.name]
    finally:
        gateway.stop()


@needs_wrk
def test_peers_end_with_all_that_they_have_started(tmp_path, peers):
    module, bench = peers
    from processes import family  # where the script looks for it, too

    class Parent(module.PlainNginx):
        def start(self):
            self.run("parent", ["sh", "-c", "sh -c 'sleep 600 & wait' & wait"])

    gateway = Parent(None, tmp_path, bench.port, BUILD)
    gateway.start()
    until(lambda: len(family(gateway.pids)) == 3, "its descendants run")
    pids = family(gateway.pids)
    gateway.stop()
    until(lambda: not any(Adopted(pid, None).alive() for pid in pids), "none is left")
