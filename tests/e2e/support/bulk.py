"""Thousands of requests at little cost: an engine that is a block of nginx, and a client that asks ahead of the answers."""

from .client import request_bytes
from .wire import Reader, value_of

ANSWER = '{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}'


def quick_engine(port):
    """An engine that costs next to nothing: a server block of the gateway itself."""
    return (f"keepalive_requests 1000000; llm_engine http://127.0.0.1:{port} model=m id=quick max_running=500;"
            f"server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }}")


def ask_all(gate, requests):
    """Sends [(token, body)] over one connection, a hundred at a time ahead of the answers; returns {status: how many}."""
    statuses = {}
    pending = gate.client.raw(b"")
    reader = Reader(pending.socket)
    for start in range(0, len(requests), 100):
        batch = requests[start:start + 100]
        pending.send(b"".join(request_bytes("POST", "/v1/chat/completions", [("Authorization", f"Bearer {token}"),
                                                                           ("Content-Type", "application/json")], body)
                              for token, body in batch))
        for _ in batch:
            line, headers = reader.head()
            reader.exactly(int(value_of(headers, "content-length")))
            status = int(line.split()[1])
            statuses[status] = statuses.get(status, 0) + 1
    pending.close()
    return statuses
