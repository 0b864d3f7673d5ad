"""docs/from-aristote-dispatcher.md: its commands and its configuration, on a database that the other system's migrations have made."""

import datetime
import os
import re
import subprocess

import pytest

from support.client import chat_body
from support.llmctl import environment, llmctl
from support.paths import BUILD, ROOT, postgres_binaries
from support.poll import until

PAGE = (ROOT / "docs" / "from-aristote-dispatcher.md").read_text()

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
    CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('212c4b4d9489');
    INSERT INTO users (token, name, organization, email, priority, threshold, client_type) VALUES
        ('alice', 'Alice', 'cs', 'a@cs', 5, 2, NULL), ('bob', 'Bob', 'physics', NULL, 1, 9, 'chat')"""


def part(heading, kind):
    """The blocks of this kind in the part of the page under `heading`."""
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found


class Site:
    """A database of that system, and the page's commands with its names."""

    def __init__(self, cluster):
        self.name = cluster.create_database(schema=False, notify=False)
        self.login = f"gateway_of_{self.name}"
        self.port = cluster.port
        self.url = cluster.url(self.name)
        self.connection = cluster.connect(self.name)
        self.connection.execute(TABLES)

    def run(self, script):
        """Runs commands of the page as they stand there, but for what is this database's own."""
        script = script.replace("postgresql://OWNER@db.example/dispatcher", self.url)
        script = re.sub(r"\b(ROLE|TO|BY) llm\b", rf"\1 {self.login}", script)
        path = f"{BUILD}:{postgres_binaries()}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT,
                              env=environment(LLM_DB=self.url, PATH=path))
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def schema(self):
        """All that is in the database but its rows; without pg_dump's random words."""
        dump = subprocess.run([postgres_binaries() / "pg_dump", "--schema-only", self.url], capture_output=True, text=True, check=True)
        return re.sub(r"^\\(un)?restrict .*$", "", dump.stdout, flags=re.MULTILINE)


@pytest.fixture
def site(postgres_cluster):
    made = Site(postgres_cluster)
    yield made
    made.connection.close()


def test_moving_over(site, fake_engine, gateway, tmp_path):
    connection = site.connection
    listed = site.run(part("Switching over", "sh")[0])
    assert re.search(r"Alice .*active\n.*Bob .*active", listed)
    conf = part("Switching over", "nginx")[0]
    engine = fake_engine(models=("llama-3.1-8b",), max_running=1)
    (tmp_path / "vllm.key").write_text("vllm-secret\n")
    http, location = conf.split("upstream ")[0], re.search(r"location / {(.*?)}", conf, re.DOTALL)[1]
    for there, here in {"llm_zone            llm 64m;": "", "postgresql://llm:PASSWORD@db.example/dispatcher":
                        f"postgresql://{site.login}@127.0.0.1:{site.port}/{site.name}", "http://10.0.0.5:8000": engine.url,
                        "/etc/nginx/vllm.key": str(tmp_path / "vllm.key"), "max_running=100": "max_running=1"}.items():
        assert there in http
        http = http.replace(there, here)
    location = re.sub(r"llm_dispatch on;|proxy_pass .*?;", "", location)
    gate = gateway(users=None, http=http, location=location)
    gate.wait_ready()

    # strict priorities, told to the engine in vLLM's way; 2 may wait and a third one is too many
    pending = [engine.occupy(gate.client, chat_body("llama-3.1-8b", content="first"), token="bob")]
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
        SELECT user_name, user_organization, model, server, server_organization, priority, strategy, routing_mode, prompt_tokens > 0, request_date
        FROM metrics ORDER BY id""").fetchall())[3:] and found, "the rows are written")
    assert sorted(row[:2] for row in rows) == [("Alice", "cs"), ("Alice", "cs"), ("Bob", "physics"), ("Bob", "physics")]
    assert {row[2:9] for row in rows} == {("llama-3.1-8b", engine.url, "cs", priority, "least_running", "any", True) for priority in (5, 1)}
    assert all(abs(row[9] - datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)) < datetime.timedelta(minutes=5) for row in rows)

    def status(token):
        return gate.client.ask(chat_body("llama-3.1-8b"), token=token).status

    # its own command adds and deletes users
    connection.execute("INSERT INTO users (token, name, organization, email, priority, threshold, default_routing_mode) "
                       "VALUES ('dave', 'Dave', 'cs', 'd@cs', 3, 3, 'private-first')")
    until(lambda: status("dave") == 200, "a new user is seen", 3)
    connection.execute("DELETE FROM users WHERE token = 'dave'")
    until(lambda: status("dave") == 401, "a deleted user is seen", 3)
    # so does llmctl, in rows that both understand
    assert site.run(part("Switching over", "sh")[1]).startswith("sk-")
    assert connection.execute("SELECT name, token FROM users ORDER BY id").fetchall() == [("Alice", "alice"), ("Bob", "bob")]

    site.run(part("When nobody uses the other one any more", "sh")[0])
    connection.execute("UPDATE users SET disabled = true WHERE name = 'Bob'")
    until(lambda: status("bob") == 401, "the new columns count", 3)
    assert status("alice") == 200
    assert connection.execute("SELECT DISTINCT token FROM users").fetchall() == [(None,)]


def test_going_back(site):
    """The database is then as the other system has left it, whatever was put in on the way."""
    before = site.schema()
    rows = site.connection.execute("SELECT * FROM users").fetchall()
    site.run(part("Switching over", "sh")[0])
    llmctl("db", "init", "--db", site.url)
    llmctl("db", "upgrade", "--db", site.url)
    assert site.schema() != before
    site.connection.execute(part("Going back", "sql")[0])
    site.run(part("Going back", "sh")[0])
    assert site.schema() == before
    assert site.connection.execute("SELECT * FROM users").fetchall() == rows


def test_every_command_of_the_page_is_tried_above():
    tried = ["Switching over"] * 2 + ["Going back", "When nobody uses the other one any more"]
    assert PAGE.count("\n```sh\n") == len(tried) == sum(len(part(heading, "sh")) for heading in set(tried))
