"""llm_compat aristote: the exact answers of Aristote Dispatcher, for clients written against it."""

import datetime
import json
import re

import pytest

from support.client import chat_body
from support.paths import CONF, ROOT
from support.poll import until
from support.users import user

ON = "llm_compat aristote;"


@pytest.fixture
def gate(fake_engine, gateway):
    engine = fake_engine()
    yield gateway([engine], location=ON)
    assert engine.requests == []


@pytest.mark.parametrize("headers,answer", [
    ([], "No token provided"),
    ([("Authorization", "alice")], "Invalid token"),
    ([("Authorization", "bearer alice")], "Invalid token"),
    ([("Authorization", "Bearer alice alice")], "Invalid token"),
    ([("Authorization", "Bearer nobody")], "Unauthorized"),
])
def test_tokens(gate, headers, answer):
    reply = gate.client.ask(headers=headers)
    assert (reply.status, reply.json()) == (401, {"error": answer})


@pytest.mark.parametrize("body,status,answer", [
    (b"{", 400, {"error": "Invalid JSON Body"}),
    (b"{}", 404, {"object": "error", "message": "No model specified.", "type": "NotFoundError"}),
    (b'{"model":""}', 404, {"object": "error", "message": "No model specified.", "type": "NotFoundError"}),
    (chat_body("none"), 404, {"object": "error", "error": "Unknown model"}),
    (b'{"model":"m","routing-mode":"public"}', 400,
     {"object": "error", "message": "local priority model: public not recognized: must either be 'any', 'private-first' or 'private-only'"}),
])
def test_bodies(gate, body, status, answer):
    reply = gate.client.ask(body, token="alice")
    assert (reply.status, reply.json()) == (status, answer)


def test_unknown_id(gate):
    reply = gate.client.get("/v1/models/some/model", token="alice")
    assert (reply.status, reply.json()) == (404, {"object": "error", "message": "model some/model not found", "type": "NotFoundError"})


@pytest.mark.parametrize("client_type,status", [(None, 503), ("chat", 200)])
def test_too_many_people(fake_engine, gateway, client_type, status):
    """Scope queue, and refused when the depth exceeds the threshold: with threshold 1 a second one may wait."""
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=1, client_type=client_type)], location=ON)
    engine.hold()
    pending = [gate.client.send(token="alice")]
    engine.wait_requests(1)
    for number in (1, 2):
        pending.append(gate.client.send(token="alice"))
        gate.wait_queued(number)
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.json()) == (status, {"error": "Too many people using the service"})
    engine.open_gate()
    assert all(one.reply().status == 200 for one in pending)


@pytest.mark.parametrize("client_type,status", [(None, 503), ("chat", 200)])
def test_busy_model(redis_server, fake_engine, gateway, client_type, status):
    fake_engine().announce(redis_server.url, state="failed")
    gate = gateway(users=[user("alice", client_type=client_type)], http=f"llm_redis {redis_server.url};", location=ON)
    gate.wait_metric("llm_engine_up")
    reply = gate.client.ask(token="alice")
    assert (reply.status, reply.json()) == (status, {"error": "m is busy, try again later"})


def test_an_engines_error_keeps_its_status(fake_engine, gateway):
    def script(exchange):
        exchange.json({"error": {"message": "no"}}, 422)

    gate = gateway([fake_engine(script=script)], location=ON)
    reply = gate.client.ask(token="alice")
    assert (reply.status, json.loads(reply.body)) == (422, {"error": {"message": "no"}})


# What its own migrations make of an empty database (github.com/CentraleSupelec/aristote-dispatcher, alembic/versions).
TABLES = """
    CREATE TABLE users (id SERIAL CONSTRAINT users_pkey PRIMARY KEY, token VARCHAR(255) NOT NULL CONSTRAINT unique_token UNIQUE,
                        name VARCHAR(255) NOT NULL CONSTRAINT users_name_unique UNIQUE, organization VARCHAR(255), email VARCHAR(255),
                        priority INTEGER NOT NULL, threshold INTEGER NOT NULL, client_type VARCHAR(255),
                        default_routing_mode VARCHAR(13) NOT NULL DEFAULT 'any');
    CREATE TABLE metrics (id SERIAL CONSTRAINT metrics_pkey PRIMARY KEY, user_name VARCHAR(255) NOT NULL, request_date TIMESTAMP,
                          sent_to_llm_date TIMESTAMP, response_date TIMESTAMP, model VARCHAR(255), server VARCHAR(255), prompt_tokens INTEGER,
                          completion_tokens INTEGER, requeue_count INTEGER, max_parallel_requests INTEGER, current_parallel_requests INTEGER,
                          priority INTEGER, strategy VARCHAR(255), performance_score FLOAT, routing_mode VARCHAR(255),
                          user_organization VARCHAR(255), server_organization VARCHAR(255));
    INSERT INTO users (token, name, organization, email, priority, threshold, client_type) VALUES
        ('alice', 'Alice', 'cs', 'a@cs', 5, 2, NULL), ('bob', 'Bob', 'physics', NULL, 1, 9, 'chat')"""


def test_moving_over_as_the_page_says(postgres_cluster, fake_engine, gateway, tmp_path):
    """docs/operations.md: the grants, the trigger and the configuration, on a database that its migrations have made."""
    section = (ROOT / "docs" / "operations.md").read_text().split("## Moving over from Aristote Dispatcher")[1].split("\n## ")[0]
    conf = re.search(r"```nginx\n(.*?)```", section, re.DOTALL)[1]
    grants = re.search(r"`(CREATE ROLE llm .*?;)`", section, re.DOTALL)[1]
    engine = fake_engine(models=("llama-3.1-8b",), max_running=1)
    (tmp_path / "vllm.key").write_text("vllm-secret\n")
    name = postgres_cluster.create_database(schema=False, notify=False)
    login = f"gateway_of_{name}"
    with postgres_cluster.connect(name) as connection:
        connection.execute(TABLES)
        connection.execute(re.sub(r"\bllm\b", login, grants))
        connection.execute((CONF / "llm_notify.sql").read_text())
        http, location = conf.split("upstream ")[0], re.search(r"location / {(.*?)}", conf, re.DOTALL)[1]
        for there, here in {"llm_zone            llm 64m;": "", "postgresql://llm:PASSWORD@db.example/dispatcher":
                            f"postgresql://{login}@127.0.0.1:{postgres_cluster.port}/{name}", "http://10.0.0.5:8000": engine.url,
                            "/etc/nginx/vllm.key": str(tmp_path / "vllm.key"), "max_running=100": "max_running=1"}.items():
            assert there in http
            http = http.replace(there, here)
        location = re.sub(r"llm_dispatch on;|proxy_pass .*?;", "", location)
        gate = gateway(users=None, http=http, location=location)
        gate.wait_ready()

        # strict priorities, told to the engine in vLLM's way; 2 may wait and a third one is too many
        engine.hold()
        pending = [gate.client.send(chat_body("llama-3.1-8b", content="first"), token="bob")]
        engine.wait_requests(1)
        for number, (content, token) in enumerate([("late", "bob"), ("soon", "alice"), ("sooner", "alice")], 1):
            pending.append(gate.client.send(chat_body("llama-3.1-8b", content=content), token=token))
            gate.wait_queued(number)
        reply = gate.client.ask(chat_body("llama-3.1-8b"), token="alice")
        assert (reply.status, reply.json()) == (503, {"error": "Too many people using the service"})
        engine.open_gate()
        assert [one.reply().status for one in pending] == [200] * 4
        assert [one.json()["messages"][0]["content"] for one in engine.requests] == ["first", "soon", "sooner", "late"]
        assert [one.json()["priority"] for one in engine.requests] == [4, 0, 0, 4]
        assert {one.header("authorization") for one in engine.requests} == {"Bearer vllm-secret"}

        rows = until(lambda: (found := connection.execute("""
            SELECT user_name, user_organization, model, server_organization, priority, strategy, routing_mode, prompt_tokens > 0, request_date
            FROM metrics ORDER BY id""").fetchall())[3:] and found, "the rows are written")
        assert sorted(row[:2] for row in rows) == [("Alice", "cs"), ("Alice", "cs"), ("Bob", "physics"), ("Bob", "physics")]
        assert {row[2:8] for row in rows} == {("llama-3.1-8b", "cs", 5, "least_running", "any", True), ("llama-3.1-8b", "cs", 1, "least_running", "any", True)}
        assert all(abs(row[8] - datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)) < datetime.timedelta(minutes=5) for row in rows)

        # its own command adds and deletes users
        connection.execute("INSERT INTO users (token, name, organization, email, priority, threshold, default_routing_mode) "
                           "VALUES ('carol', 'Carol', 'cs', 'c@cs', 3, 3, 'private-first')")
        until(lambda: gate.client.ask(chat_body("llama-3.1-8b"), token="carol").status == 200, "a new user is seen", 3)
        connection.execute("DELETE FROM users WHERE token = 'alice'")
        until(lambda: gate.client.ask(chat_body("llama-3.1-8b"), token="alice").status == 401, "a deleted user is seen", 3)
