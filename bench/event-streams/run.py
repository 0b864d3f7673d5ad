#!/usr/bin/env python3
"""What the module costs an event stream: the same stream through plain proxy_pass and through llm_dispatch, in turns.

    bench/event-streams/run.py [--build DIR] [--events N] [--rounds N] [--check]

One worker, one stream at a time of N events of about 210 bytes, each written by itself. With a pause between them, as a model makes, nginx reads every event by
itself; --pause 0 writes as fast as it can, and many lie in one read. Printed: events per second of the worker's CPU, which other work
on the machine disturbs less than events per second. Aim: 0.95 of plain's (--check).
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "bench")]

import needs  # noqa: E402
from processes import cpu_seconds  # noqa: E402

AIM = 0.95
WORDS = (" a", " word", " and", ",", " another", "\n", " \"quoted\"", " \u20ac")


def chunk(word):
    """One event in one chunk of HTTP, as engines write it: without blanks between JSON's tokens."""
    delta = {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion.chunk", "created": 1763700000, "model": "m",
             "choices": [{"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}]}
    event = b"data: " + json.dumps(delta, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def engine(events, pause):
    """Answers every request on a connection with one stream; every event is a write of its own."""
    chunks = [chunk(word) for word in WORDS]
    done = b"data: [DONE]\n\n"
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
                if received.endswith(b"}"):  # the end of the body
                    received = b""
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for number in range(events):
                        connection.sendall(chunks[number % len(chunks)])
                        if pause > 0:
                            time.sleep(pause)
                    connection.sendall(last)
        except OSError:
            pass  # the gateway has closed

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def without_chunks(answer):
    """The body of an answer in chunks."""
    at = answer.index(b"\r\n\r\n") + 4
    body = bytearray()
    while True:
        data = answer.index(b"\r\n", at) + 2
        size = int(answer[at:data], 16)
        if size == 0:
            return body
        body += answer[data:data + size]
        at = data + size + 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--pause", type=float, default=0.0001, help="seconds between two events")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    needs.need(arguments.build)
    os.environ["BUILD_DIR"] = str(arguments.build)

    # paths.py reads BUILD_DIR when it is imported
    from support.client import chat_body
    from support.nginx import Nginx
    from support.users import user, write_tokens

    with tempfile.TemporaryDirectory(prefix="llm-bench-") as scratch:
        directory = pathlib.Path(scratch)
        tokens = write_tokens(directory / "tokens.json", [user("a")])
        port = engine(arguments.events, arguments.pause)
        gateway = Nginx(directory / "nginx", workers=1,
                        http=f"llm_priority_db file:{tokens}; llm_engine http://127.0.0.1:{port} model=m; "
                             f"upstream plain {{ server 127.0.0.1:{port}; keepalive 64; }}",
                        locations='location /plain/ { proxy_pass http://plain/v1/; proxy_http_version 1.1; '
                                  'proxy_set_header Connection ""; proxy_set_header Authorization ""; proxy_buffering off; }')
        gateway.start()
        try:
            [worker] = gateway.workers()
            rates = {"plain": [], "dispatch": []}
            cpu = {"plain": 0.0, "dispatch": 0.0}
            targets = {"plain": "/plain/chat/completions", "dispatch": "/v1/chat/completions"}
            for number in range(arguments.rounds + 1):
                for name, target in targets.items():
                    used, began = cpu_seconds([worker]), time.monotonic()
                    pending = gateway.client.send(chat_body(stream=True), token="a", target=target, timeout=120)
                    received = bytearray()
                    while not received.endswith(b"\r\n0\r\n\r\n"):
                        data = pending.socket.recv(1 << 20)
                        assert data, "the stream broke off"
                        received += data
                    took = time.monotonic() - began
                    pending.close()
                    assert without_chunks(received).count(b"data: {") == arguments.events, "events are missing"
                    if number > 0:  # the first warms up
                        rates[name].append(arguments.events / took)
                        cpu[name] += cpu_seconds([worker]) - used
        finally:
            gateway.kill()
        per_second = {name: arguments.rounds * arguments.events / seconds for name, seconds in cpu.items()}
        ratio = per_second["dispatch"] / per_second["plain"]
        print(f"events per second of CPU: plain {per_second['plain']:.0f}, dispatch {per_second['dispatch']:.0f}, ratio {ratio:.3f}")
        print(f"events/s as the client saw them, median: plain {statistics.median(rates['plain']):.0f}, dispatch {statistics.median(rates['dispatch']):.0f}")
    sys.exit(1 if arguments.check and ratio < AIM else 0)


if __name__ == "__main__":
    main()
