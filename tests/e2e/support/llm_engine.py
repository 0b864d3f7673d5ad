"""The real llm-engine: with the demo model, or with the simulated backend for load without arithmetic."""

import signal

from . import jitter, sanitizers
from .client import Client
from .paths import DEMO_MODEL, ENGINE
from .poll import until
from .ports import free_port
from .process import Process


class LlmEngine:
    """`sim`: a simulated model called "sim", a millisecond per step, instead of the demo model on the CPU."""

    def __init__(self, directory, *, redis=None, sim=False, arguments=(), env=None):
        directory.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._log = directory / "engine.log"
        self._argv = [ENGINE, "--listen", f"127.0.0.1:{self.port}"]
        if sim:
            self._argv += ["--backend", "sim", "--model", "sim", "--sim", "base=1,sequence=0,context=0,prefill=0.001"]
        else:
            self._argv += ["--model", DEMO_MODEL]
        if redis:
            self._argv += ["--redis", redis]
        self._argv += arguments
        self._env = {**sanitizers.environment(directory), **jitter.environment(), **(env or {})}
        self._process = None

    def start(self):
        assert ENGINE.exists(), f"{ENGINE} is not built; make build does"
        self._process = Process(self._argv, self._log, env=self._env)
        self._process.wait_port(self.port, 60)
        if "--redis" not in self._argv:  # else its reports say that it is still loading
            until(lambda: Client(self.port).get("/health").status == 200, self.output, 60)

    def output(self):
        return self._log.read_text(errors="replace")

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        process, self._process = self._process, None
        process.kill()

    def finish(self):
        """Stops an engine that no test has killed, and asserts that it was still alive and ends well."""
        if self._process is None:
            return
        status = self._process.stop(signal.SIGTERM, 60 if sanitizers.ACTIVE else 15)
        reports = sanitizers.reports(self._directory)
        assert not reports, reports[0].read_text()
        assert status == 0, f"llm-engine ended with {status}:\n{self.output()[-3000:]}"
