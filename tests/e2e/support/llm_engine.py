"""The real llm-engine: with the demo model, or with the simulated backend for load without arithmetic."""

import signal

from .paths import DEMO_MODEL, ENGINE
from .ports import free_port
from .process import Process


class LlmEngine:
    def __init__(self, directory, *, redis=None, backend=None, arguments=()):
        directory.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "engine.log"
        self._argv = [ENGINE, "--model", DEMO_MODEL, "--listen", f"127.0.0.1:{self.port}"]
        if redis:
            self._argv += ["--redis", redis]
        if backend:
            self._argv += ["--backend", backend]
        self._argv += arguments
        self._process = None

    def start(self):
        assert ENGINE.exists(), f"{ENGINE} is not built; make build does"
        self._process = Process(self._argv, self._log)
        self._process.wait_port(self.port, 60)

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self._process.kill()

    def finish(self):
        if self._process is None or not self._process.alive():
            return
        status = self._process.stop(signal.SIGTERM)
        assert status == 0, f"llm-engine ended with {status}:\n{self._log.read_text(errors='replace')[-3000:]}"
