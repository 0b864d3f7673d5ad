"""A private PostgreSQL cluster; databases per test."""

import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import psycopg

from .paths import CONF, postgres_binaries
from .poll import until
from .ports import free_port
from .process import Process, unprivileged

# Clients of the fixture `database` (conftest.py).
ROWS = "INSERT INTO users (token, name, priority, threshold) VALUES ('alice', 'Alice', 5, 10), ('zero', 'Zero', 1, NULL)"


def use(cluster, name, options=""):
    """The directive for this database."""
    return f'llm_priority_db "{cluster.url(name)}" {options};'


class Postgres:
    """One cluster; a standby where a `primary` is given. Its files are in /tmp: the unprivileged user cannot reach the tests' own directories."""

    _names = itertools.count(1)

    def __init__(self, primary=None):
        self.port = free_port()
        self._binaries = postgres_binaries()
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="llm-e2e-postgres-"))
        self._data = self._home / "data"
        self._data.mkdir()
        identity = unprivileged()
        if identity:
            for path in (self._home, self._data):
                os.chown(path, identity["user"], identity["group"])
        make = ([self._binaries / "pg_basebackup", "-D", self._data, "-R", "--no-sync", "-c", "fast", "-U", "llm", "-h", "127.0.0.1", "-p", str(primary.port)]
                if primary else
                [self._binaries / "initdb", "-D", self._data, "-U", "llm", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
        if primary:
            self._data.chmod(0o700)
        made = subprocess.run(make, capture_output=True, text=True, cwd="/", check=False, **identity)
        assert made.returncode == 0, made.stderr
        self._process = None

    def start(self):
        self._process = Process([self._binaries / "postgres", "-D", self._data, "-p", self.port, "-h", "127.0.0.1",
                                 "-k", self._data, "-c", "fsync=off", "-c", "max_connections=50"],
                                self._home / "postgres.log", cwd="/", identity=unprivileged())
        until(self._answers, lambda: f"PostgreSQL answers:\n{self._process.output()[-2000:]}", 30)

    @property
    def process(self):
        """Its postmaster, once it is started."""
        return self._process

    def _answers(self):
        assert self._process.alive(), self._process.output()
        try:
            self.connect("postgres").close()
            return True
        except psycopg.OperationalError:
            return False

    def stop(self, number=signal.SIGINT):
        """SIGINT: fast shutdown, connections are closed."""
        if self._process:
            self._process.stop(number)

    def kill(self):
        """Immediate shutdown; SIGKILL would leave its children behind."""
        self._process.stop(signal.SIGQUIT)

    def remove(self):
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def connect(self, database):
        return psycopg.connect(host="127.0.0.1", port=self.port, user="llm", dbname=database, autocommit=True, connect_timeout=5)

    def create_database(self, *, schema=True, notify=True):
        """A new database with the tables and triggers of conf/; returns its name."""
        name = f"test{next(self._names)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with self.connect(name) as connection:
            if schema:
                connection.execute((CONF / "schema.sql").read_text())
            if notify:
                connection.execute((CONF / "llm_notify.sql").read_text())
        return name

    def url(self, database):
        return f"postgresql://llm@127.0.0.1:{self.port}/{database}"
