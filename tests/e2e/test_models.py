"""/v1/models, answered by the gateway from what its engines serve."""

import time
import urllib.parse

import pytest

from support.errors import assert_error
from support.users import user

SLASHED = "meta-llama/Llama-3.1-8B/instruct"


@pytest.fixture
def gate(fake_engine, gateway):
    engines = [fake_engine(["m", SLASHED]), fake_engine(["m"])]
    yield gateway(engines, [user("alice"), user("limited", models=["m"])])
    assert not any(engine.requests for engine in engines), "a listing never asks an engine"


def test_list(gate):
    reply = gate.client.get("/v1/models", token="alice")
    assert reply.status == 200
    assert reply.header("content-type") == "application/json"
    document = reply.json()
    assert document["object"] == "list"
    assert sorted(entry["id"] for entry in document["data"]) == sorted(["m", SLASHED])
    for entry in document["data"]:
        assert entry["object"] == "model" and entry["owned_by"] == entry["id"] and isinstance(entry["created"], int)
    assert reply.header("x-request-id")


def test_created_stays_what_it_is(gate):
    """It changed to and fro within each second."""
    end = int(time.time()) + 2
    seen = set()
    while time.time() < end:
        seen.add(gate.client.get("/v1/models/m", token="alice").json()["created"])
        time.sleep(0.02)  # not in a hurry: all of a second is to be seen
    assert len(seen) == 1, seen


def test_list_shows_only_what_the_token_may_use(gate):
    document = gate.client.get("/v1/models", token="limited").json()
    assert [entry["id"] for entry in document["data"]] == ["m"]
    assert gate.client.get(f"/v1/models/{SLASHED}", token="limited").status == 404


@pytest.mark.parametrize("target", [SLASHED, SLASHED.replace("/", "%2F"), SLASHED + "?x=1"])
def test_retrieve_with_slashes(gate, target):
    reply = gate.client.get(f"/v1/models/{target}", token="alice")
    assert reply.status == 200
    document = reply.json()
    assert (document["id"], document["object"], document["owned_by"]) == (SLASHED, "model", SLASHED)


@pytest.mark.parametrize("name", ["/models/llama", "s3://bucket/llama", "a/./b/../c", "x/", "50%"])
def test_retrieve_a_name_that_is_no_path_of_a_url(fake_engine, gateway, name):
    """A directory is what vLLM calls a model that was loaded from one. Encoded, and bare as some clients send it."""
    gate = gateway([fake_engine()], http=f"llm_engine {fake_engine().url} 'model={name}';")
    targets = [urllib.parse.quote(name, safe="")] + ([name] if "%" not in name else [])
    for target in targets:
        assert gate.client.get(f"/v1/models/{target}?x=1", token="alice").json()["id"] == name
    # what an administrator's rewrite says counts more than what was sent
    gate.blocks["server"] = "rewrite ^/v1/models/old /v1/models/m;"
    gate.reload()
    assert gate.client.get("/v1/models/old", token="alice").json()["id"] == "m"


def test_unknown_model(gate):
    assert_error(gate.client.get("/v1/models/none", token="alice"), 404, "model_not_found")


def test_head(gate):
    for target in ("/v1/models", "/v1/models/m"):
        full = gate.client.get(target, token="alice")
        reply = gate.client.ask(method="HEAD", target=target, token="alice")
        assert (reply.status, reply.body) == (200, b"")
        assert reply.header("content-length") == str(len(full.body))
    assert gate.client.ask(method="HEAD", target="/v1/models/none", token="alice").status == 404


def test_token_is_needed(gate):
    assert_error(gate.client.get("/v1/models"), 401, "invalid_api_key")
    assert_error(gate.client.get("/v1/models/m", token="nobody"), 401, "invalid_api_key")


def test_listings_are_not_counted_as_requests(gate):
    gate.client.get("/v1/models", token="alice")
    gate.client.ask(token="nobody")  # counted after the listing would have been
    gate.wait_outcomes({"rejected_invalid_api_key": 1})
