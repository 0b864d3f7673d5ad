"""https engines, alone and beside plain ones; clients that speak HTTP/2."""

import ssl

import httpx
import pytest

from support.client import chat_body
from support.http2 import Http2
from support.ports import free_port


def https_gateway(gateway, lines):
    return gateway(http=lines, proxy="https")


def test_https_engine(fake_engine, gateway, certificate):
    engine = fake_engine()
    engine.serve_tls(*certificate)
    gate = https_gateway(gateway, f"llm_engine https://127.0.0.1:{engine.port} model=m;")
    for _ in range(3):
        assert gate.client.ask(chat_body(), token="alice").status == 200
    assert len(engine.requests) == 3
    assert engine.requests[0].header("host") == f"127.0.0.1:{engine.port}"


def test_https_and_http_engines_side_by_side(fake_engine, gateway, certificate):
    secure, plain = fake_engine(), fake_engine()
    secure.serve_tls(*certificate)
    gate = https_gateway(gateway, f"llm_engine https://127.0.0.1:{secure.port} model=m; llm_engine {plain.url} model=m;"
                                  "llm_routing round_robin;")
    for _ in range(8):
        assert gate.client.ask(chat_body(), token="alice").status == 200
    assert secure.requests and plain.requests


def test_names_of_one_address_share_no_connection(fake_engine, gateway, certificate):
    """
    What stands at an address may choose the engine by the name in the handshake, and a certificate was checked for that name:
    a connection that was opened for another one took the request, and its engine's key, elsewhere.
    """
    engine = fake_engine()
    engine.serve_tls(*certificate)
    names = [f"localhost:{engine.port}", f"127.0.0.1:{engine.port}"]
    gate = gateway(http="\n".join(f"llm_engine https://{name} model=m{number} key=k{number};" for number, name in enumerate(names)),
                   proxy="https", workers=1, location=f"proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_name localhost;"
                                                      f"proxy_ssl_trusted_certificate {certificate[0]};")
    for number in range(6):
        assert gate.client.ask(chat_body(f"m{number % 2}"), token="alice").status == 200
    pairs = {(request.connection, request.header("host"), request.header("authorization")) for request in engine.requests}
    assert sorted(pairs) == [(1, names[0], "Bearer k0"), (2, names[1], "Bearer k1")]


def test_a_wrong_certificate_is_its_engines_failure(fake_engine, gateway, certificate):
    engine = fake_engine()
    engine.serve_tls(*certificate)
    gate = gateway(http=f"llm_engine https://localhost:{engine.port} model=m id=right; llm_engine https://127.0.0.1:{engine.port} model=m id=wrong;"
                        "llm_routing round_robin;", proxy="https",
                   location=f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate[0]};")
    assert [gate.client.ask(token="alice").status for _ in range(8)] == [200] * 8
    gate.wait_logged('upstream SSL certificate does not match "127.0.0.1"')
    engines = {each["id"]: each for each in gate.status()["engines"]}
    assert engines["right"]["failures"] == 0 and engines["wrong"]["failures"] >= 3 and engines["wrong"]["breaker"] != "closed"
    assert {request.header("host") for request in engine.requests} == {f"localhost:{engine.port}"}


def test_https_engine_under_plain_proxy_pass_is_a_clear_error(fake_engine, gateway, certificate):
    engine = fake_engine()
    engine.serve_tls(*certificate)
    gate = gateway(http=f"llm_engine https://127.0.0.1:{engine.port} model=m;")
    assert gate.client.ask(chat_body(), token="alice").status == 502
    gate.wait_logged("proxy_pass must be https://")


@pytest.fixture
def http2_gate(gateway, certificate):
    """make(engines) -> (gateway, port, SSLContext): a gateway that speaks HTTP/2 over TLS there."""

    def make(engines):
        port = free_port()
        certificate_file, key = certificate
        gate = gateway(engines, server=f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate_file}; ssl_certificate_key {key};")
        return gate, port, ssl.create_default_context(cafile=str(certificate_file))

    return make


def test_http2_answers_streams_and_refusals(fake_engine, http2_gate):
    engine = fake_engine()
    _, port, tls = http2_gate([engine])
    with httpx.Client(http2=True, verify=tls, base_url=f"https://127.0.0.1:{port}", timeout=20,
                      headers={"Authorization": "Bearer alice"}) as client:
        reply = client.post("/v1/chat/completions", content=chat_body())
        assert reply.http_version == "HTTP/2" and reply.status_code == 200
        assert engine.requests[0].body == chat_body()
        with client.stream("POST", "/v1/chat/completions", content=chat_body(stream=True)) as stream:
            assert b"[DONE]" in b"".join(stream.iter_raw())
        assert client.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "invalid_json"
        assert client.post("/v1/chat/completions", content=b"").json()["error"]["code"] == "model_required"
        large = chat_body(content="x" * 300_000)
        assert client.post("/v1/chat/completions", content=large).status_code == 200
        assert engine.requests[-1].body == large


def test_http2_connection_lost_leaves_the_queue(fake_engine, http2_gate):
    engine = fake_engine(max_running=1)
    engine.hold()
    gate, port, tls = http2_gate([engine])
    first = gate.client.send(chat_body(), token="alice")
    gate.wait_held(1)
    client = Http2(port, tls=tls)
    for _ in range(3):
        client.send(chat_body(), "alice")
    gate.wait_queued(3)
    client.close()
    gate.wait_queued(0)
    engine.open_gate()
    assert first.reply().status == 200
    assert len(engine.requests) == 1
