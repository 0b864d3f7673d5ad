"""`make run`, as a newcomer uses it."""

import importlib.util
import os
import pathlib
import re
import shlex
import signal
import subprocess

import pytest

from support.paths import BUILD, ROOT
from support.poll import until
from support.ports import free_port
from support.process import accepts


# In the environment of everything that a test starts, so that what is left of it can be told from another `make run`.
MARK = "LLM_TEST_MAKE_RUN"


def start(tmp_path, *arguments):
    """(process, function that returns its output so far)"""
    path = tmp_path / "output"
    with open(path, "wb") as output:
        process = subprocess.Popen(["make", "run", *arguments], cwd=ROOT, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                                   start_new_session=True, env={**os.environ, MARK: str(tmp_path)})
    return process, path.read_text


def group_is_empty(group):
    try:
        os.killpg(group, 0)
        return False
    except ProcessLookupError:
        return True


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("make_run")
@pytest.mark.parametrize("clients,number", [("file", signal.SIGINT), ("postgres", signal.SIGTERM)])
def test_the_printed_line_works_and_everything_stops(tmp_path, clients, number):
    port = free_port()
    process, output = start(tmp_path, f"PORT={port}", *(["CLIENTS=postgres"] if clients == "postgres" else []))
    try:
        def printed():
            assert process.poll() is None, output()
            return "Ctrl-C stops everything" in output()

        until(printed, lambda: f"ready:\n{output()[-3000:]}", 500)
        text = output()
        line = re.search(r"^curl .*Bearer .*$", text, re.MULTILINE)[0]
        assert len(set(re.findall(r"^ +(sk-\S+)", text, re.MULTILINE))) == 3
        assert f":{port}/" in line

        ready = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/health/readiness"],
                               capture_output=True, text=True, check=True)
        assert ready.stdout == "200"
        answer = subprocess.run([*shlex.split(line), "-s"], capture_output=True, text=True, check=True, timeout=60).stdout
        assert answer.count("data: ") >= 3 and answer.rstrip().endswith("data: [DONE]"), answer
        logs = re.search(r"^== Logs: (.+)", text, re.MULTILINE)[1]
        assert {"redis.log", "engine.log", "error.log", "access.log"} <= set(os.listdir(logs))
    finally:
        os.killpg(process.pid, number)
        process.wait(30)
    until(lambda: not accepts(port), "the port is free again")
    until(lambda: group_is_empty(process.pid), "nothing of the process group is left")
    # nginx writes its title over its environment, but the title names its directory
    left = {**_having("environ", f"{MARK}={tmp_path}"), **_having("cmdline", str(ROOT / ".run" / str(port)))}
    assert not left, left


def _having(what, text):
    """{pid: command line} of the processes whose /proc/<pid>/<what> contains the text."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / what).read_text(errors="replace"):
                found[entry.name] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue  # it ended while we looked, or is not ours
    return found


@pytest.mark.parametrize("arguments,sentence", [
    (["PORT=http"], "PORT=http is not a port number"),
    (["PORT=70000"], "PORT=70000 is not a port number"),
    (["LISTEN=::1"], "LISTEN=::1 is no IPv4 address"),
    (["CLIENTS=mysql"], "CLIENTS=mysql is not known"),
])
def test_wrong_arguments_are_one_sentence(tmp_path, arguments, sentence):
    process, output = start(tmp_path, *arguments)
    assert process.wait(120) != 0
    assert sentence in output()
    assert "Traceback" not in output()


def test_port_in_use_is_one_sentence(tmp_path, fake_engine):
    busy = fake_engine().port
    process, output = start(tmp_path, f"PORT={busy}")
    assert process.wait(120) != 0
    assert f"Port {busy} cannot be used" in output()
    assert f"make run PORT={busy + 1}" in output()
    assert "Traceback" not in output()


@pytest.fixture
def run(monkeypatch):
    """scripts/run.py as a module, with the programs of the build that is tested."""
    spec = importlib.util.spec_from_file_location("run", ROOT / "scripts" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", BUILD)
    return module


@pytest.mark.parametrize("name", ["my checkout", "it's $5; {a} #1", 'the "best" \\one'])
def test_a_checkout_of_any_name(run, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "module").symlink_to(BUILD)
    run.BUILD = tmp_path / name / "module"
    port = free_port()
    stack = run.Stack(tmp_path / name / ".run" / str(port))
    try:
        tokens = stack.home / "tokens.json"
        tokens.write_text((ROOT / "conf" / "llm-tokens.json").read_text())
        run.start_nginx(stack, f"127.0.0.1:{port}", f"redis://127.0.0.1:{free_port()}/0", f"file:{tokens}")
        stack.wait_until(lambda: accepts(port), "nginx did not accept connections", 20)
        token = run.sample_users()[0]["token"]
        answer = run.request(("127.0.0.1", port), "GET", "/v1/models", token)
        assert answer.status == 200 and answer.read() == b'{"object":"list","data":[]}'
    finally:
        stack.stop()
    assert {"access.log", "error.log"} <= set(os.listdir(stack.logs))


def test_what_runs_keeps_its_directory(run, tmp_path):
    """The same port on another address, or started twice while it was built."""
    first = run.Stack(tmp_path / ".run" / "8080")
    (first.home / "file").touch()
    with pytest.raises(run.Failure, match="is at work in .*8080 already; choose another port: make run PORT=8081"):
        run.Stack(tmp_path / ".run" / "8080")
    assert (first.home / "file").exists()
    run.Stack(tmp_path / ".run" / "8081")


def test_another_port_is_one_that_can_be_used(run):
    assert [run.another(port) for port in (80, 1023, 8080, 65534, 65535)] == [8080, 8080, 8081, 65535, 8080]


def test_the_directory_of_somebody_else_is_one_sentence(run, tmp_path):
    (tmp_path / ".run").touch()
    with pytest.raises(run.Failure, match="[.]run cannot be written .*: has another user run this before"):
        run.Stack(tmp_path / ".run" / "8080")
