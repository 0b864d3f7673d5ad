"""HTTP as it goes wrong: clients that leave, that do not read, that speak badly."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

from support.paths import ENGINE
from support.poll import until
from support.process import Process


def body_of(**fields):
    return json.dumps({"model": "sim", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def send(engine, body):
    connection = engine.raw()
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
                       % (len(body), body))
    return connection


def read_until(connection, what):
    data = b""
    while what not in data:
        part = connection.recv(65536)
        assert part, data
        data += part
    return data


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_its_seat_at_once(start_engine, streamed):
    engine = start_engine(sim="base=20")
    connection = send(engine, body_of(max_tokens=5000, stream=streamed))
    until(lambda: engine.metric("num_requests_running") == 1, "the request runs")
    connection.close()
    until(lambda: engine.metric("num_requests_running") == 0, "the seat is free", 2)
    assert engine.metric("requests_cancelled_total") == 1
    assert engine.metric("kv_cache_usage_perc") == 0
    assert engine.metric("generation_tokens_total") < 1000


def test_a_client_that_vanishes_is_looked_for(start_engine):
    engine = start_engine(sim="base=20")
    connection = send(engine, body_of(max_tokens=5000))
    until(lambda: engine.metric("num_requests_running") == 1, "the request runs")
    ours = connection.getsockname()[1]
    shown = subprocess.run(["ss", "-Hnot", "state", "established", f"dport = :{ours}"], capture_output=True, text=True, check=True).stdout
    seconds = re.search(r"timer:\(keepalive,(\d+)", shown)
    assert seconds and int(seconds[1]) <= 30, shown
    connection.close()


def test_a_large_request_holds_up_nobody(start_engine):
    """It is read beside the network thread: meanwhile others are answered, who leaves is forgotten, and SIGTERM waits."""
    engine = start_engine()
    large = body_of(messages=[{"role": "user", "content": "hello world " * 800_000}])

    def wait_load(count):
        until(lambda: engine.request("GET", "/load")[2]["server_load"] == count, f"{count} requests are being answered")

    leaves, stays = send(engine, large), send(engine, large)
    wait_load(2)
    leaves.close()
    wait_load(1)
    assert engine.chat(max_tokens=3)[0] == 200
    assert b"context_length_exceeded" in read_until(stays, b"}}")
    wait_load(0)
    last = send(engine, large)
    wait_load(1)
    engine.process.send_signal(signal.SIGTERM)
    assert b"context_length_exceeded" in read_until(last, b"}}")
    assert engine.process.wait(10) == 0


def test_who_has_left_is_not_read_any_more(start_engine):
    """Large requests are read one after the other: those of clients who had given up held up the next ones."""
    engine = start_engine()

    def large(n):  # many messages take much longer to be read than to be sent
        return body_of(messages=[{"role": "user", "content": "x"}] * n)

    def processor_seconds():
        fields = pathlib.Path(f"/proc/{engine.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    first = send(engine, large(100_000))
    until(lambda: engine.request("GET", "/load")[2]["server_load"] == 1, "the first one is being read")
    body = large(20_000)
    for leaver in [send(engine, body) for _ in range(30)]:
        leaver.shutdown(socket.SHUT_WR)
        while leaver.recv(65536):
            pass  # it came too late to leave
        leaver.close()
    last = send(engine, body_of(messages=[{"role": "user", "content": "x" * 70_000}]))
    assert b'"messages"' in read_until(first, b"}}")
    for_the_first = processor_seconds()
    assert b"context_length_exceeded" in read_until(last, b"}}")
    assert processor_seconds() < 2 * for_the_first


def test_256_streams_share_one_network_thread(start_engine):
    # Room for what all of them may yet write: admission counts that.
    engine = start_engine("--max-running", "256", "--max-context", "100000", "--kv-tokens", "30000000",
                          sim="base=20,sequence=0,context=0,prefill=0")

    def threads():
        return len(os.listdir(f"/proc/{engine.process.pid}/task"))

    assert engine.chat(max_tokens=1)[0] == 200
    before = threads()
    streams = [send(engine, body_of(max_tokens=90000, stream=True)) for _ in range(256)]
    until(lambda: engine.metric("num_requests_running") == 256, "all run at once")
    for stream in streams:  # each is served while the others are
        data = b""
        while data.count(b"data: {") < 4:
            part = stream.recv(65536)
            assert part, data
            data += part
    assert engine.metric("num_requests_running") == 256
    assert threads() == before
    for stream in streams:
        stream.close()
    until(lambda: engine.metric("num_requests_running") == 0, "all seats are free")
    assert engine.metric("requests_cancelled_total") == 256
    assert engine.metric("kv_cache_usage_perc") == 0


def test_a_client_that_does_not_read_stops_nobody(start_engine):
    engine = start_engine("--max-context", "200000", sim="base=0,sequence=0,context=0,prefill=0")
    slow = send(engine, body_of(max_tokens=30000, stream=True))
    until(lambda: engine.metric("num_requests_running") == 0 and
             engine.metric("generation_tokens_total") >= 30000, "the engine is done with the slow client's request")
    assert engine.chat(max_tokens=5)[0] == 200
    data = read_until(slow, b"data: [DONE]")
    text = b"".join(data.split(b"\r\n"))
    content = "".join(
        json.loads(event[event.index(b"{"):])["choices"][0]["delta"].get("content", "")
        for event in dechunk(data).split(b"\n\n") if event.startswith(b"data: {"))
    assert len(content) == 30000 and text
    slow.close()


@pytest.mark.parametrize("version, header", [(b"1.1", b"Connection: close\r\n"), (b"1.0", b"")])
def test_a_slow_client_gets_the_last_of_its_stream(start_engine, version, header):
    """What was written when there was room again was cut off where the connection ends with the answer."""
    engine = start_engine("--max-context", "200000", sim="base=0,sequence=0,context=0,prefill=0")
    body = body_of(max_tokens=60_000, stream=True, logprobs=True, top_logprobs=1)  # more than all buffers hold
    with engine.raw() as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/%s\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s"
                     % (version, header, len(body), body))
        until(lambda: engine.metric("generation_tokens_total") == 60_000, "the engine is done with it")
        data = b""
        while part := slow.recv(65536):
            data += part
    assert data.count(b'"logprob":') == 2 * 60_000 and b"data: [DONE]" in data[-40:]


def dechunk(data):
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"chunked" in head
    out = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        out += rest[:length]
        rest = rest[length + 2:]
    return out


def test_keep_alive_and_pipelining(start_engine):
    engine = start_engine()
    with engine.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
        data = b""
        while data.count(b"HTTP/1.1 200") < 3 or not data.endswith(b"ready\n"):
            data += connection.recv(4096)
        body = body_of(max_tokens=2)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
                           b"Expect: 100-continue\r\n\r\n")
        read_until(connection, b"100 Continue\r\n\r\n")
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert b'"content":"Th"' in read_until(connection, b"}}}")


def read_all(connection):
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def test_who_asks_on_and_on_without_reading_is_not_read_either(start_engine):
    """Answers gathered in memory without an end: requests were taken as fast as they came."""
    engine = start_engine()
    request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nX: %s\r\n\r\n" % (b"x" * 4000)
    with engine.raw() as connection:
        connection.settimeout(2)
        sent, most = 0, 20_000 * len(request)  # 80 MB, and 100 MB of answers
        with pytest.raises(TimeoutError):
            while sent < most:
                at = sent % len(request)
                sent += connection.send(request[at:] + request[:at])
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(30)
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == sent // len(request)


def test_a_client_that_has_finished_sending_gets_what_it_asked_for(start_engine):
    """`printf … | nc -N`: the end of its side comes with the request, or before the answer is out."""
    engine = start_engine()
    text = "x" * 400_000  # its answer does not fit into the socket's buffer
    one = json.dumps({"prompt": text}).encode()
    for _ in range(20):
        with engine.raw() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 3 + b"GET /health HT")
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection).count(b"\r\n\r\nready\n") == 3
    with engine.raw() as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(one), one))
        connection.shutdown(socket.SHUT_WR)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and json.loads(body)["count"] == len(text)


def test_http_1_0_is_told_that_its_connection_stays(start_engine):
    engine = start_engine()
    with engine.raw() as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            assert b"\r\nconnection: keep-alive\r\n" in read_until(connection, b"ready\n")
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"\r\nconnection: close\r\n" in read_all(connection)


def test_http_1_0_gets_its_stream_without_chunks(start_engine):
    engine = start_engine()
    body = body_of(max_tokens=3, stream=True)
    with engine.raw() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        data = b""
        while part := connection.recv(65536):
            data += part
    assert b"transfer-encoding" not in data and data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("head, status", [
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01", 400),  # the beginning of TLS: whoever speaks it would wait for an answer to that
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 40000, 431),
])
def test_bad_http_is_refused_with_an_error_object(start_engine, head, status):
    engine = start_engine()
    with engine.raw() as connection:
        connection.sendall(head)
        data = b""
        while part := connection.recv(65536):
            data += part
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert engine.request("GET", "/health")[0] == 200


def test_unix_socket(start_engine, tmp_path):
    path = str(tmp_path / "socket")
    process = Process([ENGINE, "--backend", "sim", "--model", "sim", "--listen", "unix:" + path], tmp_path / "engine.log")
    try:
        def health():
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(path)
                except OSError:
                    return None
                connection.sendall(b"GET /ready HTTP/1.1\r\nHost: h\r\n\r\n")
                return b" 200 OK" in connection.recv(4096)
        until(health, "the socket answers")
    finally:
        assert process.stop() == 0
    assert not (tmp_path / "socket").exists()
