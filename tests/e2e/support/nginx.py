"""A private nginx with the module, and the checks that end every test."""

import json
import os
import re
import signal
import subprocess

from . import invariants, jitter, sanitizers
from .client import Client
from .metrics import Metrics
from .paths import MODULE, TEMPLATES, program
from .poll import until
from .ports import free_port
from .process import Adopted, Process, children_of

_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")


def fill(template, values):
    """Replaces each {name}; nginx's own braces have a space behind them, and ${variables} a dollar in front."""
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)


class Nginx:
    """
    http, server, location: directives for those blocks (location: the dispatching one); locations: whole further blocks;
    main: top-level directives; proxy: the scheme of proxy_pass. A test changes them and reloads.
    daemon: as in production; nginx exchanges its binary only then. env: further environment; limits: {resource.RLIMIT_…: number}.
    """

    def __init__(self, directory, *, template="gateway.conf", workers=4, zone="8m", module=MODULE, daemon=False, env=None,
                 limits=None, **blocks):
        self.directory = directory
        directory.mkdir(parents=True)
        self.port = free_port()
        self.client = Client(self.port)
        self._template = template
        self._module = module
        self.blocks = {"main": "", "http": "", "server": "", "location": "", "locations": "", "proxy": "http", **blocks}
        if os.geteuid() == 0:
            # workers of a root master would run as nobody, who cannot reach pytest's directories
            self.blocks["main"] = "user root;\n" + self.blocks["main"]
        # NGINX_BINARY names one built with the sanitizers too; the installed one needs their runtime loaded first
        sanitizing = sanitizers.environment(directory, preload="NGINX_BINARY" not in os.environ)
        preloaded = {**sanitizing, **jitter.environment()}
        self.blocks["main"] = sanitizers.directives(preloaded) + self.blocks["main"]
        self._values = {"module": module, "directory": directory, "workers": workers, "zone": zone, "port": self.port,
                        "daemon": "on" if daemon else "off", "log_level": os.environ.get("E2E_LOG_LEVEL", "info")}
        self._workers = workers
        self._env = {**preloaded, **(env or {})}
        self._limits = limits or {}
        self._allowed = []
        self.metered = True  # whether llm_metrics can be asked at the end
        self._process = None

    # ---------------------------------------------------------------------------------------------- life

    @property
    def conf(self):
        return self.directory / "nginx.conf"

    def write_conf(self):
        self.conf.write_text(fill((TEMPLATES / self._template).read_text(), {**self._values, **self.blocks}))

    def _argv(self):
        return [program("nginx"), "-p", self.directory, "-c", self.conf, "-e", self.directory / "error.log"]

    def test_conf(self):
        """nginx -t: (exit status, what it printed)."""
        self.write_conf()
        done = subprocess.run([*self._argv(), "-t"], capture_output=True, text=True, errors="replace", check=False,
                              env={**os.environ, **self._env})
        return done.returncode, done.stderr

    def start(self):
        assert self._module.exists(), f"{self._module} is not built; make build and make test do"
        self.write_conf()
        self._process = Process(self._argv(), self.directory / "output.log", env=self._env, limits=self._limits)
        self._process.wait_port(self.port) if self._values["daemon"] == "off" else self._find_daemon()
        until(lambda: len(self.workers()) == self._workers, "all workers run")
        return self

    def _find_daemon(self):
        assert self._process.wait() == 0, self.error_log()[-3000:]
        self._process = Adopted(until(self._pid_in_file, "the master writes its pid"), self.directory / "output.log")

    def _pid_in_file(self):
        """What nginx.pid says, or None: masters rename it, and write it after they have made it."""
        try:
            text = (self.directory / "nginx.pid").read_text().strip()
        except FileNotFoundError:
            return None
        return int(text) if text else None

    def reload(self, seconds=15):
        """Writes the configuration, reloads, and returns when new workers serve and the old ones know that they must go."""
        old = set(self.workers())
        self.write_conf()
        self._process.send_signal(signal.SIGHUP)
        until(lambda: len(self.workers()) == self._workers and not old & set(self.workers()),
              lambda: f"the reload took effect:\n{self.error_log()[-3000:]}", seconds)

    def upgrade(self, seconds=20):
        """Exchanges the binary as an operator does: USR2, WINCH, QUIT. Returns when the old master has ended."""
        old = self._process
        old.send_signal(signal.SIGUSR2)

        def successor():
            pid = self._pid_in_file()
            return pid if pid != old.pid else None

        pid = until(successor, lambda: f"a new master:\n{self.error_log()[-3000:]}", seconds)
        until(lambda: sum(title == "nginx: worker process" for title in children_of(pid).values()) == self._workers,
              "the new master's workers run", seconds)
        old.send_signal(signal.SIGWINCH)
        until(lambda: not self.workers(), "the old master's workers know that they must go", seconds)
        self._process = Adopted(pid, self.directory / "output.log")
        status = old.stop(signal.SIGQUIT, seconds)
        assert status == 0, f"the old master ended with {status}"

    def adopt_after(self, run, said):
        """Calls run(), a script that exchanges the binary, expects what it prints, and goes on with the new master."""
        old = self._process
        done = run()
        assert done.returncode == 0 and re.fullmatch(said, done.stdout), done
        self._process = Adopted(until(self._pid_in_file, "the new master writes its pid"), self.directory / "output.log")
        assert old.stop(signal.SIGQUIT) == 0

    def send_signal(self, number):
        self._process.send_signal(number)

    @property
    def pid(self):
        return self._process.pid

    def workers(self):
        """Pids of the workers that accept connections."""
        return [pid for pid, title in children_of(self.pid).items() if title == "nginx: worker process"]

    def old_workers(self):
        return [pid for pid, title in children_of(self.pid).items() if "shutting down" in title]

    def worker_of(self, pending):
        """The pid of the worker that has this client's connection."""
        inode = _server_inode(pending.port, self.port)
        assert inode, "nginx has not accepted the connection"
        for pid in children_of(self.pid):
            try:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                        return pid
            except OSError:
                continue
        raise AssertionError("no worker has the connection")

    def connections_of(self, pid):
        """The client's ports of the connections that this worker has accepted."""
        inodes = set()
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue  # closed while we looked
        return {remote for local, remote, inode in _tcp_sockets() if local == self.port and f"socket:[{inode}]" in inodes}

    # ---------------------------------------------------------------------------------------------- views

    def error_log(self):
        path = self.directory / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def access_log(self, at_least=1):
        """
        The entries in the order in which connections were accepted, and requests sent on each, once there are that many.

        A line is written a moment after its client has seen the end, so the next request's line, of another worker, may be
        there first; all workers number their connections with one counter.
        """
        path = self.directory / "access.log"
        until(lambda: path.read_text().count("\n") >= at_least, f"{at_least} lines in the access log")
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted(entries, key=lambda entry: (int(entry["connection"]), int(entry["nth"])))

    def wait_logged(self, pattern, seconds=10):
        until(lambda: re.search(pattern, self.error_log()), lambda: f"{pattern!r} in:\n{self.error_log()[-3000:]}", seconds)

    def metrics(self):
        reply = self.client.get("/metrics")
        assert reply.status == 200, reply
        return Metrics(reply.body.decode())

    def status(self):
        reply = self.client.get("/llm/status.json")
        assert reply.status == 200, reply
        return reply.json()

    def end_request(self, ticket, **how):
        """Ends a request as an administrator does; the answer to that."""
        return self.client.ask(method="DELETE", target=f"/llm/requests/{ticket}", headers=[("x-llm-admin", "1")], **how)

    def queued(self):
        return int(self.metrics().total("llm_queue_depth"))

    def held(self):
        return int(self.metrics().total("llm_engine_held"))

    def wait_queued(self, count, seconds=10):
        until(lambda: self.queued() == count, lambda: f"{count} requests queued, there are {self.queued()}", seconds)

    def wait_held(self, count, seconds=10):
        until(lambda: self.held() == count, lambda: f"{count} seats held, there are {self.held()}", seconds)

    def wait_outcomes(self, expected, seconds=5):
        """Waits for exactly these outcomes: a request is counted a moment after its client has seen the end."""
        until(lambda: self.metrics().outcomes() == expected, lambda: f"{expected}, the metrics say {self.metrics().outcomes()}", seconds)

    def wait_metric(self, name, seconds=10):
        """Waits until there is a series of this name: of an engine, once its first report has arrived."""
        until(lambda: self.metrics().values(name), lambda: f"{name} in:\n{self.metrics().text}", seconds)

    def wait_ready(self, seconds=15):
        until(lambda: self.client.get("/health/readiness").status == 200, lambda: f"ready:\n{self.error_log()[-3000:]}", seconds)
        return self

    def wait_model(self, model, token=None, seconds=10):
        """Waits until the gateway knows the model, from an engine's report."""
        def known():
            reply = self.client.get("/v1/models", token=token)
            return reply.status == 200 and model in [entry["id"] for entry in reply.json()["data"]]

        until(known, f"the model {model} is known", seconds)

    # ---------------------------------------------------------------------------------------------- the end

    def allow(self, pattern):
        """Log lines matching this are expected by the test, whatever their level."""
        self._allowed.append(re.compile(pattern))

    def kill(self):
        if self._process and self._process.alive():
            children = list(children_of(self.pid))
            self._process.kill()
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def lose(self):
        """The machine is lost: all processes end at once, and the test's end expects no more of them."""
        self.kill()
        self._process = None

    def finish(self):
        """Stops nginx and asserts what must hold after every test: invariants I1 and I5, and that nothing stays behind."""
        if self._process is None:
            return
        try:
            assert self._process.alive(), f"nginx ended by itself:\n{self.error_log()[-3000:]}"
            if self.metered:
                invariants.idle(self)
            children = list(children_of(self.pid))
            assert self._process.stop(signal.SIGQUIT) == 0
            left = [pid for pid in children if os.path.exists(f"/proc/{pid}")]
            assert not left, f"workers {left} outlive the master"
        finally:
            self.kill()
            self._check_reports()
        self.check_logs()

    def _check_reports(self):
        """Whatever else is wrong, a sanitizer's report says why; the log only says that a worker has ended."""
        reports = sanitizers.reports(self.directory)
        assert not reports, "\n".join(report.read_text(errors="replace") for report in reports)

    def check_logs(self):
        bad = [line for line in self.error_log().splitlines()
               if re.search(r"\[(alert|emerg|crit)\]|Sanitizer|runtime error:|terminate called", line)
               and not any(pattern.search(line) for pattern in self._allowed)]
        assert not bad, "\n".join(bad)


def _tcp_sockets():
    """(local port, remote port, inode) of every IPv4 socket."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for line in table:
            fields = line.split()
            local, remote = (int(address.split(":")[1], 16) for address in fields[1:3])
            yield local, remote, int(fields[9])


def _server_inode(client_port, server_port):
    """The inode of the server's end of a connection on 127.0.0.1."""
    return next((inode for local, remote, inode in _tcp_sockets()
                 if local == server_port and remote == client_port and inode), None)


def unsent_bytes(client_port, server_port):
    """What the kernel holds of the server's answers because its client takes no more; 127.0.0.1 again."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for line in table:
            fields = line.split()
            local, remote = (int(address.split(":")[1], 16) for address in fields[1:3])
            if (local, remote) == (server_port, client_port):
                return int(fields[4].split(":")[0], 16)
    raise AssertionError("the connection is gone")
