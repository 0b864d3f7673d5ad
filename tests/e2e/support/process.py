"""A server process of a test: output in a file, stopped by its own pid, dead when the test process dies."""

import ctypes
import os
import pwd
import resource
import signal
import socket
import subprocess

from .poll import until

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def unprivileged():
    """Popen arguments for a program that refuses to run as root; empty when we are not root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children_of(pid):
    """{pid: title} of the direct children of a process."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            state, parent = fields[0], int(fields[1])
            if parent != pid or state == "Z":
                continue
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as cmdline:
                found[int(entry)] = cmdline.read().replace("\0", " ").strip()
        except (OSError, IndexError):
            continue  # it ended while we looked
    return found


def stop_for_now(pid):
    """SIGSTOP, and waits until it has taken effect: the process may be in the midst of something on another processor."""
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "T"

    until(stopped, f"pid {pid} stands still")


class Process:
    """`limits`: {resource.RLIMIT_…: number}, soft and hard."""

    def __init__(self, argv, log, *, env=None, cwd=None, identity=None, limits=None):
        self.log = log

        def prepare():
            _die_with_parent()
            for which, number in (limits or {}).items():
                resource.setrlimit(which, (number, number))

        with open(log, "ab") as output:
            self._process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, env={**os.environ, **(env or {})}, cwd=cwd,
                                             preexec_fn=prepare, **(identity or {}))

    @property
    def pid(self):
        return self._process.pid

    def alive(self):
        return self._process.poll() is None

    def wait(self, seconds=15):
        """Waits for its end; returns the exit status."""
        return self._process.wait(seconds)

    def output(self):
        return self.log.read_text(errors="replace")

    def send_signal(self, number):
        self._process.send_signal(number)

    def wait_port(self, port, seconds=20):
        def up():
            assert self.alive(), f"ended at start with {self._process.returncode}:\n{self.output()[-4000:]}"
            return accepts(port)

        until(up, lambda: f"port {port} accepts connections:\n{self.output()[-4000:]}", seconds)

    def stop(self, number=signal.SIGTERM, seconds=15):
        """Sends the signal and returns the exit status; a process that does not obey is killed, and that is a failure."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"pid {self.pid} did not stop within {seconds} s of {signal.Signals(number).name}") from None
        return self._process.returncode

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Adopted:
    """A process that another one has started, such as the master that follows a binary upgrade: known by its pid only."""

    def __init__(self, pid, log):
        self.pid = pid
        self.log = log

    def alive(self):
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def output(self):
        return self.log.read_text(errors="replace")

    def send_signal(self, number):
        os.kill(self.pid, number)

    def stop(self, number=signal.SIGTERM, seconds=15):
        """As Process.stop(); the exit status of somebody else's child is not ours to see, so it is 0."""
        if self.alive():
            self.send_signal(number)
            until(lambda: not self.alive(), f"pid {self.pid} stops after {signal.Signals(number).name}", seconds)
        return 0

    def kill(self):
        if self.alive():
            self.send_signal(signal.SIGKILL)
            until(lambda: not self.alive(), "the process is gone")
