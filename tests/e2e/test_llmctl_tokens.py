"""llmctl token …, db …: against a real PostgreSQL, and a gateway that reads it."""

import json
import pathlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from support.llmctl import LLMCTL, llmctl, sha256
from support.poll import until

# Aristote Dispatcher's table as its own migrations leave it
# (github.com/CentraleSupelec/aristote-dispatcher, src/migrations/postgres).
ARISTOTE = """
CREATE TABLE users (id SERIAL PRIMARY KEY, token VARCHAR(255) NOT NULL UNIQUE, priority INT NOT NULL, threshold INT NOT NULL,
                    name VARCHAR(255) NOT NULL UNIQUE, client_type VARCHAR(50), organization VARCHAR(255), email VARCHAR(255),
                    default_routing_mode VARCHAR(50) DEFAULT 'any');
CREATE TABLE metrics (id SERIAL PRIMARY KEY, user_name VARCHAR(255) NOT NULL REFERENCES users(name), request_date TIMESTAMP,
                      sent_to_llm_date TIMESTAMP, response_date TIMESTAMP, model VARCHAR(255), server VARCHAR(255),
                      prompt_tokens INT, completion_tokens INT);
INSERT INTO users (token, priority, threshold, name, organization) VALUES
    ('plain-a', 1, 5, 'a', 'cs'), ('plain-b', 2, 10, 'b', NULL);
"""


@pytest.fixture
def database(postgres_cluster):
    """An empty database: (url, connection)."""
    name = postgres_cluster.create_database(schema=False, notify=False)
    with postgres_cluster.connect(name) as connection:
        yield postgres_cluster.url(name), connection


@pytest.fixture
def ready(database):
    url, connection = database
    llmctl("db", "init", "--db", url)
    return url, connection


@pytest.fixture
def aristote(database):
    url, connection = database
    connection.execute(ARISTOTE)
    return url, connection


def rows(connection, columns="name, token, token_sha256"):
    return connection.execute(f"SELECT {columns} FROM users ORDER BY id").fetchall()


# ------------------------------------------------------------------------------------------------------ tokens

def test_add_prints_the_secret_once_and_stores_its_hash(ready):
    url, connection = ready
    added = llmctl("token", "add", "alice", "--priority", 5, "--db", url)
    secret = added.out.strip()
    assert secret.startswith("sk-") and len(secret) >= 43
    assert secret not in added.err and "alice" in added.err
    assert rows(connection) == [("alice", None, sha256(secret))]
    listed = llmctl("token", "list", "--db", url)
    assert secret not in listed.out + listed.err and sha256(secret) not in listed.out
    assert sha256(secret)[:12] in listed.out and "active" in listed.out
    assert llmctl("token", "add", "bob", "--db", url).out != added.out


def test_a_secret_that_no_header_could_carry_is_not_made(ready):
    url, connection = ready
    for prefix in ("a b", "a\nb", "sk-\t", "sch\u00f6n-", "x" * 65):
        assert "--prefix: expected at most 64 ASCII characters" in llmctl("token", "add", "alice", "--prefix", prefix, "--db", url, status=2).err
    assert rows(connection) == []
    assert llmctl("token", "add", "alice", "--prefix", "team-", "--db", url).out.startswith("team-")


def test_a_secret_that_cannot_be_shown_is_an_error(ready):
    url, _ = ready
    with open("/dev/full", "w") as full:
        for words in (["token", "add", "alice"], ["token", "list"]):
            done = subprocess.run([LLMCTL, *words, "--db", url], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
            assert done.returncode == 1 and "standard output cannot be written: No space left on device" in done.stderr


def test_whose_token_is_this_is_not_read_in_the_list_of_processes(ready):
    url, connection = ready
    secret = llmctl("token", "add", "alice", "--db", url).out.strip()
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE users")
        process = subprocess.Popen([LLMCTL, "token", "revoke", secret, "--db", url], stdout=subprocess.PIPE)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'llmctl' AND wait_event_type = 'Lock'"
        until(lambda: connection.execute(waiting).fetchone(), "it waits for the table")
        shown = pathlib.Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    assert shown[1:3] == ["token", "revoke"] and shown[3] == "*" * len(secret) and "--db" in shown
    assert "Revoked" in process.communicate(timeout=60)[0].decode() and process.returncode == 0


def test_several_may_make_the_tables_at_once(database):
    """Of a start that several machines make together, say."""
    url, connection = database
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: llmctl("db", "init", "--db", url).out, range(6)))
    assert sum("table users: made" in out for out in made) == 1
    assert rows(connection) == []


def test_every_column_can_be_given_and_changed(ready):
    url, connection = ready
    first = {"--organization": "cs", "--email": "a@x", "--priority": 7, "--threshold": 3, "--client-type": "chat",
             "--default-routing-mode": "private-first", "--weight": "2.5", "--band": -1, "--max-running": 4,
             "--tokens-per-minute": 5000, "--models": "m,org/n", "--expires-at": "2030-01-02T03:04:05Z", "--disabled": "true"}
    added = llmctl("token", "add", "--name", "alice", *[word for pair in first.items() for word in pair], "--json", "--db", url).json()
    listed = llmctl("--json", "token", "list", env={"LLM_DB": url}).json()
    assert len(listed) == 1
    shown = listed[0]
    assert {name: shown[name[2:].replace("-", "_")] for name in first} == {
        **first, "--weight": 2.5, "--models": ["m", "org/n"], "--disabled": True}
    assert shown["state"] == "disabled" and shown["stored"] == "hash"
    assert added["token"] not in json.dumps(listed)
    llmctl("token", "edit", "alice", "--priority=9", "--models=", "--weight=", "--disabled=false", "--expires-at", "never",
           "--max_running", "0", "--db", url)
    shown = llmctl("token", "list", "--json", "--db", url).json()[0]
    assert (shown["priority"], shown["models"], shown["weight"], shown["disabled"], shown["expires_at"], shown["max_running"]) == (
        9, None, None, False, None, 0)
    assert shown["threshold"] == 3 and shown["state"] == "active"
    # in days from now, and in the table as a time
    llmctl("token", "edit", "alice", "--expires-at", "+30d", "--db", url)
    days = connection.execute("SELECT extract(epoch FROM expires_at - now()) / 86400 FROM users").fetchone()[0]
    assert 29.9 < days < 30.1


def test_who_is_meant(ready):
    url, connection = ready
    secret = llmctl("token", "add", "2", "--email", "x@y", "--db", url).out.strip()
    llmctl("token", "add", "two", "--email", "x@y", "--db", url)
    fingerprint = sha256(secret)
    for who in ("name:2", "id:1", fingerprint[:8], f"sha256:{fingerprint}", secret):
        llmctl("token", "edit", who, "--threshold", 1, "--db", url)
    for who in ("x@y", "2"):  # two addresses; a name that is another's id
        refused = llmctl("token", "edit", who, "--threshold", 2, "--db", url, status=1)
        assert "id:X" in refused.err and '"two"' in refused.err
    assert "no client" in llmctl("token", "edit", "nobody", "--threshold", 2, "--db", url, status=3).err
    assert llmctl("token", "revoke", "sk-somebodys-secret", "--db", url, status=3).err.count("somebodys") == 0
    assert [row[0] for row in rows(connection, "threshold")] == [1, 10]


def test_the_gateway_follows_within_a_second(ready, fake_engine, gateway):
    url, _ = ready
    secret = llmctl("token", "add", "alice", "--db", url).out.strip()
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{url}" refresh=60s;')
    gate.wait_ready()
    assert gate.client.ask(token=secret).status == 200
    llmctl("token", "edit", "alice", "--models", "another", "--db", url)
    until(lambda: gate.client.ask(token=secret).status == 403, "the change is seen")
    llmctl("token", "edit", "alice", "--models=", "--db", url)
    until(lambda: gate.client.ask(token=secret).status == 200, "the change is seen")
    llmctl("token", "revoke", "alice", "--db", url)
    until(lambda: gate.client.ask(token=secret).status == 401, "the token is revoked")
    shown = llmctl("token", "list", "--json", "--db", url).json()
    assert [entry["state"] for entry in shown] == ["disabled"]
    llmctl("token", "revoke", "alice", "--delete", "--db", url)
    assert llmctl("token", "list", "--json", "--db", url).json() == []


@pytest.mark.parametrize("store", ["database", "file"])
def test_rotate(ready, fake_engine, gateway, tmp_path, store):
    """Another secret at once, and one beside the former for some time."""
    url, path = ready[0], tmp_path / "tokens.json"
    where = ["--db", url] if store == "database" else ["--file", path]
    first = llmctl("token", "add", "alice", *where, *(["--create"] if store == "file" else []), "--models", "m,n", "--expires-at", "+2d").out.strip()
    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{url if store == "database" else f"file:{path}"}" refresh=1h;')

    def answers(secret, status):
        until(lambda: gate.client.ask(token=secret).status == status, "the gateway follows")

    answers(first, 200)
    done = llmctl("token", "rotate", "alice", *where)
    second = done.out.strip()
    assert second.startswith("sk-") and second != first and "the former secret is refused from now on" in done.err
    answers(second, 200)
    answers(first, 401)
    listed = llmctl("token", "list", *where, "--json").json()
    assert len(listed) == 1 and listed[0]["models"] == ["m", "n"] and listed[0]["expires_at"]

    # the former one goes on, and is never missed
    done = llmctl("token", "rotate", "alice", *where, "--keep", "+1d", "--prefix", "key-", "--json").json()
    third, former = done["token"], f"sha256:{done['former']['fingerprint']}"
    assert third.startswith("key-") and former == f"sha256:{sha256(second)[:12]}"
    assert gate.client.ask(token=second).status == 200
    answers(third, 200)
    one, other = llmctl("token", "list", *where, "--json").json()
    assert (one["state"], one["expires_at"], other["state"]) == ("active", done["former"]["expires_at"], "active")
    assert other["models"] == ["m", "n"] and other["expires_at"] == listed[0]["expires_at"] > one["expires_at"]
    llmctl("token", "edit", former, *where, "--expires-at", "+1s")
    answers(second, 401)
    assert [row["state"] for row in llmctl("token", "list", *where, "--json").json()] == ["expired", "active"]
    llmctl("token", "revoke", "--delete", former, *where)
    assert len(llmctl("token", "list", *where, "--json").json()) == 1
    assert gate.client.ask(token=third).status == 200


def test_rotate_keeps_what_does_not_change(ready):
    url, connection = ready
    llmctl("token", "add", "alice", "--db", url, "--expires-at", "2030-01-01")
    before = connection.execute("SELECT id FROM users").fetchone()
    assert llmctl("token", "rotate", "alice", "--db", url, "--stdin", stdin="my-own\n").out == ""
    assert rows(connection, "id, name, token, token_sha256") == [(*before, "alice", None, sha256("my-own"))]
    assert "belongs to" in llmctl("token", "rotate", "alice", "--db", url, "--stdin", stdin="my-own\n", status=1).err
    assert "--keep" in llmctl("token", "rotate", "alice", "--db", url, "--keep", "never", status=2).err
    # not longer than it would have been
    done = llmctl("token", "rotate", "alice", "--db", url, "--keep", "2031-01-01", "--json").json()
    assert done["former"]["expires_at"] == "2030-01-01T00:00:00Z"
    assert llmctl("token", "rotate", "alice", "--db", url, status=1).err.count("alice") == 2, "which one is not clear"
    llmctl("token", "revoke", f"sha256:{done['fingerprint']}", "--db", url)
    assert "It stays disabled." in llmctl("token", "rotate", f"sha256:{done['fingerprint']}", "--db", url).err


def test_rotations_at_once_follow_each_other(ready):
    """Each gave the client another row: three secrets were good, and its name was clear no more."""
    url, connection = ready
    llmctl("token", "add", "alice", "--db", url)
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted"
    with ThreadPoolExecutor(2) as pool:
        with connection.transaction():
            connection.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
            both = [pool.submit(llmctl, "token", "rotate", "alice", "--keep", "+1d", "--db", url, status=None) for _ in range(2)]
            until(lambda: connection.execute(waiting).fetchone()[0] == 2, "both want to change it")
        first, second = sorted((done.result() for done in both), key=lambda done: done.status)
    assert (first.status, second.status) == (0, 1) and "2 clients match" in second.err
    assert [row[2] for row in rows(connection)][1:] == [sha256(first.out.strip())]


@pytest.mark.parametrize("words", [("edit", "--priority", 7), ("revoke",), ("revoke", "--delete"), ("rotate",)], ids=lambda words: " ".join(map(str, words)))
def test_a_row_that_is_deleted_meanwhile_was_not_changed(ready, words):
    """The command said that it had changed it."""
    url, connection = ready
    for name in ("alice", "bob"):
        llmctl("token", "add", name, "--db", url)
    connection.autocommit = False
    connection.execute("DELETE FROM users WHERE name = 'bob'")
    with ThreadPoolExecutor() as pool:
        command, *options = words
        asked = pool.submit(llmctl, "token", command, "bob", *options, "--db", url, status=None)
        with psycopg.connect(url, autocommit=True) as watching:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            until(lambda: watching.execute(waits).fetchone()[0] == 1, "the command waits for the row")
        connection.commit()
        answer = asked.result()
    connection.autocommit = True
    assert answer.status != 0 and answer.out == ""
    assert "was deleted meanwhile" in answer.err or "no client" in answer.err
    assert [name for name, *_ in rows(connection, "name")] == ["alice"]


def test_rotate_in_an_existing_table(aristote):
    """What is in clear stays so: the other system reads it."""
    url, connection = aristote
    done = llmctl("token", "rotate", "a", "--db", url)
    assert connection.execute("SELECT id, name, token, priority FROM users WHERE name = 'a'").fetchall() == [(1, "a", done.out.strip(), 1)]
    assert "no column" in llmctl("token", "rotate", "a", "--db", url, "--keep", "+1d", status=1).err


def test_a_secret_of_ones_own_from_standard_input(ready):
    url, connection = ready
    llmctl("token", "add", "alice", "--stdin", "--db", url, stdin="made-elsewhere\n")
    assert rows(connection) == [("alice", None, sha256("made-elsewhere"))]
    refused = llmctl("token", "add", "bob", "--stdin", "--db", url, stdin="made-elsewhere\n", status=1)
    assert "alice" in refused.err and "made-elsewhere" not in refused.err
    for secret in ("two words\n", "sch\u00f6n\n", "\n"):
        assert "--stdin: expected one line" in llmctl("token", "add", "bob", "--stdin", "--db", url, stdin=secret, status=2).err
    assert len(rows(connection)) == 1


# ---------------------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize("words, told", [
    (["--priority", "high"], "0 to 1000"), (["--priority", "1001"], "0 to 1000"), (["--priority="], "empty"),
    (["--threshold", "-1"], "whole number"), (["--expires-at", "2027"], "2026-12-31"), (["--weight", "0"], "above 0"), (["--weight", "nan"], "above 0"),
    (["--default-routing-mode", "public"], "private-only"), (["--expires-at", "soon"], "2026-12-31"),
    (["--disabled", "perhaps"], "true or false"), (["--models", "a\tb"], "control"), (["--organization", "x" * 300], "longer"),
    (["--colour", "red"], "--priority"), (["--priority"], "needs a value"), (["--priority", "1", "--priority", "2"], "twice"),
    (["another", "operand"], "operand")])
def test_a_wrong_command_line_changes_nothing(ready, words, told):
    url, connection = ready
    result = llmctl("token", "add", "--name", "alice", "--db", url, *words, status=2)
    assert told in result.err and not result.out
    assert rows(connection) == []


def test_errors_have_their_own_status(tmp_path, postgres_cluster, database):
    url, _ = database
    assert "db init" in llmctl("token", "list", "--db", url, status=1).err
    nowhere = llmctl("token", "list", "--json", "--db", "postgresql://llm:secret@127.0.0.1:1/llm", status=4)
    assert nowhere.json()["error"]["status"] == 4 and "secret" not in nowhere.out + nowhere.err
    assert "postgresql://" in llmctl("token", "list", "--db", "mysql://x", status=2).err
    assert "exclude" in llmctl("token", "list", "--db", url, "--file", "x", status=2).err
    assert "token add" in llmctl("tokens", status=2).err
    assert "token list" in llmctl("token", status=2).err
    llmctl(status=2)
    llmctl("token", "list", "--file", tmp_path / "none.json", status=3)


def test_help_is_there_for_every_command():
    text = llmctl("--help").out
    names = [line.split("  ")[1] for line in text.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
    assert len(names) >= 14
    for name in names:
        words = [word for word in name.split() if word.islower()]
        assert "Usage: llmctl " + " ".join(words) in llmctl(*words, "--help").out
    assert "Exit status" in text
    assert llmctl("--version").out.startswith("llmctl ")


# ------------------------------------------------------------------------------------------ Aristote's table

def test_an_existing_table_is_used_as_it_is(aristote):
    url, connection = aristote
    assert [entry["name"] for entry in llmctl("token", "list", "--json", "--db", url).json()] == ["a", "b"]
    refused = llmctl("token", "add", "c", "--db", url, status=1)
    assert "db upgrade" in refused.err and "--plain" in refused.err
    assert "weight" in llmctl("token", "edit", "a", "--weight", 2, "--db", url, status=1).err
    secret = llmctl("token", "add", "c", "--plain", "--db", url).out.strip()
    assert rows(connection, "name, token") == [("a", "plain-a"), ("b", "plain-b"), ("c", secret)]
    assert "plain-a" not in llmctl("token", "list", "--json", "--db", url).out
    llmctl("token", "edit", "a", "--priority", 8, "--organization=", "--db", url)
    llmctl("token", "revoke", "b", "--db", url)  # there is no column `disabled`
    assert rows(connection, "name, priority, organization") == [("a", 8, None), ("c", 1, None)]
    # a client that usage records refer to cannot be deleted; the refusal says nothing of its token
    connection.execute("INSERT INTO metrics (user_name) VALUES ('a')")
    assert "plain-a" not in llmctl("token", "revoke", "a", "--db", url, status=1).err
    llmctl("db", "upgrade", "--db", url)
    llmctl("token", "revoke", "a", "--db", url)
    assert rows(connection, "name, disabled") == [("a", True), ("c", False)]


def test_upgrade_adds_columns_and_nothing_else(aristote):
    url, connection = aristote
    before = rows(connection, "id, token, priority, threshold, name, organization")
    planned = llmctl("db", "upgrade", "--dry-run", "--db", url).out
    assert "token_sha256" in planned
    with pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute("SELECT token_sha256 FROM users")
    llmctl("db", "upgrade", "--db", url)
    assert rows(connection, "id, token, priority, threshold, name, organization") == before
    secret = llmctl("token", "add", "c", "--max-running", 2, "--models", "m,n", "--db", url).out.strip()
    assert rows(connection, "token, token_sha256, models")[2] == (None, sha256(secret), ["m", "n"])
    assert llmctl("db", "upgrade", "--json", "--db", url).json()["done"] == []


def test_init_leaves_what_is_there(aristote):
    url, connection = aristote
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename = 'metrics'"
    before = connection.execute(indexes).fetchall()
    for _ in range(2):
        assert "left as it is" in llmctl("db", "init", "--db", url).out
    assert rows(connection, "name, token") == [("a", "plain-a"), ("b", "plain-b")]
    # an index of a large table stops the other system, which writes there, for as long as it takes
    assert connection.execute(indexes).fetchall() == before
    connection.execute("LISTEN llm_users")
    llmctl("token", "edit", "a", "--priority", 3, "--db", url)
    assert next(connection.notifies()).payload == "1"
    assert connection.execute("SELECT count(*) FROM llm_usage_daily").fetchone() == (0,)


def test_init_follows_a_table_without_ids(database):
    """It made no trigger there, though the trigger needs no id."""
    url, connection = database
    connection.execute("CREATE TABLE users (token text, priority integer, threshold integer)")
    assert "gateways see changes at once" in llmctl("db", "init", "--db", url).out
    connection.execute("LISTEN llm_users")
    connection.execute("INSERT INTO users VALUES ('alice', 1, 1)")
    assert next(connection.notifies()).payload == ""


def test_import_copies_and_hashes(aristote, postgres_cluster):
    source, _ = aristote
    name = postgres_cluster.create_database(notify=False)
    url = postgres_cluster.url(name)
    planned = llmctl("token", "import", source, "--dry-run", "--json", "--db", url).json()
    assert planned == {"added": 2, "updated": 0, "left": 0, "dry_run": True}
    with postgres_cluster.connect(name) as connection:
        assert rows(connection) == []
        llmctl("token", "import", "--from", source, "--db", url)
        assert rows(connection, "name, token, token_sha256, priority, threshold, organization") == [
            ("a", None, sha256("plain-a"), 1, 5, "cs"), ("b", None, sha256("plain-b"), 2, 10, None)]
        connection.execute("UPDATE users SET priority = 100")
        assert llmctl("token", "import", source, "--json", "--db", url).json()["left"] == 2
        assert rows(connection, "priority") == [(100,), (100,)]
        assert llmctl("token", "import", source, "--update", "--json", "--db", url).json()["updated"] == 2
        assert rows(connection, "priority") == [(1,), (2,)]


def test_hash_in_place_replaces_all_or_none(aristote, fake_engine, gateway):
    url, connection = aristote
    connection.execute("INSERT INTO users (token, priority, threshold, name) VALUES ('has a blank', 1, 1, 'bad')")
    refused = llmctl("token", "import", "--hash-in-place", "--db", url, status=1)
    assert "row 3" in refused.err and "blank" in refused.err and "has a blank" not in refused.err
    assert rows(connection, "name, token")[:2] == [("a", "plain-a"), ("b", "plain-b")]
    connection.execute("DELETE FROM users WHERE name = 'bad'")

    gate = gateway([fake_engine()], users=None, http=f'llm_priority_db "{url}" refresh=1s;')
    gate.wait_ready()
    assert gate.client.ask(token="plain-a").status == 200
    assert llmctl("token", "import", "--hash-in-place", "--json", "--db", url).json() == {
        "replaced": 2, "hashed_before": 0, "dry_run": False}
    assert rows(connection) == [("a", None, sha256("plain-a")), ("b", None, sha256("plain-b"))]
    # clients notice nothing, before and after the gateway has read the table again
    llmctl("token", "edit", "a", "--priority", 77, "--db", url)
    until(lambda: gate.client.ask(token="plain-a").status == 200 and
          any(entry["priority"] == 77 for entry in gate.status()["clients"]), "the table was read again")
    assert llmctl("token", "import", url, "--hash-in-place", "--json").json()["replaced"] == 0


def test_import_from_csv_and_json(ready, tmp_path):
    url, connection = ready
    csv = tmp_path / "users.csv"
    csv.write_text('id,token,name,organization,priority,threshold,unknown\n7,t-1,"A, ""the"" first",NULL,4,2,x\n8,t-2,b,,1,0,\n')
    llmctl("token", "import", csv, "--db", url)
    assert rows(connection, "name, token_sha256, organization, priority, threshold") == [
        ('A, "the" first', sha256("t-1"), None, 4, 2), ("b", sha256("t-2"), None, 1, 0)]
    dump = tmp_path / "more.json"
    dump.write_text(json.dumps([{"token": "t-3", "name": "c", "priority": 2, "threshold": None, "models": ["m", "n"]}]))
    llmctl("token", "import", dump, "--db", url)
    assert rows(connection, "name, threshold, models")[2] == ("c", None, ["m", "n"])
    bad = tmp_path / "bad.csv"
    bad.write_text("token,priority,threshold\nt-4,1,1\nt-secret,much,1\nt-4,1,1\n")
    refused = llmctl("token", "import", bad, "--db", url, status=1)
    assert "row 2: priority" in refused.err and "row 3" in refused.err and "t-secret" not in refused.err
    assert "quoted field" in llmctl("token", "import", "-", "--format", "csv", "--db", url, stdin='token\n"x', status=1).err
    assert "columns" in llmctl("token", "import", "-", "--format", "csv", "--db", url, stdin="a,b\n1,2\n", status=1).err
    assert "--format" in llmctl("token", "import", "-", "--db", url, status=2).err
    assert len(rows(connection)) == 3


def test_a_disabled_client_stays_disabled_however_its_table_says_so(database, tmp_path):
    """psql's CSV says t; a file that took such rows over let them in. A table that keeps numbers had them listed as active."""
    path, csv = tmp_path / "tokens.json", tmp_path / "users.csv"
    csv.write_text("token,name,priority,threshold,disabled\n" + "".join(f"t-{flag},{flag},1,1,{flag}\n" for flag in ("t", "true", "1", "f", "false", "0")))
    path.write_text('{"users": []}')
    llmctl("token", "import", csv, "--file", path)
    stored = {row["name"]: row["disabled"] for row in json.loads(path.read_text())["users"]}
    assert stored == {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
    url, connection = database
    connection.execute("CREATE TABLE users (id int, token text, name text, priority int, threshold int, disabled smallint)")
    connection.execute("INSERT INTO users VALUES (1, 'a', 'a', 1, 1, 1), (2, 'b', 'b', 1, 1, 0)")
    assert [(row["disabled"], row["state"]) for row in llmctl("token", "list", "--json", "--db", url).json()] == [(True, "disabled"), (False, "active")]


def test_large_tables_are_changed_by_their_key(database):
    """Each change read the whole table: of 20,000 tokens, 400 million rows, while nobody else could write."""
    url, connection = database
    connection.execute("CREATE TABLE users (id serial primary key, token text, priority int, threshold int, token_sha256 text UNIQUE)")
    connection.execute("INSERT INTO users (token, priority, threshold) SELECT 't' || i, 1, 1 FROM generate_series(1, 20000) i")
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'users'"
    before = connection.execute(scans).fetchone()[0]
    assert llmctl("token", "import", "--hash-in-place", "--json", "--db", url).json()["replaced"] == 20000
    until(lambda: connection.execute("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'users'").fetchone()[0] == 20000,
          "the server has counted")
    assert connection.execute(scans).fetchone()[0] - before < 10
    assert connection.execute("SELECT count(token), count(token_sha256) FROM users").fetchone() == (0, 20000)


def test_a_name_cannot_steer_the_terminal(ready):
    url, connection = ready
    connection.execute("INSERT INTO users (token, name, priority, threshold) VALUES ('t', %s, 1, 1)", ("x\x9b31m\u202eevil",))
    out = llmctl("token", "list", "--db", url).out
    assert "x?31m?evil" in out and "\x9b" not in out
