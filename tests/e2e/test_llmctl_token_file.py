"""llmctl token … --file: a token file, and a gateway that reads it."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile

import pytest

from support.llmctl import LLMCTL, llmctl, sha256
from support.poll import until
from support.users import user


def test_a_token_file(tmp_path, fake_engine, gateway):
    gate = gateway([fake_engine()], [user("alice", note="kept")])
    secret = llmctl("token", "add", "bob", "--max-running", 2, "--models", "m", "--file", gate.tokens).out.strip()
    until(lambda: gate.client.ask(token=secret).status == 200, "the file was read again")
    stored = json.loads(gate.tokens.read_text())["users"]
    assert stored[0]["note"] == "kept" and stored[0]["token"] == "alice"
    assert stored[1] == {"name": "bob", "priority": 1, "threshold": 10, "token_sha256": sha256(secret), "max_running": 2, "models": ["m"]}
    llmctl("token", "edit", "alice", "--priority", 9, "--file", gate.tokens)
    llmctl("token", "import", "--hash-in-place", "--file", gate.tokens)
    stored = json.loads(gate.tokens.read_text())["users"]
    assert stored[0]["priority"] == 9 and stored[0]["token_sha256"] == sha256("alice") and "token" not in stored[0]
    assert gate.client.ask(token="alice").status == 200
    llmctl("token", "revoke", "bob", "--file", gate.tokens)
    until(lambda: gate.client.ask(token=secret).status == 401, "the file was read again")
    assert list(tmp_path.glob("tokens.json.*")) == [], "no scratch file stays behind"


@pytest.mark.parametrize("text, told", [
    ('{"users": [{"token": "a", "priority": 1, "threshold": 1}],\n "users": []}', 'line 2, column 8: "users" is there twice'),
    ('{"users": [\n{"token": "a", "priority": 1, "threshold": 1, "token": "b"}]}', "line 2: token: is there twice"),
    ('{"users": [\n{"token": "a",}]}', "line 2, column 15"),
    ('{"users": [\n7]}', 'every member of "users" must be an object')], ids=["users", "column", "comma", "number"])
def test_a_file_that_the_gateway_reads_otherwise_is_left_alone(tmp_path, text, told):
    """Of two values of one name the first was dropped: of two lists, all clients of the first."""
    path = tmp_path / "tokens.json"
    path.write_text(text)
    assert told in llmctl("token", "add", "alice", "--file", path, status=1).err
    assert path.read_text() == text


def test_several_rows_of_a_file_are_deleted_at_once(tmp_path):
    """Rows are named by their places: the second was another client's once the first was gone."""
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"users": [user(name) for name in ("alice", "bob", "carol", "dave", "erin")]}))
    out = llmctl("token", "revoke", "--delete", "bob", "erin", "alice", "bob", "--file", path).out
    assert [name in out for name in ("alice", "bob", "carol", "dave", "erin")] == [True, True, False, False, True]
    assert [row["name"] for row in json.loads(path.read_text())["users"]] == ["carol", "dave"]


def test_the_list_says_what_the_gateway_skips(tmp_path, nginx):
    """Rows of which the list said "active", and the gateway 401."""
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"users": [{"token": "one", "name": "first", "priority": 1, "threshold": 1},
                                          {"token": "one", "name": "again", "priority": 1, "threshold": 1},
                                          {"token": "two", "name": "text", "priority": "5", "threshold": 1},
                                          {"token": "three", "name": "last", "priority": 5.0, "threshold": None}]}))
    listed = {row["name"]: row["state"] for row in llmctl("token", "list", "--file", path, "--json").json()}
    assert listed["first"] == listed["last"] == "active"
    assert listed["again"] == "bad row: its token is that of an earlier row"
    assert listed["text"] == "bad row: priority: a value of this type is not allowed"
    gate = nginx(http=f"llm_priority_db file:{path};")
    until(lambda: gate.metrics().total("llm_clients") == 2, "the file is read")
    assert gate.status()["sources"]["clients"]["bad_rows"] == 2


def test_a_token_file_keeps_its_mode_and_its_link(tmp_path):
    real = tmp_path / "real.json"
    link = tmp_path / "link.json"
    link.symlink_to(real)
    llmctl("token", "add", "a", "--file", real, status=3)
    llmctl("token", "add", "a", "--file", real, "--create")
    os.chmod(real, 0o604)
    llmctl("token", "add", "b", "--file", link)
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o604
    assert len(json.loads(real.read_text())["users"]) == 2
    real.write_text("[]")
    assert "token file" in llmctl("token", "add", "c", "--file", real, status=1).err
    assert real.read_text() == "[]"


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others take root")
def test_a_token_file_stays_readable_for_its_group(tmp_path):
    """Who may not give it away with its owner may still with its group, as its gateway's workers need; else it is left alone."""
    with tempfile.TemporaryDirectory(prefix="llm-e2e-tokens-") as home:
        path = pathlib.Path(home) / "tokens.json"
        program = shutil.copy(LLMCTL, home)  # the checkout may be root's own
        os.chmod(home, 0o777)

        def edit(owner, group, user, groups):
            path.write_text('{"users": [{"token": "a", "name": "alice", "priority": 1, "threshold": 1}]}')
            os.chown(path, owner, group)
            path.chmod(0o640)
            done = subprocess.run([program, "token", "edit", "alice", "--priority", "7", "--file", path], capture_output=True, text=True, check=False,
                                  user=user, group=user, extra_groups=groups)
            return done.returncode, done.stderr, json.loads(path.read_text())["users"][0]["priority"], path.stat().st_gid

        assert edit(0, 33, 4711, [33]) == (0, "", 7, 33)
        status, told, priority, group = edit(4711, 33, 4711, [])
        assert (status, priority, group) == (1, 1, 33) and "group" in told
        assert sorted(os.listdir(home)) == ["llmctl", "tokens.json"]
