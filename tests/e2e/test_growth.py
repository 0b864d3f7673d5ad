"""Nothing grows: not over many requests, not over many reloads, neither in the master nor in the workers, nor in the zone."""

import pytest

from support.client import chat_body
from support.invariants import Growth
from support.load import saturate
from support.poll import until
from support.users import user

REQUESTS = 10_000
RELOADS = 50


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_requests_leave_nothing(redis_server, llm_engine, gateway):
    """Granted at once and queued, whole and streamed, complete and refused."""
    llm_engine(redis=redis_server.url, sim=True, arguments=["--max-running", "8"])
    gate = gateway(users=[user("whole", threshold=100), user("streamed", threshold=100)], workers=2,
                   http=f"llm_redis {redis_server.url};")
    gate.wait_ready(60)
    bodies = {"whole": chat_body("sim", max_tokens=2), "streamed": chat_body("sim", max_tokens=2, stream=True),
              "nobody": chat_body("sim")}

    def load(count):
        answers = saturate(gate.port, bodies, outstanding=8, answers=count)
        assert {answer.status for answer in answers if answer.token != "nobody"} == {200}
        assert {answer.status for answer in answers if answer.token == "nobody"} <= {401}
        until(lambda: gate.queued() == 0 and gate.held() == 0, "what was dropped at the end has ended")

    load(600)  # pools, buffers and keepalive connections find their size
    growth = Growth(gate)
    load(REQUESTS)
    # idle connections to the engine may differ by what two workers keep
    growth.check(memory=3 << 20, descriptors=16, seconds=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_reloads_leave_nothing(fake_engine, gateway):
    engine = fake_engine()
    gate = gateway([engine], [user("alice")], workers=2)

    def reload(count):
        for _ in range(count):
            gate.reload()
            assert gate.client.ask(token="alice").status == 200
        until(lambda: not gate.old_workers(), "the old workers have ended", 20)

    # the master's heap finds its size over the first cycles
    reload(6)
    growth = Growth(gate)
    reload(RELOADS)
    growth.check(memory=(2 << 20), descriptors=4, seconds=20)
