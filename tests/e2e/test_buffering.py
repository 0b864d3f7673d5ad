"""proxy_buffering on: an engine ends long before its client has read, and much of the answer passes through a file."""

import pytest

from support.poll import until

EVENTS = 40_000  # more than the kernel holds for a client that does not read
SETTINGS = "proxy_buffering on; proxy_buffer_size 4k; proxy_buffers 4 4k; proxy_busy_buffers_size 8k; "


def events(send):
    for number in range(EVENTS):
        send(b'data: {"choices":[{"index":0,"delta":{"content":"%d %s"}}]}\n\n' % (number, b"y" * 200))


def framed(exchange):
    exchange.stream_head()
    events(exchange.chunk)
    exchange.event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 77}})
    exchange.event("[DONE]")
    exchange.end()


def close_delimited(*last):
    def script(exchange):
        exchange.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")])
        events(exchange.send)
        for event in last:
            exchange.send(event)
        exchange.fin()
    return script


@pytest.fixture
def read_late(fake_engine, gateway):
    """Factory: what a client gets, and its line in the log, who begins to read after the engine has ended."""
    def make(script, location="", sendfile="on"):
        engine = fake_engine(script=script)
        gate = gateway([engine], location=SETTINGS + location, http=f"sendfile {sendfile};", locations="location = /after { internal; return 204; }")
        pending = gate.client.send(b'{"model":"m","stream":true}', token="alice")
        until(lambda: engine.completed == 1, "the engine has sent all", 30)
        reply = pending.reply()
        return reply, gate.access_log()[-1]
    return make


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_usage_is_read_to_the_end(read_late, sendfile):
    """It was taken when the engine had ended, and sendfile passed what lay in the file unread."""
    reply, line = read_late(framed, sendfile=sendfile)
    assert reply.complete and len(reply.events()) == EVENTS + 2
    assert (line["outcome"], line["prompt_tokens"], line["completion_tokens"]) == ("completed", "11", "77")


def test_tokens_in_a_file_are_counted(read_late):
    reply, line = read_late(close_delimited(b"data: [DONE]\n\n"))
    assert reply.body.endswith(b"data: [DONE]\n\n"), "a whole stream was cut off"
    assert reply.complete
    assert (line["outcome"], line["completion_tokens"]) == ("completed", str(EVENTS))


def test_injected_usage_in_a_file_is_hidden(read_late):
    reply, line = read_late(framed, "llm_usage_inject on;")
    assert reply.complete and len(reply.events()) == EVENTS + 1
    assert b"usage" not in reply.body
    assert line["completion_tokens"] == "77"


@pytest.mark.parametrize("post_action", ["", "post_action /after;"])
def test_a_cut_stream_does_not_look_whole(read_late, post_action):
    """With post_action nginx took the connection for one to keep, and the client waited on."""
    reply, line = read_late(close_delimited(), post_action)
    assert not reply.complete
    assert line["outcome"] == "engine_error"
