"""llmctl queue, engines, drain, undrain, top: against a real gateway."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

import pytest

from support.client import chat_body
from support.llmctl import LLMCTL, environment, llmctl
from support.poll import until
from support.ports import free_port
from support.traffic import Plan, Traffic
from support.users import user


def at(gate):
    return ("--url", f"http://127.0.0.1:{gate.port}/llm/")


def test_who_waits_and_what_engines_do(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", name="Alice"), user("bob", name="Bob", priority=2)])
    assert "Nobody waits" in llmctl("queue", *at(gate)).out
    first = engine.occupy(gate.client, token="alice")
    second = gate.client.send(token="bob")
    gate.wait_queued(1)

    shown = llmctl("queue", "--json", env={"LLM_STATUS_URL": at(gate)[1]}).json()
    assert [(entry["client"], entry["state"], entry["priority"]) for entry in shown["requests"]] == [("Bob", "queued", 2)]
    assert shown["totals"]["queued"] == 1 and shown["models"][0]["name"] == "m"
    text = llmctl("queue", *at(gate)).out
    assert "Bob" in text and "Alice" not in text
    assert "Alice" in llmctl("queue", "--all", *at(gate)).out

    number = shown["requests"][0]["id"]
    llmctl("queue", "priority", number, 9, *at(gate))
    assert llmctl("queue", "--json", *at(gate)).json()["requests"][0]["priority"] == 9
    assert "0 to 1000" in llmctl("queue", "priority", number, 1001, *at(gate), status=2).err

    listed = llmctl("engines", "--json", *at(gate)).json()
    assert [(entry["id"], entry["held"]) for entry in listed] == [(engine.name, 1)]
    assert engine.name in llmctl("engines", *at(gate)).out

    llmctl("queue", "cancel", number, *at(gate))
    assert second.reply().status == 503
    assert "no request" in llmctl("queue", "cancel", number, *at(gate), status=3).err
    assert "no waiting request" in llmctl("queue", "priority", number, 1, *at(gate), status=3).err
    # of several, one that has ended by itself keeps nobody from ending the others
    third = gate.client.send(token="bob")
    gate.wait_queued(1)
    other = llmctl("queue", "--json", *at(gate)).json()["requests"][0]["id"]
    refused = llmctl("queue", "cancel", number, other, *at(gate), status=3).err
    assert f"no request {number};" in refused
    assert third.reply().status == 503
    engine.open_gate()
    assert first.reply().status == 200


def test_drain_and_undrain(fake_engine, gateway):
    engine = fake_engine()
    lines = f"llm_engine {engine.url} model=m id=org/gpu0@host:1 max_running=4;"
    gate = gateway(http=lines)
    running = engine.occupy(gate.client, token="alice")
    assert llmctl("drain", "org/gpu0@host:1", "--json", *at(gate)).json()["drained"]
    assert gate.status()["engines"][0]["drained"]
    assert "drained" in llmctl("engines", *at(gate)).out
    still = llmctl("drain", "org/gpu0@host:1", "--wait", 1, *at(gate), status=1)
    assert "still has 1" in still.err
    engine.open_gate()
    assert running.reply().status == 200
    llmctl("drain", "org/gpu0@host:1", "--wait", 30, *at(gate))
    llmctl("undrain", "org/gpu0@host:1", *at(gate))
    assert not gate.status()["engines"][0]["drained"]
    assert gate.client.ask(token="alice").status == 200
    assert "no engine" in llmctl("drain", "nobody", *at(gate), status=3).err
    assert "no engine" in llmctl("undrain", "nobody", *at(gate), status=3).err


def test_replace_an_engine_under_load(redis_server, fake_engine, gateway):
    old, new = fake_engine(name="old/a b"), fake_engine(name="new")
    gate = gateway(users=[user("alice", threshold=1000)], http=f"llm_redis {redis_server.url};")
    old_report = old.announce(redis_server.url)
    gate.wait_ready()
    traffic = Traffic(gate.port, lambda: Plan("alice", chat_body(stream=True)), outstanding=4).start()
    until(lambda: len(traffic.results) >= 20, "traffic flows")
    new.announce(redis_server.url)
    until(lambda: new.requests, "the successor is known")
    assert llmctl("drain", old.name, "--wait", 60, *at(gate)).out == "Engine old/a b gets no new requests and has none left.\n"
    assert not old.exchanges
    old_report.leave()
    old.die()
    mark = len(traffic.results)
    until(lambda: len(traffic.results) >= mark + 20, "traffic goes on")
    failed = [fate for fate in traffic.stop() if not fate.ok]
    assert not failed, failed[:3]


@pytest.mark.parametrize("name", ["http://10.0.0.5:8000", "a/../b", "b/", "50%"])
def test_an_engine_whose_name_is_no_path_of_a_url(fake_engine, gateway, name):
    engines = [fake_engine(), fake_engine()]
    gate = gateway(http="".join(f"llm_engine {engine.url} model=m 'id={id}'; " for engine, id in zip(engines, ("b", name))),
                   locations="location /bare { llm_status admin; }")
    for base in (at(gate), ("--url", f"http://127.0.0.1:{gate.port}/bare/")):
        llmctl("drain", name, *base)
        assert [engine["drained"] for engine in gate.status()["engines"]] == [False, True]
        llmctl("undrain", name, *base)
        assert not any(engine["drained"] for engine in gate.status()["engines"])
    # doubled slashes in front of it are what they always were
    assert gate.client.ask(method="POST", target="//llm//engines/b/drain", headers=[("x-llm-admin", "1")]).status == 200


def test_a_readonly_location_and_other_refusals(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="""
        location /look/   { llm_status; }
        location /page/   { default_type text/html; return 200 '<html>hello</html>'; }
        location /closed/ { llm_status admin; deny all; }""")
    base = f"http://127.0.0.1:{gate.port}"
    engine = llmctl("engines", "--json", "--url", f"{base}/look").json()[0]["id"]
    llmctl("engines", "--url", f"{base}/look/status.json")
    assert "read-only" in llmctl("drain", engine, "--url", f"{base}/look/", status=1).err
    assert not gate.status()["engines"][0]["drained"]
    for place in ("page", "closed", "missing"):
        assert "llm_status" in llmctl("engines", "--url", f"{base}/{place}/", status=1).err
        assert "llm_status admin" in llmctl("drain", engine, "--url", f"{base}/{place}/", status=1).err or place == "closed"
    llmctl("engines", "--url", f"http://127.0.0.1:{free_port()}/llm/", status=4)
    llmctl("top", "--url", f"http://127.0.0.1:{free_port()}/llm/", status=4)
    assert "http://" in llmctl("engines", "--url", "localhost:8080/llm", status=2).err


def test_the_password_of_the_url_is_not_shown(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="location /plain/ { return 200 x; }")
    there = f"127.0.0.1:{gate.port}"
    for words, address, path, status in [(("top", "--once"), there, "/llm/", 0), (("engines",), there, "/plain/", 1), (("engines",), there, "/nothing/", 1),
                                         (("drain", "x"), there, "/nothing/", 1), (("drain", "x"), f"127.0.0.1:{free_port()}", "/llm/", 4)]:
        done = llmctl(*words, "--url", f"http://user:pass-word@{address}{path}", status=status)
        assert f"http://{address}{path}" in done.out + done.err
        assert "pass-word" not in done.out + done.err


def test_over_tls(tmp_path, fake_engine, gateway):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    port = free_port()
    gate = gateway([fake_engine()], server=f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};")
    url = f"https://127.0.0.1:{port}/llm/"
    assert len(llmctl("engines", "--json", "--ca-file", certificate, "--url", url).json()) == 1
    assert "certificate" in llmctl("engines", "--url", url, status=4).err
    assert gate.client.ask(token="alice").status == 200


class Screen:
    """llmctl top in a terminal of its own."""

    def __init__(self, *words, rows=24, columns=100):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execve(LLMCTL, [str(LLMCTL), *words], environment(TERM="xterm"))
            finally:
                os._exit(127)  # or a copy of the test process would go on with the tests
        self.text = ""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        while select.select([self.terminal], [], [], 0)[0]:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.text += data.decode(errors="replace")
        return True

    def wait(self, pattern, what):
        until(lambda: self.read() is not None and re.search(pattern, self.text), lambda: f"{what}: {self.text[-3000:]!r}", 20)

    def pictures(self):
        """The whole pictures so far, oldest first, without colours: lists of lines. The newest may not be all there yet."""
        self.read()
        plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in self.text.split("\x1b[H")[1:-1]]
        return [part.replace("\r", "").split("\n") for part in plain]

    def press(self, key):
        os.write(self.terminal, key)

    def end(self):
        """The exit status, once it has ended."""
        def ended():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return pid and [os.waitstatus_to_exitcode(status)]
        try:
            return until(ended, "it ends", 20)[0]
        finally:
            os.close(self.terminal)


def test_top_shows_changes_and_ends_with_q(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", name="Alice")])
    screen = Screen("top", *at(gate))
    try:
        screen.wait(re.escape(engine.name), "the engine is shown")
        held = engine.occupy(gate.client, token="alice")
        waiting = gate.client.send(token="alice")
        screen.wait(r"waiting 1\b", "one waits")
        screen.wait(r"queued +Alice", "and its client is shown")
        screen.resize(10, 40)
        until(lambda: screen.pictures()[-1:] and len(screen.pictures()[-1]) == 10, "the new size is taken", 20)
        assert not [line for line in screen.pictures()[-1] if len(line) > 40]
        engine.open_gate()
        assert held.reply().status == 200 and waiting.reply().status == 200
        screen.wait(r"waiting 0\b[^\x1b]*", "nobody waits any more")
        screen.press(b"q")
        assert screen.end() == 0
        assert screen.text.endswith("\x1b[?1049l"), "the screen is put back"
    except BaseException:
        try:
            os.kill(screen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        raise


def test_top_leaves_the_screen_to_the_shell_while_it_is_stopped(fake_engine, gateway):
    """Ctrl-Z left the shell in the alternate screen, without a cursor."""
    gate = gateway([fake_engine()])
    screen = Screen("top", *at(gate))
    try:
        screen.wait("waiting 0", "it runs")
        os.kill(screen.pid, signal.SIGTSTP)  # as the terminal does for a shell's job
        assert os.WIFSTOPPED(os.waitpid(screen.pid, os.WUNTRACED)[1])
        screen.read()
        assert screen.text.endswith("\x1b[?25h\x1b[?1049l"), "the screen is put back"
        assert termios.tcgetattr(screen.terminal)[3] & termios.ECHO
        os.kill(screen.pid, signal.SIGCONT)
        screen.wait(r"\x1b\[\?1049l\x1b\[\?1049h\x1b\[\?25l(?s:.*)waiting 0", "it goes on")
        assert not termios.tcgetattr(screen.terminal)[3] & termios.ECHO
    finally:
        os.kill(screen.pid, signal.SIGCONT)
        os.kill(screen.pid, signal.SIGTERM)
        assert screen.end() == 0


def test_top_survives_a_gateway_that_goes(fake_engine, gateway):
    gate = gateway([fake_engine()], locations="location /x/ { llm_status; }")
    screen = Screen("top", "--url", f"http://127.0.0.1:{gate.port}/x/")
    try:
        screen.wait("waiting 0", "it runs")
        gate.blocks["locations"] = ""
        gate.reload()
        screen.wait("answered 404", "the trouble is shown")
        gate.blocks["locations"] = "location /x/ { llm_status; }"
        gate.reload()
        count = len(screen.pictures())
        until(lambda: len(shown := screen.pictures()) > count and "answered 404" not in "".join(shown[-1]), "it recovers", 20)
    finally:
        os.kill(screen.pid, signal.SIGTERM)
        assert screen.end() == 0


def test_top_without_a_terminal_is_one_picture(fake_engine, gateway):
    gate = gateway([fake_engine()])
    done = llmctl("top", *at(gate))
    assert "MODEL" in done.out and "\x1b" not in done.out
    assert "engines" in llmctl("top", "--json", *at(gate)).json()
