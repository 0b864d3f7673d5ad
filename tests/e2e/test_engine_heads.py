"""Heads of engines' answers in every form: they must mean to our gateway what they mean to nginx without it."""

import random

BODY = b'{"choices":[]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
ADDED = {"x-request-id", "x-llm-queue-ms", "server", "date", "connection"}

GOOD = [
    b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.0 201 Made here\r\n" + LENGTH + b"Connection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\n" + LENGTH.replace(b"\r", b"") + b"X-Unix: yes\n\n",
    b"HTTP/1.1 200 OK\r\nX-Many:    blanks   \r\nX-None:none\r\nX-Empty:\r\nX-Blank: \r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-Tab:\tleft\tright\t\r\nX-High: \xe9\xff\x80\r\nX-Control: \x01\x1f\x7f\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX_Under_Score: 1\r\nX.Dot: 2\r\nX-Odd{}: 3\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\nConTENT-tYPE: text/plain; charset=utf-8\r\nCONTENT-LENGTH: %d\r\nsEt-cOOkie: a\r\nSet-Cookie: b\r\n\r\n" % len(BODY),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-After: 1\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 again\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-" + b"n" * 27 + b": 29\r\nX-" + b"n" * 28 + b": 30\r\nX-" + b"n" * 29 + b": 31\r\nX-"
    + b"n" * 300 + b": 302\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-Long: " + b"v" * 3000 + b"\r\nX-Next: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-Line-%d: %d\r\n" % (i, i) for i in range(100)) + LENGTH + b"\r\n",
    b"HTTP/1.1 404 Not here\r\n" + LENGTH + b"ETag: \"x\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDate: now\r\nServer: engine\r\nX-Pad: 1\r\nVary: a\r\nLocation: /x\r\nExpires: 0\r\nCache-Control: no-store\r\n"
    b"Cache-Control: private\r\nWWW-Authenticate: Basic\r\nRefresh: 5\r\nAccept-Ranges: bytes\r\n" + LENGTH + b"\r\n",
]
BAD = [
    b"HTTP/1.1 200 OK\r\nX Blank: 1\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\n: no name\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-Null: a\0b\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-Return: a\rb\r\n" + LENGTH + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + LENGTH + b"X-Cut",
]


def random_heads(count):
    draw = random.Random(7)
    names = ["Server", "Date", "Content-Type", "X-Custom", "x-custom", "ETag", "Vary", "X-Ratelimit-Remaining-Requests", "Set-Cookie"]
    heads = []
    for _ in range(count):
        lines = [f"{draw.choice(names)}{draw.choice([':', ': ', ':  '])}{'v' * draw.randrange(40)}{draw.choice(['', '', ' '])}"
                 for _ in range(draw.randrange(12))]
        lines.insert(draw.randrange(len(lines) + 1), LENGTH.decode().rstrip())
        heads.append(b"HTTP/1.1 200 OK\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    return heads


def test_heads_mean_what_they_mean_to_nginx(fake_engine, gateway):
    heads = GOOD + random_heads(100)

    def script(exchange):
        _, number, cut = exchange.request.target.rsplit("/", 2)
        head = (heads + BAD)[int(number)]
        data = head if b"chunked" in head else head + BODY
        cut = int(cut)
        exchange.send(data[:cut])
        exchange.send(data[cut:])
        if int(number) >= len(heads) or b"close" in head:
            exchange.fin()

    engine = fake_engine(script=script)
    gate = gateway([engine], workers=1, location="llm_retries 0;",
                   locations=f"location /plain/ {{ proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off; "
                             f"proxy_pass {engine.url}; }}")

    def ask(kind, number, cut):
        reply = gate.client.ask(target=f"/{kind}/{number}/{cut}", token="alice")
        return reply.status, [header for header in reply.headers if header[0] not in ADDED], reply.body, reply.complete

    draw = random.Random(3)
    for number, head in enumerate(heads):
        for cut in (0, draw.randrange(len(head)), len(head)):
            assert ask("v1", number, cut) == ask("plain", number, cut), (head, cut)
    for number in range(len(heads), len(heads) + len(BAD)):
        assert ask("plain", number, 0)[0] == ask("v1", number, 0)[0] == 502
        assert ask("v1", 0, 0)[0] == 200
