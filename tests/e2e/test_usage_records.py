"""llm_usage: one row of the table `metrics` for each request that an engine got."""

import datetime

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.poll import until

ROWS = "INSERT INTO users (token, name, organization, priority, threshold) VALUES ('alice', 'Alice', 'cs', 5, 10)"


@pytest.fixture
def database(postgres_cluster):
    name = postgres_cluster.create_database()
    with postgres_cluster.connect(name) as connection:
        connection.execute(ROWS)
        yield postgres_cluster.url(name), connection


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
        assert row[:4] == ("Alice", "cs", "m", engine.name)
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


def test_usage_on_without_a_database_is_a_configuration_error(gateway):
    gate = gateway(http="llm_usage on;", start=False)
    status, text = gate.test_conf()
    gate.metered = False
    assert status != 0
    assert "llm_usage on" in text and "PostgreSQL" in text
