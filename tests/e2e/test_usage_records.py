"""llm_usage: one row of the table `metrics` for each request that an engine got."""

import datetime
import http.client
import re
import signal
import socket
import threading

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.fake_engine import error
from support.paths import CONF
from support.poll import until
from support.wire import Incomplete

ROWS = "INSERT INTO users (token, name, organization, priority, threshold) VALUES ('alice', 'Alice', 'cs', 5, 10)"


@pytest.fixture
def database(postgres_cluster):
    name = postgres_cluster.create_database()
    with postgres_cluster.connect(name) as connection:
        connection.execute(ROWS)
        yield postgres_cluster.url(name), connection


def refuse_rows(connection, where, error, after_s=0):
    """The server refuses rows that meet `where` with the `error`, after so many seconds."""
    connection.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {where} THEN PERFORM pg_sleep({after_s}); RAISE {error}; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION refuse()""")


def fill_disk(connection, after_s=0):
    connection.execute("CREATE TABLE state (full_disk boolean); INSERT INTO state VALUES (true)")
    refuse_rows(connection, "(SELECT full_disk FROM state)", "'no space left' USING ERRCODE = 'disk_full'", after_s)


def empty_disk(connection):
    connection.execute("UPDATE state SET full_disk = false")


def ask_many(port, count):
    """Requests one after the other over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(count):
        connection.request("POST", "/v1/chat/completions", chat_body("sim", max_tokens=1), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200
        reply.read()
    connection.close()


def rows(connection, count):
    return until(lambda: len(found := connection.execute(
        "SELECT user_name, user_organization, model, server, prompt_tokens, completion_tokens, priority, routing_mode, strategy, "
        "requeue_count, max_parallel_requests, request_date, sent_to_llm_date, response_date FROM metrics ORDER BY id").fetchall())
        == count and found, f"{count} rows are written", 10)


def test_a_row_for_each_request_that_reached_an_engine(database, fake_engine, gateway):
    url, connection = database
    engine = fake_engine(max_running=7)
    gate = gateway([engine], users=None, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    assert gate.client.ask(chat_body(), token="alice").status == 200
    assert gate.client.ask(chat_body(stream=True, **{"routing-mode": "private-first"}), token="alice").status == 200
    assert_error(gate.client.ask(chat_body(), token="nobody"), 401, "invalid_api_key")
    found = rows(connection, 2)
    for row in found:
        assert row[:4] == ("Alice", "cs", "m", engine.url)
        assert row[4] > 0 and row[5] > 0
        assert row[6] == 5 and row[8] == "throughput" and row[9] == 0 and row[10] == 7
        assert row[11] <= row[12] <= row[13]
        assert abs(row[13] - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(seconds=60)
    # each worker writes its own rows, in its own time
    tokens = {row[7]: row[4] for row in found}
    assert sorted(tokens) == ["any", "private-first"]
    assert tokens["any"] == 7, "tokens as the engine has reported them"


def test_records_wait_for_the_database_and_requests_do_not(own_postgres, fake_engine, gateway):
    name = own_postgres.create_database()
    gate = gateway([fake_engine()], http=f'llm_usage "{own_postgres.url(name)}";')
    own_postgres.stop()
    for _ in range(5):
        assert gate.client.ask(chat_body(), token="alice").status == 200
    own_postgres.start()
    with own_postgres.connect(name) as connection:
        rows(connection, 5)


def test_a_row_says_what_happened(database, fake_engine, gateway):
    """Waiting, another attempt and a stream without usage, next to a plain request; and what the view makes of them."""
    url, connection = database
    engine = fake_engine(max_running=1)
    gate = gateway([engine], users=None, http=f'llm_priority_db "{url}"; llm_usage on; llm_retries 2;')
    gate.wait_ready()
    first = engine.occupy(gate.client, token="alice")
    second = gate.client.send(token="alice")
    gate.wait_queued(1)
    connection.execute("SELECT pg_sleep(0.2)")  # what it waited must be seen in its row
    engine.open_gate()
    assert first.reply().status == 200 and second.reply().status == 200
    found = rows(connection, 2)
    waited = sorted((row[12] - row[11]).total_seconds() for row in found)
    assert waited[0] < waited[1] and waited[1] > 0.15  # dates are reckoned back from two clocks, read one after the other
    connection.execute((CONF / "llm_usage.sql").read_text())
    day, name, requests, prompt, completion, total, wait, took = connection.execute("SELECT * FROM llm_usage_daily").fetchone()
    assert (day, name, requests) == (found[0][11].astimezone(datetime.timezone.utc).date(), "Alice", 2)
    assert (prompt, completion) == (sum(row[4] for row in found), sum(row[5] for row in found)) and total == prompt + completion
    assert abs(wait - sum(waited) / 2) < 0.01 and took > 0
    assert connection.execute("SELECT user_name, model, requests FROM llm_usage_daily_models").fetchall() == [("Alice", "m", 2)]
    until(lambda: gate.metrics().total("llm_usage_records_total") == 2, "the rows are counted")
    assert gate.metrics().total("llm_usage_dropped_total") == 0


def test_a_row_means_what_aristote_dispatchers_means(database, fake_engine, gateway):
    """What its reports rely on: the URL of the server, NULL for what is not known, and the others that the engine had."""
    url, connection = database
    connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('bob', 'Bob', 1, 5)")
    engine = fake_engine(max_running=3)
    gate = gateway([engine], users=None, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    engine.hold()
    pending = []
    for token in ("alice", "bob"):
        pending.append(gate.client.send(token=token))
        engine.wait_requests(len(pending))
    engine.open_gate()
    assert [one.reply().status for one in pending] == [200, 200]
    gate.wait_held(0)
    engine.script = error(400)
    assert gate.client.ask(token="bob").status == 400
    rows(connection, 3)
    found = connection.execute("SELECT user_name, user_organization, server, server_organization, current_parallel_requests, "
                               "prompt_tokens, completion_tokens, performance_score IS NULL OR performance_score > 0 FROM metrics "
                               "ORDER BY user_name, prompt_tokens").fetchall()
    assert found == [("Alice", "cs", engine.url, None, 0, 7, 4, True), ("Bob", None, engine.url, None, 1, 7, 4, True),
                     ("Bob", None, engine.url, None, 0, None, None, True)]


@pytest.mark.parametrize("seen", [1, 5, 16, 20])
def test_what_a_client_has_had_when_it_leaves_is_the_same_everywhere(database, fake_engine, gateway, seen):
    """Tokens since the last batch of sixteen were in the log, but neither charged nor counted nor in the row."""
    url, connection = database

    def script(exchange):
        exchange.stream_head()
        for number in range(seen):
            exchange.event({"choices": [{"index": 0, "delta": {"content": f"w{number} "}}]})
        exchange.wait_gone()
        raise Incomplete

    gate = gateway([fake_engine(script=script)], users=None, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    pending = gate.client.send(chat_body(stream=True), token="alice")
    parts = pending.parts()
    received = b""
    while received.count(b"data: ") < seen:
        received += next(parts)
    pending.reset()
    gate.wait_outcomes({"cancelled_running": 1})
    row, = rows(connection, 1)
    entry, = gate.access_log()
    metrics = gate.metrics()
    assert (row[4], row[5]) == (int(entry["prompt_tokens"]), int(entry["completion_tokens"])) and row[5] == seen
    for name in ("llm_tokens_total", "llm_client_tokens_total"):
        assert (metrics.total(name, type="prompt"), metrics.total(name, type="completion")) == (row[4], row[5])
    assert metrics.total("llm_tokens_estimated_total") == seen
    assert gate.status()["clients"][0]["tokens_last_minute"] == row[4] + row[5]


def test_what_a_client_that_left_has_cost_unseen_is_the_same_everywhere(database, fake_engine, gateway):
    """An answer in one piece is charged by the time that it ran; the log and the row knew nothing of that."""
    url, connection = database
    engine = fake_engine()
    gate = gateway([engine], users=None, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    pending = engine.occupy(gate.client, token="alice")
    connection.execute("SELECT pg_sleep(0.2)")  # thirty tokens a second, as nothing is known of the engine's speed
    pending.reset()
    gate.wait_outcomes({"cancelled_running": 1})
    row, = rows(connection, 1)
    entry, = gate.access_log()
    metrics = gate.metrics()
    assert row[4] >= 1 and row[5] >= 6
    assert (row[4], row[5]) == (int(entry["prompt_tokens"]), int(entry["completion_tokens"]))
    assert (metrics.total("llm_tokens_total", type="prompt"), metrics.total("llm_tokens_total", type="completion")) == (row[4], row[5])


def test_records_that_are_refused_are_counted(database, fake_engine, gateway):
    url, connection = database
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    connection.execute("ALTER TABLE metrics ADD CONSTRAINT none_of_alice CHECK (user_name <> 'Alice')")
    for _ in range(3):
        assert gate.client.ask(token="alice").status == 200
    until(lambda: gate.metrics().total("llm_usage_dropped_total") == 3, "the lost rows are counted")
    gate.wait_logged("usage records lost")
    connection.execute("ALTER TABLE metrics DROP CONSTRAINT none_of_alice")
    assert gate.client.ask(token="alice").status == 200
    rows(connection, 1)
    until(lambda: gate.metrics().total("llm_usage_records_total") == 1, "the row is counted")


# as that system's own migrations leave it until its version 1.5: records refer to users, dates have no zone
ARISTOTE = """
    CREATE TABLE users (id SERIAL PRIMARY KEY, token VARCHAR(255), priority INT NOT NULL, threshold INT NOT NULL,
                        name VARCHAR(255) NOT NULL UNIQUE, default_routing_mode VARCHAR(20) NOT NULL DEFAULT 'any');
    CREATE TABLE metrics (id SERIAL PRIMARY KEY, user_name VARCHAR(255) NOT NULL, request_date TIMESTAMP, sent_to_llm_date TIMESTAMP,
                          response_date TIMESTAMP, model VARCHAR(255), server VARCHAR(255), prompt_tokens INT, completion_tokens INT,
                          CONSTRAINT fk_user_name FOREIGN KEY (user_name) REFERENCES users (name));
    INSERT INTO users (token, priority, threshold, name) VALUES ('alice', 1, 50, 'Alice'), ('bob', 2, 50, 'Bob')"""


def test_a_refused_record_costs_no_other(postgres_cluster, fake_engine, gateway):
    """Bob is deleted before his records are written: the whole batch was lost with them."""
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute(ARISTOTE)
        url = postgres_cluster.url(name)
        gate = gateway([fake_engine()], users=None, workers=1, http=f'llm_priority_db "{url}" refresh=60s; llm_usage on;')
        gate.wait_ready()
        connection.execute("DELETE FROM users WHERE token = 'bob'")
        for turn in range(12):
            assert gate.client.ask(token="bob" if turn in (2, 7, 8) else "alice").status == 200
        until(lambda: gate.metrics().total("llm_usage_records_total") == 9, lambda: f"the others are written:\n{gate.metrics().text}")
        until(lambda: gate.metrics().total("llm_usage_dropped_total") == 3, "the lost ones are counted")
        assert connection.execute("SELECT user_name, count(*) FROM metrics GROUP BY 1").fetchall() == [("Alice", 9)]
        gate.wait_logged("fk_user_name")


def test_dates_without_a_zone_are_utc(postgres_cluster, fake_engine, gateway):
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
        connection.execute(ARISTOTE)
    with postgres_cluster.connect(name) as connection:
        gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{postgres_cluster.url(name)}"; llm_usage on;')
        gate.wait_ready()
        assert gate.client.ask(token="alice").status == 200
        dates = until(lambda: connection.execute("SELECT request_date, sent_to_llm_date, response_date FROM metrics").fetchone(), "a row")
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        assert all(abs(date - now) < datetime.timedelta(seconds=60) for date in dates)
        connection.execute((CONF / "llm_usage.sql").read_text())
        assert connection.execute("SELECT day FROM llm_usage_daily").fetchone()[0] == dates[0].date()


def test_the_grants_of_the_schema_are_enough(database, postgres_cluster, fake_engine, gateway):
    """What the last lines of schema.sql say; the columns were read from the table itself, which takes SELECT."""
    _, connection = database
    grants = (CONF / "schema.sql").read_text().split("needs no more than this:")[1].replace("--", "")
    login = f"gateway_of_{connection.info.dbname}"
    connection.execute(re.sub(r"\bllm\b", login, grants))
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "postgresql://{login}@127.0.0.1:{postgres_cluster.port}/'
                                                     f'{connection.info.dbname}"; llm_usage on;')
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    rows(connection, 1)


def test_records_wait_while_the_server_takes_none(database, fake_engine, gateway):
    url, connection = database
    gate = gateway([fake_engine()], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    fill_disk(connection)
    for _ in range(3):
        assert gate.client.ask(token="alice").status == 200
    gate.wait_logged("usage records wait.*no space left")
    empty_disk(connection)
    rows(connection, 3)
    assert gate.metrics().total("llm_usage_dropped_total") == 0


def test_a_server_that_refuses_slowly_does_not_stop_the_others(database, fake_engine, gateway):
    """Longer than the second after which the columns are read again: the whole batch was sent again and again."""
    url, connection = database
    engine = fake_engine()
    gate = gateway([engine], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    refuse_rows(connection, "NEW.prompt_tokens IS NULL", after_s=1.2, error="'no count'")
    assert gate.client.ask(chat_body(), token="alice").status == 200
    engine.script = error(400)
    assert gate.client.ask(chat_body(), token="alice").status == 400
    gate.wait_logged("1 usage records lost: .*no count", 30)
    rows(connection, 1)
    assert gate.metrics().total("llm_usage_dropped_total") == 1


def test_records_that_are_refused_late_are_written_later(database, fake_engine, gateway):
    """Nothing looked after them once the second was over in which they were sent, until the next record came."""
    url, connection = database
    gate = gateway([fake_engine()], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    fill_disk(connection, after_s=1.5)
    assert gate.client.ask(token="alice").status == 200
    gate.wait_logged("1 usage records wait.*no space left")
    empty_disk(connection)
    rows(connection, 1)


def test_records_that_wait_for_a_lock_are_written_once(database, fake_engine, gateway):
    """The server was taken for lost, its session waited on, and the next one beside it: each wrote the same rows in the end."""
    url, connection = database
    gate = gateway([fake_engine()], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    with connection.transaction():
        connection.execute("LOCK TABLE metrics IN SHARE MODE")  # as CREATE INDEX does
        assert gate.client.ask(token="alice").status == 200
        gate.wait_logged("1 usage records wait: .*canceling statement due to statement timeout", 20)
    rows(connection, 1)
    assert connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,)
    assert gate.metrics().total("llm_usage_records_total") == 1
    assert "trying again" not in gate.error_log()


def test_the_table_changes_while_records_are_written(database, fake_engine, gateway):
    """The columns were read once for a connection, and again only when one was gone."""
    url, connection = database
    gate = gateway([fake_engine()], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    rows(connection, 1)
    connection.execute("ALTER TABLE metrics DROP COLUMN performance_score, DROP COLUMN strategy")
    assert gate.client.ask(token="alice").status == 200
    rows_of = "SELECT count(*) FROM metrics"
    until(lambda: connection.execute(rows_of).fetchone()[0] == 2, "a row without them is written")
    connection.execute("ALTER TABLE metrics ADD COLUMN strategy text")
    assert gate.client.ask(token="alice").status == 200
    until(lambda: connection.execute(rows_of).fetchone()[0] == 3, "a row with the column that came back is written")
    assert connection.execute("SELECT strategy FROM metrics ORDER BY id").fetchall() == [(None,), (None,), ("throughput",)]
    assert gate.metrics().total("llm_usage_dropped_total") == 0


def test_the_backlog_is_bounded(own_postgres, llm_engine, nginx):
    """One worker, no database, more requests than are kept: the oldest rows are lost, counted, and the rest is written."""
    kept, more = 10_000, 150
    name = own_postgres.create_database()
    engine = llm_engine(sim=True)
    gate = nginx(workers=1, http=f'llm_engine {engine.url} model=sim max_running=64; llm_usage "{own_postgres.url(name)}";')
    own_postgres.stop()
    threads = [threading.Thread(target=ask_many, args=(gate.port, (kept + more) // 10)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.wait_outcomes({"completed": kept + more}, 60)
    until(lambda: gate.metrics().total("llm_usage_dropped_total") == more, "the oldest are dropped", 30)
    own_postgres.start()
    with own_postgres.connect(name) as connection:
        until(lambda: connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == kept, "the others are written", 60)
    until(lambda: gate.metrics().total("llm_usage_records_total") == kept, "and counted")


def test_usage_on_without_a_database_is_a_configuration_error(gateway):
    gate = gateway(http="llm_usage on;", start=False)
    status, text = gate.test_conf()
    gate.metered = False
    assert status != 0
    assert "llm_usage on" in text and "PostgreSQL" in text


def test_requests_that_a_shutdown_cuts_are_recorded(database, fake_engine, gateway):
    """worker_shutdown_timeout closed the writer's connection along with theirs."""
    url, connection = database
    engine = fake_engine()
    gate = gateway([engine], users=None, workers=1, main="worker_shutdown_timeout 1s;", http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    assert gate.client.ask(chat_body(), token="alice").status == 200
    rows(connection, 1)
    engine.hold()
    pending = [gate.client.send(chat_body(), token="alice") for _ in range(3)]
    engine.wait_requests(4)
    gate.reload()
    rows(connection, 4)
    until(lambda: not gate.old_workers(), "the old worker has ended")
    engine.open_gate()
    assert all(request.answered() for request in pending)


@pytest.mark.parametrize("how", ["reload", "stop"])
def test_the_first_record_of_a_worker_that_leaves_is_written(database, fake_engine, gateway, how):
    """Its connection to the database is made for it, and the worker ended before there was one."""
    url, connection = database
    engine = fake_engine()
    gate = gateway([engine], users=None, workers=1, http=f'llm_priority_db "{url}"; llm_usage on;')
    gate.wait_ready()
    pending = engine.occupy(gate.client, chat_body(), token="alice")
    if how == "reload":
        gate.reload()
    else:
        gate.send_signal(signal.SIGQUIT)
        until(lambda: not gate.workers(), "the worker knows that it must go")
    engine.open_gate()
    assert pending.reply().status == 200
    until(lambda: not gate.old_workers(), "the worker has ended")
    if how == "stop":
        gate.lose()
    rows(connection, 1)
    assert "usage records lost" not in gate.error_log()


def test_a_worker_that_leaves_does_not_wait_for_a_resolver(database, fake_engine, gateway):
    """Its answer would come by the event loop, which turns no more."""
    url, connection = database
    engine = fake_engine()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        gate = gateway([engine], workers=1, http=f'resolver 127.0.0.1:{silent.getsockname()[1]}; llm_usage "{url.replace("127.0.0.1", "localhost")}";')
        gate.wait_ready()
        pending = engine.occupy(gate.client, chat_body(), token="alice")
        gate.reload()
        engine.open_gate()
        assert pending.reply().status == 200
        until(lambda: not gate.old_workers(), "the worker has ended")
        rows(connection, 1)
        assert "usage records lost" not in gate.error_log()


def test_a_worker_that_leaves_does_not_wait_for_the_next_attempt(own_postgres, fake_engine, gateway):
    """The database had been away, and was back before the pause between two attempts was over."""
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute(ROWS)
    engine = fake_engine()
    gate = gateway([engine], users=None, workers=1, http=f'llm_priority_db "{own_postgres.url(name)}"; llm_usage on;')
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200
    with own_postgres.connect(name) as connection:
        rows(connection, 1)
    own_postgres.stop()
    gate.wait_logged("llm: database .*; trying again")
    engine.hold()
    pending = gate.client.send(token="alice")
    engine.wait_requests(2)
    gate.reload()
    own_postgres.start()
    engine.open_gate()
    assert pending.reply().status == 200
    with own_postgres.connect(name) as connection:
        rows(connection, 2)
