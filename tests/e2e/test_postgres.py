"""Clients in PostgreSQL: loaded, changed while we run, and the database absent or gone."""


import pytest

from support.client import chat_body
from support.errors import assert_error
from support.llmctl import llmctl
from support.paths import CONF
from support.poll import stays, until
from support.postgres import ROWS, Postgres, use

def test_clients_are_loaded(database, fake_engine, gateway):
    cluster, name, _ = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name))
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    assert_error(gate.client.ask(token="nobody"), 401, "invalid_api_key")
    metrics = gate.metrics()
    assert metrics.total("llm_clients") == 2
    assert metrics.total("llm_priority_db_up") == 1


@pytest.mark.parametrize("change,token,before,after", [
    ("INSERT INTO users (token, name, priority, threshold) VALUES ('new', 'New', 5, 10)", "new", 401, 200),
    ("DELETE FROM users WHERE token = 'alice'", "alice", 200, 401),
    ("UPDATE users SET token = 'other' WHERE token = 'alice'", "alice", 200, 401),
    ("TRUNCATE users", "alice", 200, 401),
], ids=["insert", "delete", "update", "truncate"])
def test_a_notified_change_is_seen_within_a_second(database, fake_engine, gateway, change, token, before, after):
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    assert gate.client.ask(token=token).status == before
    connection.execute(change)
    until(lambda: gate.client.ask(token=token).status == after, "the change is seen", 2)


@pytest.mark.parametrize("changes,tokens", [
    (["DELETE FROM users", ROWS], ["alice", "zero"]),
    (["UPDATE users SET token = 'swap' WHERE token = 'alice'", "UPDATE users SET token = 'alice' WHERE token = 'zero'",
      "UPDATE users SET token = 'zero' WHERE token = 'swap'"], ["alice", "zero"]),
], ids=["written anew", "exchanged"])
def test_a_token_that_moves_to_another_row_stays_valid(database, fake_engine, gateway, changes, tokens):
    """The row that had it before took the token with it, until the next refresh."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    with connection.transaction():
        for change in changes:
            connection.execute(change)
    connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('last', 'Last', 1, 1)")
    until(lambda: gate.client.ask(token="last").status == 200, "the changes are seen")
    assert [gate.client.ask(token=token).status for token in tokens] == [200] * len(tokens)
    connection.execute("DELETE FROM users WHERE token = 'alice'")
    until(lambda: gate.client.ask(token="alice").status == 401, "the new row is known by its own id")


@pytest.mark.parametrize("rows", [900, 3000, 200_000])
def test_a_table_written_anew_loses_nobody(database, fake_engine, gateway, rows):
    """Each row's end was told before its successor's beginning: what waited was refused, and everybody for a moment."""
    cluster, name, connection = database
    anew = "INSERT INTO users (token, name, priority, threshold) SELECT CASE i WHEN 1 THEN 'alice' ELSE 't' || i END, 'n' || i, 1, 5 FROM generate_series(1, %s) i"
    connection.execute("DELETE FROM users")
    connection.execute(anew, [rows])
    engine = fake_engine(max_running=1)
    gate = gateway([engine], users=None, zone="160m", http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    pending = [engine.occupy(gate.client, token="alice")]
    pending.append(gate.client.send(token="alice"))
    gate.wait_queued(1)
    with connection.transaction():
        connection.execute("DELETE FROM users WHERE token <> 't2'")
        connection.execute(anew + " WHERE i <> 2", [rows])
        connection.execute("DELETE FROM users WHERE token = 't2'")
    until(lambda: gate.client.get("/v1/models", token="t2").status == 401, "the changes are seen")
    assert [gate.client.get("/v1/models", token=token).status for token in ("alice", "t3", f"t{rows}")] == [200] * 3
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200, 200]


def test_without_the_trigger_a_change_is_seen_after_refresh(postgres_cluster, fake_engine, gateway):
    name = postgres_cluster.create_database(notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute(ROWS)
        gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name, "refresh=1s"))
        gate.wait_ready()
        connection.execute("DELETE FROM users WHERE token = 'alice'")
        until(lambda: gate.client.ask(token="alice").status == 401, "the change is seen after refresh", 4)


@pytest.mark.parametrize("columns", [
    "token text, priority int, threshold int",
    "id serial primary key, token varchar(255), name text, organization text, email text, priority bigint, threshold smallint",
    "token text, priority int, threshold int, extra json, \"Weird Name\" bytea",
    "token char(40), name char(40), priority numeric, threshold smallint",
], ids=["required only", "older", "more", "padded"])
def test_older_shapes_of_the_table_load(postgres_cluster, fake_engine, gateway, columns):
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute(f"CREATE TABLE users ({columns})")
        connection.execute("INSERT INTO users (token, priority, threshold) VALUES ('alice', 5, 10), (NULL, 5, 10)")
    gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name))
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200


def test_columns_added_while_it_runs_count_from_the_next_change_on(postgres_cluster, fake_engine, gateway):
    """As `llmctl db upgrade` adds them: changed rows were read by the former columns until the next refresh, so that tokens
    turned into hashes were nobody's, and a client that was disabled went on."""
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute("CREATE TABLE users (id serial primary key, token varchar(255) NOT NULL, priority int, threshold int)")
        connection.execute((CONF / "llm_notify.sql").read_text())
        connection.execute("INSERT INTO users (token, priority, threshold) VALUES ('alice', 5, 10), ('bob', 1, 10), ('carol', 1, 10)")
        gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name, "refresh=1h"))
        gate.wait_ready()
        llmctl("db", "upgrade", "--db", postgres_cluster.url(name))
        llmctl("token", "import", "--hash-in-place", "--db", postgres_cluster.url(name))
        connection.execute("UPDATE users SET token_sha256 = encode(sha256('late'), 'hex') WHERE id = 3")
        until(lambda: gate.client.ask(token="late").status == 200, "the changes are seen", 2)
        assert [gate.client.ask(token=token).status for token in ("alice", "bob", "carol")] == [200, 200, 401]
        connection.execute("UPDATE users SET disabled = true WHERE id = 2")
        until(lambda: gate.client.ask(token="bob").status == 401, "a disabled client is refused", 2)
        connection.execute("ALTER TABLE users DROP COLUMN disabled")
        connection.execute("UPDATE users SET priority = 2")
        until(lambda: gate.client.ask(token="bob").status == 200, "a column that is gone counts no more", 2)


def test_a_row_that_stays_bad_counts_once_in_the_status(database, fake_engine, gateway):
    """The dashboard spoke of as many bad rows as the table had been read times."""
    cluster, name, connection = database
    connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('not a token', 'X', 1, 1)")
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=200ms"))
    gate.wait_ready()
    until(lambda: gate.metrics().total("llm_bad_client_rows_total") >= 3, "the table was read three times")
    assert gate.status()["sources"]["clients"]["bad_rows"] == 1
    gate.wait_logged("client skipped in")
    assert gate.error_log().count("client skipped in") == 1
    connection.execute("DELETE FROM users WHERE name = 'X'")
    until(lambda: gate.status()["sources"]["clients"]["bad_rows"] == 0, "the row is gone")


def test_too_many_clients_at_once_are_refused_as_a_whole(database, fake_engine, gateway):
    """The first two thousand were taken, as each of them is told of."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=300ms"))
    gate.wait_ready()
    known = gate.metrics().total("llm_clients")
    fits = int(gate.status()["zone"]["clients"])
    connection.execute("INSERT INTO users (token, priority, threshold) SELECT 't' || i, 1, 1 FROM generate_series(1, %s) i", [fits])
    gate.wait_logged("more clients than the zone holds")
    connection.execute("INSERT INTO users (token, priority, threshold) VALUES ('late', 1, 1)")
    connection.execute("UPDATE users SET token = 'alice2' WHERE token = 'alice'")
    until(lambda: gate.client.ask(token="alice2").status == 200, "known rows are still followed")
    assert [gate.client.ask(token=token).status for token in ("alice", "t1", f"t{fits}", "late")] == [401] * 4
    assert gate.metrics().total("llm_clients") == known
    connection.execute("DELETE FROM users WHERE token LIKE 't%'")
    until(lambda: gate.client.ask(token="late").status == 200, "what fits is taken")


def test_a_known_client_behind_thousands_of_others_is_followed(database, fake_engine, gateway):
    """Its change is told last, with more new rows before it than are followed one by one; reading the table gives nothing."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    too_many = max(int(gate.status()["zone"]["clients"]), 5000)
    with connection.transaction():
        connection.execute("INSERT INTO users (token, priority, threshold) SELECT 't' || i, 1, 1 FROM generate_series(1, %s) i", [too_many])
        connection.execute("UPDATE users SET token = 'alice2' WHERE token = 'alice'")
    gate.wait_logged("more clients than the zone holds")
    until(lambda: gate.client.ask(token="alice2").status == 200, "the known row is followed")
    assert gate.client.ask(token="alice").status == 401


def test_a_new_process_follows_known_clients_of_a_table_too_large(database, fake_engine, gateway):
    """It knew no row of a table that it could not take: whom its predecessor knew was never revoked."""
    cluster, name, connection = database
    connection.execute("INSERT INTO users (token, priority, threshold) VALUES ('bob', 5, 10), ('carol', 5, 10), ('dave', 5, 10)")
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    too_many = int(gate.status()["zone"]["clients"])
    connection.execute("INSERT INTO users (token, priority, threshold) SELECT 't' || i, 1, 1 FROM generate_series(1, %s) i", [too_many])
    gate.wait_logged("more clients than the zone holds")
    gate.reload()
    until(lambda: gate.error_log().count("more clients than the zone holds") == 2, "the new process has read the table")
    connection.execute("UPDATE users SET disabled = true WHERE token = 'alice'")
    until(lambda: gate.client.ask(token="alice").status == 401, "a client that is disabled is refused")
    connection.execute("DELETE FROM users WHERE token = 'bob'")
    until(lambda: gate.client.ask(token="bob").status == 401, "a client that is deleted is refused")
    connection.execute("ALTER TABLE users DISABLE TRIGGER ALL")
    connection.execute("UPDATE users SET disabled = true WHERE token = 'carol'")
    connection.execute("DELETE FROM users WHERE token = 'dave'")
    gate.reload()
    until(lambda: gate.client.ask(token="carol").status == 401, "a client that was disabled between two processes is refused")
    assert [gate.client.ask(token=token).status for token in ("dave", "t1")] == [200, 401], "the old table stays"
    assert "clients loaded from" not in gate.error_log().split("more clients than the zone holds")[-1]
    connection.execute("DELETE FROM users WHERE token = 't1' OR token = 't2' OR token = 't3'")
    gate.reload()
    until(lambda: gate.client.ask(token="t4").status == 200, "what fits is taken")


def test_changes_of_a_table_without_ids(postgres_cluster, fake_engine, gateway):
    """The trigger failed, and with it every change of the table."""
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute("CREATE TABLE users (token text, priority integer, threshold integer)")
        connection.execute((CONF / "llm_notify.sql").read_text())
        connection.execute("INSERT INTO users VALUES ('alice', 5, 10)")
        gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name, "refresh=1h"))
        gate.wait_ready()
        assert gate.client.ask(token="alice").status == 200
        connection.execute("INSERT INTO users VALUES ('bob', 5, 10)")
        until(lambda: gate.client.ask(token="bob").status == 200, "the new client is known")
        connection.execute("UPDATE users SET token = 'carol' WHERE token = 'bob'")
        until(lambda: gate.client.ask(token="bob").status == 401, "the old token is refused")
        assert gate.client.ask(token="carol").status == 200
        connection.execute("DELETE FROM users WHERE token = 'alice'")
        until(lambda: gate.client.ask(token="alice").status == 401, "the removed client is refused")


def test_database_going_down(own_postgres, fake_engine, gateway):
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    gate = gateway([fake_engine()], users=None, http=use(own_postgres, name, "refresh=1s grace=1h"))
    gate.wait_ready()
    assert_error(gate.client.ask(token="unknown"), 401, "invalid_api_key")
    own_postgres.kill()
    until(lambda: gate.metrics().total("llm_priority_db_up") == 0, "llm_priority_db_up is 0")
    stays(lambda: gate.client.ask(token="alice").status == 200, "a known token stopped working", 0.5)
    assert_error(gate.client.ask(token="unknown"), 503, "auth_unavailable")
    own_postgres.start()
    with own_postgres.connect(name) as connection:
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('late', 'Late', 1, 1)")
    until(lambda: gate.client.ask(token="late").status == 200, "the gateway is connected again", 15)
    assert_error(gate.client.ask(token="unknown"), 401, "invalid_api_key")


def test_grace_ends(own_postgres, fake_engine, gateway):
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    gate = gateway([fake_engine()], users=None, workers=1, http=use(own_postgres, name, "refresh=1s grace=2s"))
    gate.wait_ready()
    body = chat_body()
    slow = gate.client.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer alice\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
    assert gate.client.ask(token="alice").status == 200
    own_postgres.kill()
    until(lambda: gate.client.ask(token="alice").status == 503, "known tokens stop after grace", 15)
    assert_error(gate.client.ask(token="alice"), 503, "auth_unavailable")
    slow.send(body[10:])  # was let in when its token was known
    assert_error(slow.reply(), 503, "auth_unavailable")


def test_database_absent_at_start(own_postgres, fake_engine, gateway):
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    own_postgres.stop()
    gate = gateway([fake_engine()], users=None, http=use(own_postgres, name))
    assert_error(gate.client.ask(token="alice"), 503, "auth_unavailable")
    assert_error(gate.client.ask(), 401, "invalid_api_key")  # no token is no question to the database
    own_postgres.start()
    until(lambda: gate.client.ask(token="alice").status == 200, "clients are loaded once the database is there", 15)


def test_a_table_that_could_not_be_read_is_read_again_soon(database, fake_engine, gateway):
    """A column that was renamed for a moment cost all changes until the next refresh, and after `grace` all tokens."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    connection.execute("ALTER TABLE users RENAME COLUMN priority TO importance")
    connection.execute("NOTIFY llm_users")
    gate.wait_logged("the table users has no column priority")
    assert_error(gate.client.ask(token="unknown"), 503, "auth_unavailable")
    connection.execute("ALTER TABLE users RENAME COLUMN importance TO priority")
    connection.execute("DELETE FROM users WHERE token = 'alice'")
    until(lambda: gate.client.ask(token="alice").status == 401, "the table is read again", 10)


def test_a_locked_table_gathers_no_connections(database, fake_engine, gateway):
    """Each time that the server was taken for lost, a session of it stayed behind, waiting for the lock."""
    cluster, name, connection = database
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1s"))
    gate.wait_ready()
    with cluster.connect(name) as locker, locker.transaction():
        locker.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        locker.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('late', 'Late', 1, 1)")
        gate.wait_logged("reading users: .*canceling statement due to lock timeout", 20)
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'llm-dispatch' AND datname = %s"
        assert connection.execute(sessions, [name]).fetchone() == (2,)
        assert gate.client.ask(token="alice").status == 200
    until(lambda: gate.client.ask(token="late").status == 200, "the table is read again", 15)
    assert "trying again" not in gate.error_log()


def test_a_slow_table_gathers_no_sessions(database, fake_engine, gateway):
    """The server read on for a worker that had gone, two minutes long, and for each of those after it."""
    cluster, name, connection = database
    connection.execute("ALTER TABLE users RENAME TO slow; CREATE VIEW users AS SELECT slow.* FROM slow, pg_sleep(60)")
    reading = lambda: connection.execute("SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'",
                                         [name]).fetchone()[0] or []
    gate = gateway([fake_engine()], users=None, http=use(cluster, name))
    old = until(reading, "the table is being read")
    gate.reload()
    until(lambda: set(reading()) - set(old), "the next worker reads it, too")
    until(lambda: not set(reading()) & set(old), "nobody reads it for the former one")


def test_a_standby_that_becomes_the_primary_tells_of_changes(own_postgres, fake_engine, gateway):
    """A standby takes no LISTEN; it was asked once for each connection, and those live through its promotion."""
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    standby = Postgres(primary=own_postgres)
    try:
        standby.start()
        gate = gateway([fake_engine()], users=None, http=use(standby, name, "refresh=1h"))
        gate.wait_ready()
        gate.wait_logged("LISTEN llm_users: .*recovery")
        assert gate.client.ask(token="alice").status == 200
        assert_error(gate.client.ask(token="unknown"), 401, "invalid_api_key")
        with own_postgres.connect(name) as connection:
            connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('early', 'Early', 1, 1)")
        with standby.connect(name) as connection:
            until(lambda: connection.execute("SELECT 1 FROM users WHERE token = 'early'").fetchone(), "the standby has the new client")
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
            until(lambda: gate.client.ask(token="early").status == 200, "what nobody has told of is seen")
            connection.execute("DELETE FROM users WHERE token = 'alice'")
            until(lambda: gate.client.ask(token="alice").status == 401, "a change is seen", 2)
        assert gate.metrics().total("llm_priority_db_up") == 1
    finally:
        standby.remove()


def test_missing_table_is_a_clear_line_in_the_log(postgres_cluster, fake_engine, gateway):
    name = postgres_cluster.create_database(schema=False, notify=False)
    gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name))
    gate.wait_logged(r'relation "users" does not exist|users')
    assert_error(gate.client.ask(token="alice"), 503, "auth_unavailable")


def test_password_is_not_logged(postgres_cluster, fake_engine, gateway):
    url = f"postgresql://llm:pgsecret@127.0.0.1:{postgres_cluster.port}/does_not_exist"
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{url}";')
    gate.wait_logged("does_not_exist")
    assert "pgsecret" not in gate.error_log()


def test_changes_during_a_load(database, fake_engine, gateway):
    """A server tells a session nothing while it answers it: changes waited for the end of the table, and the table then undid them."""
    cluster, name, connection = database
    connection.execute("""
        ALTER TABLE users RENAME TO people;
        CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN true; END';
        CREATE VIEW users AS SELECT id, token, name, priority, threshold FROM people WHERE token <> 'zero' OR gate()""")
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=300ms"))
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    connection.execute("SELECT pg_advisory_lock(42)")
    until(lambda: connection.execute(waiting).fetchone()[0] == 1, "the table is being read")
    connection.execute("DELETE FROM people WHERE token = 'alice'")
    connection.execute("INSERT INTO people (token, name, priority, threshold) VALUES ('late', 'Late', 1, 1)")
    until(lambda: gate.client.ask(token="alice").status == 401, "a removed client is told of during the load")
    until(lambda: gate.client.ask(token="late").status == 200, "a new client is told of during the load")
    assert connection.execute(waiting).fetchone()[0] == 1
    connection.execute("SELECT pg_advisory_unlock(42)")
    until(lambda: connection.execute(waiting).fetchone()[0] == 0, "the table has been read")
    stays(lambda: gate.client.ask(token="alice").status == 401, "the table that was read has a client that is gone", 0.4)
    assert gate.client.ask(token="late").status == 200


def test_bytes_of_no_encoding_cost_one_row(postgres_cluster, fake_engine, gateway):
    """A database without an encoding keeps any bytes; one row with some was the end of every load."""
    name = f"bytes_{postgres_cluster.create_database(schema=False, notify=False)}"
    with postgres_cluster.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with postgres_cluster.connect(name) as connection:
        connection.execute((CONF / "schema.sql").read_text())
        connection.execute((CONF / "llm_notify.sql").read_text())
        connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('bad', E'\\xff', 1, 1), ('good', E'Ren\\xc3\\xa9', 1, 1)")
        gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name, "refresh=1h") + " llm_usage on;")
        gate.wait_ready()
        assert [gate.client.ask(token=token).status for token in ("good", "bad")] == [200, 401]
        gate.wait_logged("id 1: name: not UTF-8")
        connection.execute("UPDATE users SET name = 'Good' WHERE token = 'bad'")
        until(lambda: gate.client.ask(token="bad").status == 200, "the row is taken when it is right")
        until(lambda: len(connection.execute("SELECT 1 FROM metrics").fetchall()) == 2, "usage is written")


def test_a_row_with_the_id_0_is_followed(database, fake_engine, gateway):
    cluster, name, connection = database
    connection.execute("UPDATE users SET id = 0 WHERE token = 'alice'")
    gate = gateway([fake_engine()], users=None, http=use(cluster, name, "refresh=1h"))
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    connection.execute("DELETE FROM users WHERE id = 0")
    until(lambda: gate.client.ask(token="alice").status == 401, "the change is seen", 3)


@pytest.mark.parametrize("ids", [[f"{number:064x}" for number in range(2)], [f"uid=user{number},ou={'staff' * 20},dc=example,dc=org" for number in range(2)]])
def test_rows_with_long_ids_are_clients_too(postgres_cluster, fake_engine, gateway, ids):
    """A digest, a directory's name: such rows were skipped as a whole, although nobody has to have an id."""
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute("CREATE TABLE users (id text, token text, priority int, threshold int)")
        connection.execute((CONF / "llm_notify.sql").read_text())
        connection.execute("INSERT INTO users VALUES (%s, 'alice', 5, 10)", [ids[0]])
        gate = gateway([fake_engine()], users=None, http=use(postgres_cluster, name, "refresh=1h"))
        gate.wait_ready()
        assert gate.client.ask(token="alice").status == 200
        connection.execute("INSERT INTO users VALUES (%s, 'bob', 5, 10)", [ids[1]])
        until(lambda: gate.client.ask(token="bob").status == 200, "a new row is seen", 3)
        connection.execute("DELETE FROM users WHERE id = %s", [ids[0]])
        until(lambda: gate.client.ask(token="alice").status == 401, "a deleted one, too", 3)
