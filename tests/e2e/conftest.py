"""Fixtures: factories that start what a test needs, and check at its end that nothing is left behind."""

import pathlib
import resource
import subprocess

import pytest

from support.browser import Browser
from support.fake_engine import FakeEngine
from support.middlebox import Network, Relay
from support.nginx import Nginx
from support.postgres import ROWS, Postgres
from support.redis_server import RedisServer
from support.reporter import REPORTER, Reporter
from support.llm_engine import LlmEngine
from support.users import user, write_tokens

# A thousand connections at once need more files than the 1024 that a user's shell usually allows.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if resource.RLIM_INFINITY != _soft < 16384:
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384 if _hard == resource.RLIM_INFINITY else min(_hard, 16384), _hard))


@pytest.fixture
def fake_engine():
    """Factory of scripted engines; a mistake in a script fails the test."""
    engines = []

    def make(*arguments, **keywords):
        engine = FakeEngine(*arguments, **keywords)
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.stop()
    for engine in engines:
        assert not engine.problems, repr(engine.problems[0])


@pytest.fixture
def redis_server(tmp_path):
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def relay():
    """Factory of relays in front of servers."""
    relays = []

    def make(target):
        relays.append(Relay(target))
        return relays[-1]

    yield make
    for one in relays:
        one.stop()


@pytest.fixture
def network():
    """A network namespace whose traffic can be lost; skips where the kernel grants none."""
    made = Network()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def postgres_cluster():
    """One cluster for all tests of this process that leave the server itself alone."""
    cluster = Postgres()
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def database(postgres_cluster):
    """(cluster, name, connection) of a database with two clients; changes to them are notified."""
    name = postgres_cluster.create_database()
    with postgres_cluster.connect(name) as connection:
        connection.execute(ROWS)
        yield postgres_cluster, name, connection


@pytest.fixture
def own_postgres():
    """A cluster of the test's own, for stopping and starting."""
    cluster = Postgres()
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def llm_engine(tmp_path):
    """Factory of real llm-engine processes."""
    engines = []

    def make(**keywords):
        engine = LlmEngine(tmp_path / f"engine{len(engines)}", **keywords)
        engines.append(engine)
        engine.start()
        return engine

    yield make
    for engine in engines:
        engine.finish()


@pytest.fixture
def reporter(tmp_path):
    """Factory of llm-reporter processes."""
    made = []

    def make(**keywords):
        assert REPORTER.exists(), f"{REPORTER} is not built; make build does"
        made.append(Reporter(tmp_path / f"reporter{len(made)}.log", **keywords))
        return made[-1]

    yield make
    for one in made:
        one.finish()


@pytest.fixture
def nginx(tmp_path, fake_engine):
    """
    Factory of gateways; starts them unless start=False, and holds each to the invariants at the end.
    It asks for fake_engine so that engines outlive it; a test names other servers before this one, for the same reason.
    """
    gateways = []

    def make(*, start=True, **keywords):
        gateway = Nginx(tmp_path / f"nginx{len(gateways)}", **keywords)
        gateways.append(gateway)
        return gateway.start() if start else gateway

    yield make
    for gateway in gateways:
        gateway.finish()


@pytest.fixture
def gateway(tmp_path, nginx):
    """
    Factory of the usual gateway: static engines, clients in a file.

    engines: FakeEngine objects; users: rows made by support.users.user (None: open access, no token needed).
    The token file is `gateway.tokens`.
    """

    def make(engines=(), users=(user("alice"),), http="", **keywords):
        lines = [http]
        for engine in engines:
            lines.append(f"llm_engine {engine.url} model={','.join(engine.models)} id={engine.name} max_running={engine.max_running};")
        tokens = tmp_path / "tokens.json"
        if users is not None:
            write_tokens(tokens, list(users))
            lines.append(f"llm_priority_db file:{tokens};")
        made = nginx(http="\n    ".join(lines), **keywords)
        made.tokens = tokens
        return made

    return make


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium; a page that throws, logs or asks for anything outside 127.0.0.1 fails the test."""
    if not Browser.program() and "ID=ubuntu" in pathlib.Path("/etc/os-release").read_text().split("\n"):
        pytest.skip("Chromium is not installed, and Ubuntu's is a snap")
    made = Browser(tmp_path / "browser")
    made.expected = []  # substrings of console lines that the test provokes
    yield made
    made.stop()
    assert not made.exceptions, made.exceptions
    unexpected = [line for line in made.console if not any(text in line for text in made.expected)]
    assert not unexpected, unexpected
    outside = [url for url in made.requests if not url.startswith(("http://127.0.0.1:", "data:", "about:"))]
    assert not outside, outside


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 and localhost: (certificate, key)."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
                   check=True, capture_output=True)
    return directory / "cert.pem", directory / "key.pem"
