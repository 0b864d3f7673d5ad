"""The token file: what it may hold, and what happens when it changes or is wrong."""

import json
import os
import pathlib
import signal
import tempfile

import pytest

from support.client import chat_body
from support.errors import assert_error
from support.poll import stays, until
from support.users import user, write_tokens


def test_a_change_is_seen_without_a_reload(fake_engine, gateway):
    gate = gateway([fake_engine()])
    assert_error(gate.client.ask(token="bob"), 401, "invalid_api_key")
    write_tokens(gate.tokens, [user("bob")])
    until(lambda: gate.client.ask(token="bob").status == 200, "the new token works", 3)
    assert_error(gate.client.ask(token="alice"), 401, "invalid_api_key")


def test_a_mistake_in_the_file_keeps_the_last_good_one(fake_engine, gateway):
    gate = gateway([fake_engine()])
    gate.allow(r"tokens\.json")
    gate.tokens.write_text('{"users":[\n  {"token":"bob","priority":5,"threshold":10}\n  {"token":"carol"}\n]}')
    gate.wait_logged(r"tokens\.json[^\n]*\b(line )?3\b")
    stays(lambda: gate.client.ask(token="alice").status == 200, "the last good clients are gone", 0.3)
    assert_error(gate.client.ask(token="bob"), 401, "invalid_api_key")


@pytest.mark.parametrize("text", ["", "{", '{"users":{}}', "[]", '{"clients":[]}', None],
                         ids=["empty", "cut", "object", "array", "other key", "missing"])
def test_a_wrong_file_at_start_is_a_configuration_error(nginx, tmp_path, text):
    path = tmp_path / "tokens.json"
    if text is not None:
        path.write_text(text)
    gate = nginx(start=False, http=f"llm_priority_db file:{path};")
    status, output = gate.test_conf()
    assert status != 0
    assert "[emerg]" in output and str(path) in output and "nginx.conf:" in output, output


def test_a_wrong_file_at_reload_keeps_the_old_configuration(fake_engine, gateway):
    gate = gateway([fake_engine()])
    gate.allow(r"tokens\.json")
    workers = sorted(gate.workers())
    gate.tokens.write_text("{")
    gate.send_signal(signal.SIGHUP)
    gate.wait_logged(r"\[emerg\][^\n]*tokens\.json")
    assert sorted(gate.workers()) == workers
    assert gate.client.ask(token="alice").status == 200


def test_a_bad_row_is_skipped_logged_and_the_rest_works(fake_engine, gateway, tmp_path):
    rows = [user("alice"), {"name": "no token"}, user("neg", priority=-1), user("text", priority="high"), user("odd", threshold=[]), user("zoe")]
    gate = gateway([fake_engine()], rows)
    assert gate.client.ask(token="alice").status == 200
    assert gate.client.ask(token="zoe").status == 200
    for token in ("text", "odd"):
        assert gate.client.ask(token=token).status == 401, token
    assert gate.metrics().total("llm_clients") in (2, 3)
    assert "alice" not in gate.error_log().replace("alice\",", "")


def test_a_revoked_tokens_queued_requests_end_with_401(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice"), user("bob")])
    running = engine.occupy(gate.client, token="alice")
    revoked = gate.client.send(token="bob")
    gate.wait_queued(1)
    write_tokens(gate.tokens, [user("alice")])
    assert_error(revoked.reply(), 401, "invalid_api_key")
    engine.open_gate()
    assert running.reply().status == 200
    assert len(engine.requests) == 1


def test_changed_threshold_holds_for_the_next_request(fake_engine, gateway):
    engine = fake_engine(max_running=1)
    gate = gateway([engine], [user("alice", threshold=0)])
    running = engine.occupy(gate.client, token="alice")
    assert_error(gate.client.ask(token="alice"), 429, "threshold")
    write_tokens(gate.tokens, [user("alice", threshold=1)])
    until(lambda: '"threshold":1' in json.dumps(gate.status(), separators=(",", ":")) or _waits(gate), "the new threshold holds", 3)
    engine.open_gate()
    assert running.reply().status == 200


def _waits(gate):
    """Whether a request of alice may wait now; it leaves the queue again."""
    pending = gate.client.send(chat_body(), token="alice")
    try:
        until(lambda: pending.answered() or gate.queued() == 1, "the request is queued or refused")
        return not pending.answered()
    finally:
        pending.reset()


def test_a_file_too_large_for_the_zone_still_revokes(fake_engine, gateway):
    """It was refused as a whole, with what it said of the clients known so far. Who is not named in it stays: it may be the wrong file."""
    gate = gateway([fake_engine()], [user("alice"), user("bob"), user("carol")])
    many = [user(f"t{i}") for i in range(int(gate.status()["zone"]["clients"]))]
    write_tokens(gate.tokens, [*many, user("bob", priority=7), user("bob", priority=8), user("carol", disabled=True)])
    until(lambda: gate.client.ask(token="carol").status == 401, "a client that is disabled is refused")
    assert [gate.client.ask(token=token).status for token in ("alice", "bob", "t0")] == [200, 200, 401]
    gate.wait_logged("no new ones are taken")
    assert [entry["priority"] for entry in gate.status()["clients"] if entry["name"] == "bob"] == [7]
    write_tokens(gate.tokens, [user("t0"), user("bob")])
    until(lambda: gate.client.ask(token="t0").status == 200, "what fits is taken")
    assert gate.client.ask(token="alice").status == 401


def test_unicode_and_escapes_in_the_file(fake_engine, gateway):
    gate = gateway([fake_engine()], users=None)
    gate.tokens.write_text('\n{ "users" : [ {"token":"t\\u0065\\"x","name":"J\\u00f6rg \\ud83d\\ude00","priority":1.0,"threshold":null,'
                           '"unknown":{"a":[1]}}, {"token":"t\\u00e9","name":"Ren\\u00e9","priority":1,"threshold":1} ] }')
    gate.blocks["http"] += f"\nllm_priority_db file:{gate.tokens};"
    gate.reload()
    assert gate.client.ask(token='te"x').status == 200
    assert gate.client.get("/llm/status.json").json()["clients"][0]["name"] == "Jörg 😀"
    # no header can bring such a token, so its owner would look for the mistake elsewhere
    assert gate.client.ask(headers=[("Authorization", "Bearer té".encode().decode("latin-1"))]).status == 401
    gate.wait_logged("client skipped in .*not ASCII")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's nginx has workers of another user")
def test_a_file_that_workers_cannot_read_is_told_of(fake_engine, gateway, tmp_path):
    """What llmctl makes for root is root's: with the master's rights it was read at the start, and changes were lost without a word before."""
    tokens = tmp_path / "secret" / "tokens.json"
    tokens.parent.mkdir(mode=0o700)
    write_tokens(tokens, [user("alice")])
    gate = gateway([fake_engine()], users=None, start=False, http=f"llm_priority_db file:{tokens};")
    gate.allow("tokens.json")
    gate.blocks["main"] = gate.blocks["main"].replace("user root;", "user www-data;")
    gate.start()
    gate.wait_logged(r"\[warn\].*workers cannot read .*tokens.json.*Permission denied")
    assert gate.client.ask(token="alice").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's nginx has workers of another user")
def test_a_file_is_read_once_it_can_be(fake_engine, gateway):
    """Rights leave a file's time and size as they are: it was tried once, and not again when they were mended."""
    with tempfile.TemporaryDirectory(prefix="llm-e2e-tokens-") as home:  # in /tmp: workers do not reach the tests' own directories
        pathlib.Path(home).chmod(0o755)
        tokens = write_tokens(pathlib.Path(home) / "tokens.json", [user("alice")])
        gate = gateway([fake_engine()], users=None, start=False, http=f"llm_priority_db file:{tokens};")
        gate.allow("tokens.json")
        gate.blocks["main"] = gate.blocks["main"].replace("user root;", "user www-data;")
        gate.start()
        assert gate.client.ask(token="alice").status == 200
        scratch = write_tokens(pathlib.Path(home) / "other.json", [user("bob")])
        scratch.chmod(0o600)
        scratch.rename(tokens)
        gate.wait_logged(r"\[error\].*tokens.json: open\(\) failed .*Permission denied\); the clients known so far stay")
        stays(lambda: gate.client.ask(token="alice").status == 200, "a file that cannot be read counts", 0.6)
        tokens.chmod(0o644)
        until(lambda: gate.client.ask(token="bob").status == 200, "the file is read", 3)
        assert gate.error_log().count("the clients known so far stay") == 1
