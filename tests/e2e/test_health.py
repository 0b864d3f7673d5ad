"""llm_health: alive at once, ready when a request would be answered."""

from support.poll import stays


def test_liveness_and_readiness_with_a_static_engine(fake_engine, gateway):
    gate = gateway([fake_engine()])
    for target in ("/health/liveness", "/health/readiness"):
        reply = gate.client.get(target)
        assert (reply.status, reply.body.strip()) == (200, b"OK")
        assert reply.header("content-type") == "text/plain"


def test_health_where_engines_have_it(redis_server, fake_engine, gateway):
    """Load generators and probes made for vLLM ask /health before they send a request: it says what readiness says."""
    gate = gateway(http=f"llm_redis {redis_server.url};", locations="location = /health { llm_health; }")
    assert (gate.client.get("/health").status, gate.client.get("/health").body.strip()) == (503, b"KO")
    fake_engine().announce(redis_server.url)
    gate.wait_ready()
    assert (gate.client.get("/health").status, gate.client.get("/health").body.strip()) == (200, b"OK")
    assert gate.client.get("/health/").status == 404


def test_not_ready_before_an_engine_is(redis_server, fake_engine, gateway):
    gate = gateway(http=f"llm_redis {redis_server.url};")
    assert gate.client.get("/health/liveness").status == 200
    reply = gate.client.get("/health/readiness")
    assert (reply.status, reply.body.strip()) == (503, b"KO")
    engine = fake_engine()
    reporter = engine.announce(redis_server.url, state="loading")
    stays(lambda: gate.client.get("/health/readiness").status == 503, "a loading engine makes nobody ready", 0.5)
    reporter.report(state="ready")
    gate.wait_ready()
    assert gate.client.ask(token="alice").status == 200


def test_not_ready_before_clients_were_loaded(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], users=None, http='llm_priority_db "postgresql://llm@127.0.0.1:1/none";')
    assert gate.client.get("/health/liveness").status == 200
    assert gate.client.get("/health/readiness").status == 503


def test_redis_going_down_later_does_not_matter(redis_server, fake_engine, gateway):
    gate = gateway(http=f"llm_redis {redis_server.url};")
    fake_engine().announce(redis_server.url)
    gate.wait_ready()
    redis_server.kill()
    stays(lambda: gate.client.get("/health/readiness").status == 200, "readiness does not depend on Redis", 0.5)


def test_dispatch_inherited_from_the_server_does_not_reach_handlers(fake_engine, gateway):
    gate = gateway([fake_engine()], server="llm_dispatch on;")
    assert gate.client.get("/health/liveness").status == 200
    assert gate.client.get("/metrics").status == 200
    assert gate.client.get("/llm/status.json").status == 200


def test_another_method_is_told_which_ones_are_allowed(gateway):
    """RFC 9110, section 15.5.6: a 405 must say so. Only llm_status did."""
    gate = gateway()
    for target in ("/health/liveness", "/metrics", "/llm/status.json"):
        reply = gate.client.ask(b"", method="PUT", target=target)
        assert (reply.status, reply.header("allow")) == (405, "GET, HEAD"), target
