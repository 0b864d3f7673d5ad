"""A private Redis."""

import signal

import redis

from .paths import program
from .poll import until
from .ports import free_port
from .process import Process


class RedisServer:
    """`network`: a support.middlebox.Network to live in, instead of 127.0.0.1."""

    def __init__(self, directory, network=None):
        self._directory = directory
        directory.mkdir(parents=True)
        self.port = free_port()
        self._host = network.address if network else "127.0.0.1"
        self._prefix = network.argv() if network else []
        self.url = f"redis://{self._host}:{self.port}/0"
        self.client = redis.Redis(host=self._host, port=self.port, socket_timeout=5)
        self._process = None

    def start(self):
        self._process = Process([*self._prefix, program("redis-server"), "--bind", self._host, "--protected-mode", "no", "--port", self.port, "--save", "",
                                 "--appendonly", "no", "--dir", self._directory], self._directory / "redis.log")
        until(self._answers, "Redis answers")

    def _answers(self):
        assert self._process.alive(), self._process.output()
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def serve_tls(self, certificate, key, ask_clients=False):
        """Serves TLS, too, on a port that it returns; clients need no certificate of their own, unless `ask_clients`."""
        port = free_port()
        self.client.config_set("tls-cert-file", str(certificate), "tls-key-file", str(key), "tls-ca-cert-file", str(certificate),
                               "tls-auth-clients", "yes" if ask_clients else "no", "tls-port", port)
        return port

    def stop(self):
        if self._process:
            self.client.connection_pool.disconnect()
            self._process.stop(signal.SIGTERM)

    def send_signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        self.client.connection_pool.disconnect()
        self._process.kill()

    def subscribers(self, channel="llm:engines"):
        return dict(self.client.pubsub_numsub(channel))[channel.encode()]
