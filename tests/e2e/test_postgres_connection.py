"""How a gateway reaches PostgreSQL: TLS, passwords, names, and what it says of lost connections."""

import os
import re
import signal
import socket
import subprocess
import threading
from urllib.parse import quote

import pytest

from support.poll import until
from support.postgres import ROWS, use
from support.process import unprivileged


@pytest.fixture
def secured(own_postgres, tmp_path):
    """A server that wants TLS and a password of odd characters, with a certificate of its own for localhost: (cluster, database, password, CA)."""
    password = "p@/:%?#&= w\"$x"
    data, ca = own_postgres._data, tmp_path / "ca.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", data / "server.key", "-out", data / "server.crt"], check=True, capture_output=True)
    ca.write_bytes((data / "server.crt").read_bytes())
    (data / "server.key").chmod(0o600)
    for name in ("server.key", "server.crt"):
        if owner := unprivileged():
            os.chown(data / name, owner["user"], owner["group"])
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
        connection.execute("ALTER USER llm PASSWORD '%s'" % password)
        connection.execute("ALTER SYSTEM SET ssl = on")
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        until(lambda: connection.execute("SHOW ssl").fetchone()[0] == "on", "the server speaks TLS")
    return own_postgres, name, quote(password, safe=""), ca


def test_tls_passwords_and_sockets(secured, fake_engine, gateway):
    cluster, name, password, ca = secured
    directory = quote(str(cluster._data), safe="")
    there, verified = f"llm:{password}@localhost:{cluster.port}/{name}", f"sslmode=verify-full&sslrootcert={ca}"
    for url in (there, f"{there}?{verified}", f"{there}?hostaddr=127.0.0.1&{verified}", f"llm@{directory}:{cluster.port}/{name}",
                f"/{name}?host={cluster._data}&port={cluster.port}&user=llm", f"llm:{password}@{directory}x,localhost:{cluster.port}/{name}?{verified}"):
        gate = gateway([fake_engine()], users=None, workers=1, http=f"llm_priority_db 'postgresql://{url}';")
        until(lambda: gate.client.ask(token="alice").status == 200, lambda: f"{url}: {gate.error_log()}")
    for url, reason in ((there.replace("localhost", "127.0.0.1") + f"?{verified}", "does not match host name"),
                        (f"{there}?sslmode=verify-full&sslrootcert=/nowhere", "root certificate file"),
                        (there.replace(password, "wrong"), "password authentication failed"), (f"{there}?sslmode=disable", "no encryption")):
        gate = gateway([fake_engine()], users=None, workers=1, http=f"llm_priority_db 'postgresql://{url}';")
        gate.wait_logged(reason)
        assert gate.client.ask(token="alice").status == 503
        assert password not in gate.error_log() and "%?#&" not in gate.error_log()


@pytest.fixture
def name_server():
    """db.example has two addresses, of which PostgreSQL listens on one; no other name has any. Its port."""
    addresses = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address) for address in ("127.0.0.2", "127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve():
            while (asked := server.recvfrom(512))[0]:
                query, client = asked
                known = b"\2db\7example" in query
                server.sendto(query[:2] + (b"\x81\x80\0\1\0\2\0\0\0\0" if known else b"\x81\x83\0\1\0\0\0\0\0\0") +
                              query[12:] + (addresses if known else b""), client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.sendto(b"", server.getsockname())
        thread.join()


def test_hosts_without_an_address_or_an_answer_do_not_stand_before_others(database, name_server, fake_engine, gateway):
    """One unknown name was the end of the attempt, and libpq, asked asynchronously, waits for a silent host for ever."""
    cluster, name, _ = database
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"gone.invalid:5432,127.0.0.1:{silent.getsockname()[1]},db.example:{cluster.port}"
        gate = gateway([fake_engine()], users=None, http=f"resolver 127.0.0.1:{name_server} ipv6=off valid=1s; "
                                                         f'llm_priority_db "postgresql://llm@{hosts}/{name}";')
        until(lambda: gate.client.ask(token="alice").status == 200, lambda: f"the third host is asked:\n{gate.error_log()}", 30)


def test_the_log_says_at_once_why_a_lost_connection_is_not_made_again(own_postgres, fake_engine, gateway):
    """As when a password was changed: what the connection broke for is another matter."""
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
        connection.execute("CREATE ROLE gate LOGIN")
        connection.execute("GRANT SELECT ON users TO gate")
        gate = gateway([fake_engine()], users=None, http=use(own_postgres, name).replace("llm@", "gate@"), workers=1)
        until(lambda: gate.client.ask(token="alice").status == 200, "the clients are known")
        connection.execute("ALTER ROLE gate NOLOGIN")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'")
        gate.wait_logged('role "gate" is not permitted to log in')
        connection.execute("ALTER ROLE gate LOGIN")
        gate.wait_logged("connected again")


def test_a_database_that_drops_each_connection_fills_no_log(database, fake_engine, gateway):
    """As a pooler in front of one that is down: it lets clients in, and goes when they ask."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name), workers=1)
    until(lambda: gate.client.ask(token="alice").status == 200, "the clients are known")
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for _ in range(6):
        until(lambda: connection.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone()[0], "it has come back")
    gate.wait_logged("connected again")
    told = re.findall(r"database .*trying again", gate.error_log())
    assert len(told) <= 2 * len(set(told)) <= 6  # each reason of its connections: for the clients, and for their changes
    assert len(re.findall(r"connected again", gate.error_log())) <= len(told)
    assert gate.client.ask(token="alice").status == 200
