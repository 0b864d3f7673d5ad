"""llm_usage while its database is there, but not as it should be: records wait, and none is lost that could be written later."""

import re

import pytest

from support.fake_engine import error
from support.poll import until
from test_usage_records import empty_disk, fill_disk, refuse_rows

ASKED = 3


@pytest.fixture
def engine(fake_engine):
    return fake_engine()


@pytest.fixture
def keeping(postgres_cluster, engine, gateway):
    """Makes a gateway of one worker with llm_usage, and a connection to its database; `port`: where it finds that."""
    name = postgres_cluster.create_database()
    url = lambda port: postgres_cluster.url(name).replace(str(postgres_cluster.port), str(port))
    with postgres_cluster.connect(name) as connection:
        yield lambda port=postgres_cluster.port: (gateway([engine], workers=1, http=f'llm_usage "{url(port)}";'), connection)


def ask(gate):
    for _ in range(ASKED):
        assert gate.client.ask(token="alice").status == 200


def all_are_written(gate, connection):
    until(lambda: gate.metrics().total("llm_usage_records_total") == ASKED, lambda: f"all are written:\n{gate.error_log()[-2000:]}", 15)
    assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (ASKED,)
    assert gate.metrics().total("llm_usage_dropped_total") == 0


@pytest.mark.parametrize("before, after, why", [
    ("ALTER TABLE metrics RENAME TO later", "ALTER TABLE later RENAME TO metrics", 'relation "metrics" does not exist'),
    ("CREATE TABLE former (nothing int); ALTER TABLE metrics RENAME TO later; ALTER TABLE former RENAME TO metrics",
     "DROP TABLE metrics; ALTER TABLE later RENAME TO metrics", "the table metrics has none of the columns"),
    ("ALTER TABLE metrics ALTER priority TYPE int[] USING ARRAY[priority]", "ALTER TABLE metrics ALTER priority TYPE int USING priority[1]",
     r'column "priority" is of type integer\[\]'),
])
def test_a_table_that_is_not_ready_yet(keeping, before, after, why):
    """As while a backup is restored, or it is exchanged: all records that waited were lost."""
    gate, connection = keeping()
    for statement in before.split(";"):
        connection.execute(statement)
    ask(gate)
    gate.wait_logged(f"usage records wait: .*{why}")
    with connection.transaction():
        for statement in after.split(";"):
            connection.execute(statement)
    all_are_written(gate, connection)


def test_a_connection_that_the_server_itself_lacks(keeping):
    """As where the table is a foreign one, or spread over servers."""
    gate, connection = keeping()
    connection.execute("CREATE TABLE state (away boolean); INSERT INTO state VALUES (true)")
    refuse_rows(connection, "(SELECT away FROM state)", "'could not connect to server' USING ERRCODE = '08001'")
    ask(gate)
    gate.wait_logged("usage records wait: .*could not connect to server")
    connection.execute("UPDATE state SET away = false")
    all_are_written(gate, connection)


def test_a_refusal_of_an_unusual_kind_costs_one_record(keeping, engine):
    """As by a view with a check option: the code says nothing of a value, and those that were sent with it were lost."""
    gate, connection = keeping()
    refuse_rows(connection, "NEW.prompt_tokens IS NULL", "'not this one' USING ERRCODE = '44000'")
    ask(gate)
    engine.script = error(400)
    assert gate.client.ask(token="alice").status == 400
    gate.wait_logged("1 usage records lost: .*not this one")
    until(lambda: gate.metrics().total("llm_usage_records_total") == ASKED, "the others are written")
    assert gate.metrics().total("llm_usage_dropped_total") == 1


def test_what_waits_is_told_although_something_was_lost_a_moment_before(keeping):
    """Both had one line per minute, together."""
    gate, connection = keeping()
    connection.execute("ALTER TABLE metrics ADD CONSTRAINT nobody CHECK (user_name IS NULL)")
    assert gate.client.ask(token="alice").status == 200
    gate.wait_logged("1 usage records lost: .*nobody")
    connection.execute("ALTER TABLE metrics DROP CONSTRAINT nobody")
    fill_disk(connection)
    ask(gate)
    gate.wait_logged("usage records wait: .*no space left")
    empty_disk(connection)
    until(lambda: gate.metrics().total("llm_usage_records_total") == ASKED, "the others are written")


def test_a_server_that_was_read_only_when_it_was_found(keeping):
    """As a standby to which a name led for a moment: the connection was kept, though the name led to the primary again."""
    gate, connection = keeping()
    database = connection.info.dbname
    connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    ask(gate)
    gate.wait_logged("usage records wait: .*read-only transaction")
    connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    all_are_written(gate, connection)
    assert len(re.findall("trying again", gate.error_log())) == 1


def test_a_stream_that_breaks_in_the_midst_of_an_answer(keeping, postgres_cluster, relay):
    """What stands there is no message of PostgreSQL."""
    between = relay(postgres_cluster.port)
    gate, connection = keeping(between.port)
    with connection.transaction():
        connection.execute("LOCK TABLE metrics IN SHARE MODE")
        ask(gate)
        waiting = lambda: connection.execute("SELECT array_agg(pid) FROM pg_locks WHERE NOT granted AND relation = 'metrics'::regclass").fetchone()[0]
        first = until(waiting, "the server waits for the lock")
        between.answer(b"!" * 64)
        gate.wait_logged("lost synchronization with server")
        until(lambda: waiting() and first[0] not in waiting(), "it waits for the next connection instead", 5)
    all_are_written(gate, connection)
