"""Random requests, engines' answers and settings for test_differential.py. The same random.Random gives the same ones."""

import dataclasses
import gzip
import json

TOKEN = "alice"
STRIPPED = ("api-key", "x-api-key", "proxy-authorization", "x-llm-client")  # of headers drawn here, those that never reach an engine
CASE = "x-case"  # tells the engine which answer is wanted
USAGE = b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'


# ------------------------------------------------------------------------------------------------------- requests

@dataclasses.dataclass
class Ask:
    """A request. `path` and the headers are bytes, as they go on the wire."""

    method: str
    path: bytes
    version: str
    headers: list
    body: bytes
    chunks: list | None      # how a chunked body is cut; None: Content-Length
    stream: bool             # what the body says
    broken: bytes | None = None  # what stands in the place of the last chunk

    def wire(self):
        """HTTP/1, with {case} where the number of the case goes."""
        lines = [self.method.encode() + b" " + self.path + b" HTTP/" + self.version.encode()]
        lines += [name + b":" + value for name, value in self.headers]
        if self.chunks is None:
            lines.append(b"Content-Length: %d" % len(self.body))
            payload = self.body
        else:
            lines.append(b"Transfer-Encoding: chunked")
            payload = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk, extension in self.chunks)
            payload += b"0\r\n\r\n" if self.broken is None else self.broken
        return b"\r\n".join(lines) + b"\r\n\r\n" + payload


def text(draw, most):
    return "".join(draw.choices("abc é\u4e2d\U0001f600\\\"/\t\n{}[]:,", k=draw.randrange(most)))


def size(draw):
    """Mostly small; now and then around what nginx's buffers hold, or a few megabytes."""
    return draw.choices([draw.randrange(300), draw.choice([1000, 1024, 4096, 8192, 16384, 65536]) + draw.randrange(-300, 300),
                         draw.randrange(100_000, 400_000), draw.randrange(1_000_000, 3_000_000)], [80, 14, 5, 1])[0]


def written(draw, value):
    """JSON text of `value` with odd whitespace and escapes."""
    blank = lambda: draw.choice(["", "", "", " ", "\n", "\t\r\n "])
    if isinstance(value, dict):
        members = [blank() + written(draw, key) + blank() + ":" + blank() + written(draw, item) + blank() for key, item in value.items()]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(blank() + written(draw, item) + blank() for item in value) + "]"
    if isinstance(value, str) and len(value) < 40 and draw.random() < 0.2:
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0xd800 and draw.random() < 0.5 else json.dumps(c)[1:-1] for c in value) + '"'
    return json.dumps(value, ensure_ascii=draw.random() < 0.5)


def json_body(draw, model):
    content = text(draw, 40)
    content += "x" * size(draw)
    value = {"messages": [{"role": "user", "content": content}], "model": model}
    stream = draw.random() < 0.4
    if stream or draw.random() < 0.3:
        value["stream"] = stream
    if draw.random() < 0.2:
        value["stream_options"] = draw.choice([None, {}, {"include_usage": True}, {"include_usage": False}, {"other": [1]}])
    if draw.random() < 0.2:
        value["priority"] = draw.choice([None, 0, 1, 3])
    for name in draw.sample(["temperature", "n", "seed", "tools", "x", "é", "", "stop", "metadata"], draw.randrange(4)):
        value[name] = 1 if name == "n" else draw.choice([None, 0.5, 1e9, True, {"model": "other"}, [[], {}], "a", {"a": {"stream": 3}}])
    members = list(value.items())
    draw.shuffle(members)
    body = written(draw, dict(members))
    if draw.random() < 0.1:
        body = body[:-1] + ',"again":1,"again":2}'
    return (draw.choice(["", "", " ", "\n\n"]) + body + draw.choice(["", "", "\n", " \r\n"])).encode(), b"application/json", stream


def multipart_body(draw, model):
    boundary = draw.choice(["xyz", "----WebKitFormBoundary7MA4", "a'b"])
    parts = [(b'form-data; name="model"', model.encode()),
             (b'form-data; name="file"; filename="a\xc3\xa9.wav"\r\nContent-Type: audio/wav', draw.randbytes(size(draw)).replace(b"--", b"++")),
             (b'form-data; name="prompt"', text(draw, 20).encode())]
    draw.shuffle(parts)
    edge = b"--" + boundary.encode()
    body = b"".join(edge + b"\r\nContent-Disposition: " + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + edge + b"--\r\n"
    return body, b"multipart/form-data; boundary=" + (b'"%s"' % boundary.encode() if "'" in boundary else boundary.encode()), False


def path(draw):
    parts = draw.choices([b"chat", b"completions", b"a%20b", b"%2F", b"%2e%2e%2fv1", b".", b"", b"caf\xc3\xa9", b"a+b", b"x;y=1", b"~", b"a:b@c",
                          b"%E4%BD%A0", b"embeddings", b"..%2Fx", b"%41", b"'", b"\"", b"|", b"a,b", b"$x", b"*", b"<>", b"^`{}"],
                         k=draw.randrange(1, 5))
    target = b"/v1/" + b"/".join(parts)
    if draw.random() < 0.2:
        target += b"/" + b"p" * draw.choice([50, 500, 900])
    if draw.random() < 0.4:
        target += b"?" + b"&".join(draw.choices([b"", b"a=b", b"c=%20", b"d=%26%3d", b"q=\xff\x80", b"e==", b"%00=1", b"f=?/", b"utf=\xe4\xbd\xa0"],
                                                k=draw.randrange(4)))
    return draw.choice([target] * 12 + [b"http://other.test:81" + target, target + b"#fragment", target + b"%zz", b"/v1/../v1/x"])


def request_headers(draw, odd):
    pool = [(b"Accept", b" */*"), (b"User-Agent", b" OpenAI/Python 1.0"), (b"Cookie", b" a=b; c=d"), (b"cookie", b" e=f"), (b"X-Empty", b""),
            (b"X-Custom", b" a, b"), (b"X-Custom", b"c"), (b"x-high", b" \xe9\xff\x80"), (b"X-Utf", " é".encode()), (b"TE", b" trailers"),
            (b"Keep-Alive", b" timeout=5"), (b"Upgrade", b" h2c"), (b"Connection", b" keep-alive, X-Odd"), (b"X-Odd", b" 1"),
            (b"Proxy-Connection", b" keep-alive"), (b"Accept-Encoding", b" gzip, br"), (b"accept-encoding", b" identity"), (b"Range", b" bytes=0-5"),
            (b"If-None-Match", b' "x"'), (b"If-Modified-Since", b" Mon, 01 Jan 2024 00:00:00 GMT"), (b"Api-Key", b" k"), (b"X-API-KEY", b" k"),
            (b"Proxy-Authorization", b" Basic eA=="), (b"X-LLM-Client", b" root"), (b"X-Forwarded-For", b" 1.2.3.4"), (b"Via", b" 1.1 x"),
            (b"traceparent", b" 00-ab-cd-01"), (b"X-Long", b" " + b"v" * draw.choice([100, 800, 3000])), (b"x_under", b" 1"), (b"X.Dot", b" 2"),
            (b"Content-Language", b" en"), (b"Trailer", b" X-Sum"), (b"Referer", b" http://a/?b"), (b"Origin", b" null"), (b"Content-MD5", b" x=="),
            (b"X-Blanks", b"  \t a  b \t "), (b"Accept-Language", b" de;q=0.5"), (b"Content-Encoding", b" identity"), (b"If-Range", b' "x"'),
            (b"X-Accel-Redirect", b" /metrics"), (b"X-Request-Id", b" mine"), (b"Pragma", b" no-cache"), (b"Priority", b" u=1")]
    headers = draw.sample(pool, draw.randrange(odd))
    headers += [(b"X-Many-%d" % number, b" %d" % number) for number in range(draw.choice([0] * 8 + [40]))]
    return headers


def ask(draw, model, http2=False):
    body, kind, stream = multipart_body(draw, model) if draw.random() < 0.12 else json_body(draw, model)
    version = "1.1" if http2 or draw.random() < 0.85 else "1.0"
    headers = request_headers(draw, 8)
    required = [(b"Host", b" gateway.test"), (b"Authorization", b" Bearer " + TOKEN.encode()), (CASE.encode(), b" {case}"),
                (draw.choice([b"Content-Type", b"content-type"]), b" " + kind)]
    if draw.random() < 0.08:
        required.append((b"Expect", b" 100-continue"))
    if draw.random() < 0.15:
        required.append((b"Connection", draw.choice([b" close", b" keep-alive", b" Close"])))
    headers += required
    draw.shuffle(headers)
    chunks, broken = None, None
    if version == "1.1" and draw.random() < 0.35:
        chunks = []
        at = 0
        while at < len(body):
            step = draw.choice([1, 7, 100, 4096, 70000, len(body)]) if len(body) < 20000 else draw.choice([4096, 70000, len(body)])
            chunks.append((body[at:at + step], draw.choice([b"", b"", b"", b";a=b", b" "])))
            at += step
        broken = draw.choice([None] * 30 + [b"zz\r\n"])
        if broken is None and draw.random() < 0.1:
            broken = b"0;last\r\nX-Trailer: 1\r\n\r\n"
    method = draw.choices(["POST", "PUT", "GET", "HEAD", "DELETE", "PATCH", "PROPFIND", "FOO"], [80, 3, 3, 5, 2, 2, 1, 1])[0]
    return Ask(method, path(draw), version, headers, body, chunks, stream, broken)


# -------------------------------------------------------------------------------------------------------- answers

@dataclasses.dataclass
class Answer:
    """
    What the engine does: `sends` are the pieces it sends, `end` then happens: "keep", "fin" or "rst".
    `whole`: what its framing says is complete was sent; None: it depends on nginx's reading of something odd.
    """

    interim: bytes
    sends: list
    end: str
    status: int
    whole: bool | None
    body: bytes          # all that it meant to send, unframed
    events: bool         # an event stream that can be read
    done: bool           # with [DONE] at its end
    framing: str         # "length", "chunked", "close", "none", or "odd"
    early: bool          # sent before the request's body was read
    head: bytes


def events(draw):
    end = draw.choice(["\n", "\n", "\n", "\r\n", "\r"])
    lines = []
    if draw.random() < 0.2:
        lines.append(": a comment" + end * 2)
    for number in range(draw.choice([0, 1, 3, 8, 60])):
        delta = {"id": "c", "choices": [{"index": 0, "delta": {"content": f"{number} é中\U0001f600" + "y" * draw.choice([0, 0, 10, 2000])}}]}
        if draw.random() < 0.1:
            lines.append(draw.choice(["event: message" + end, ":" + end, "retry: 10" + end, "id: 1" + end]))
        lines.append(draw.choice(["data: ", "data:"]) + json.dumps(delta, ensure_ascii=draw.random() < 0.5) + end * 2)
        if draw.random() < 0.05:
            lines.append('data: {"error":{"message":"x"}}' + end * 2)
    stream = "".join(lines).encode()
    if draw.random() < 0.4:
        stream += USAGE
    done = draw.random() < 0.7
    if done:
        stream += b"data: [DONE]\n\n"
    return stream, done


def answer_body(draw):
    """(body, Content-Type, Content-Encoding, an event stream that can be read, it has its end)"""
    kind = draw.choices(["json", "binary", "events", "packed", "empty", "html"], [30, 12, 40, 5, 8, 5])[0]
    if kind == "events":
        stream, done = events(draw)
        return stream, draw.choice([b"text/event-stream", b"text/event-stream; charset=utf-8", b"Text/Event-Stream"]), None, True, done
    if kind == "packed":
        stream, _ = events(draw)
        return gzip.compress(stream, mtime=0), b"text/event-stream", b"gzip", False, False
    if kind == "binary":
        return draw.randbytes(size(draw)), draw.choice([b"audio/mpeg", b"application/octet-stream"]), None, False, False
    if kind == "empty":
        return b"", b"application/json", None, False, False
    if kind == "html":
        return b"<html><body>" + text(draw, 200).encode() + b"</body></html>", b"text/html", None, False, False
    return json.dumps({"choices": [{"message": {"content": text(draw, 30) + "z" * size(draw)}}],
                       "usage": {"prompt_tokens": 1, "completion_tokens": 2}}).encode(), b"application/json", None, False, False


def answer_headers(draw, odd):
    pool = [b"Date: now", b"Server: engine", b"ETag: \"x\"", b"Accept-Ranges: bytes", b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", b"Vary: a",
            b"Set-Cookie: a=1; Path=/", b"set-cookie: b=2", b"Cache-Control: no-store", b"Cache-Control: private", b"Expires: 0", b"X-Custom: a",
            b"X-Custom: b", b"x-custom:c", b"X-Empty:", b"X-Blank: ", b"X-High: \xe9\xff\x80", b"X-Tab:\tleft\tright\t", b"X_Under: 1",
            b"X.Dot: 2", b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Connection: x", b"Trailer: X-Sum", b"X-Accel-Redirect: /metrics",
            b"X-Accel-Limit-Rate: 100000000", b"X-Accel-Buffering: yes", b"X-Accel-Buffering: no", b"X-Accel-Charset: koi8-r", b"X-Accel-Expires: 1",
            b"Link: </a>; rel=x", b"X-Long: " + b"v" * draw.choice([100, 700, 2000]), b"openai-processing-ms: 12", b"x-ratelimit-limit-requests: 5",
            b"Refresh: 5", b"Location: /v1/other", b"Location: http://127.0.0.1/x", b"WWW-Authenticate: Basic realm=\"x\"", b"Content-Language: en",
            b"Content-Disposition: attachment; filename=\"\xc3\xa9\"", b"Age: 1", b"Via: 1.1 engine", b"Status: 500", b"Retry-After: 3", b"X-Odd{}: 3",
            b"Content-Encoding: identity", b"Strict-Transport-Security: max-age=1", b"Access-Control-Allow-Origin: *", b"Pragma: x",
            b"X-LLM-Queue-Ms: 7", b"X-Request-Id: theirs", b"Upgrade: h2c", b"Content-Range: bytes 0-1/2", b"X" * 40 + b": forty"]
    lines = draw.sample(pool, draw.randrange(odd))
    lines += [b"X-Line-%d: %d" % (number, number) for number in range(draw.choice([0] * 10 + [30, 100]))]
    return lines


def without_body(answer):
    """The same for HEAD."""
    return dataclasses.replace(answer, sends=[answer.head], whole=None, end="fin" if answer.end == "fin" else "keep", framing="none", events=False)


STATUSES = [200] * 40 + [201, 202, 203, 204, 204, 205, 206, 226, 299, 300, 301, 302, 303, 304, 307, 308, 400, 400, 401, 402, 403, 404, 404, 405, 408, 409, 410,
                         411, 412, 413, 414, 415, 416, 418, 421, 422, 426, 429, 429, 431, 444, 451, 495, 496, 497, 499, 500, 500, 501, 502, 503, 503, 504,
                         505, 507, 529, 599, 600, 999]


def split(draw, data):
    """`data` in random pieces; not too many, as each is sent by itself."""
    if len(data) > 50_000 or draw.random() < 0.5:
        return [data]
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.choice([1, 2, 5, 20])))
    return [piece for piece in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])) if piece]


def chunked(draw, body):
    out, at = b"", 0
    while at < len(body):
        step = draw.choice([1, 3, 50, 1000]) if len(body) < 3000 else draw.choice([1000, 5000, 100_000])
        piece = body[at:at + step]
        number = draw.choice([b"%x", b"%x", b"%X", b"000%x"]) % len(piece)
        out += number + draw.choice([b"", b"", b"", b";name=value"]) + b"\r\n" + piece + b"\r\n"
        at += step
    return out + draw.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\n\r\n", b"00\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"])


def answer(draw, smooth, http2=False):
    """`smooth`: without mishaps; three failures in a row would keep the engine out for a while."""
    status = draw.choice(STATUSES)
    body, kind, encoding, is_events, done = answer_body(draw)
    framing = draw.choices(["length", "chunked", "close"], [40, 45, 15])[0]
    lines = answer_headers(draw, 7)
    if draw.random() < 0.95:
        lines.append(draw.choice([b"Content-Type: ", b"content-type:", b"CONTENT-TYPE: "]) + kind)
    else:
        is_events = False
    lines = [line for line in lines if encoding is None or not line.startswith(b"Content-Encoding")]
    is_events = is_events and 200 <= status < 300 and not any(line.startswith(b"Content-Encoding") for line in lines)
    if encoding is not None:
        lines.append(b"Content-Encoding: " + encoding)
    if status in (204, 304):
        framing, body = "none", b""
        is_events = False
    version = b"1.0" if framing == "close" and draw.random() < 0.5 else b"1.1"
    payload, end = body, "keep"
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(draw.choice([b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked"]))
        payload = chunked(draw, body)
    elif framing == "close":
        end = "fin"
        if draw.random() < 0.5:
            lines.append(b"Connection: close")
    draw.shuffle(lines)
    reason = draw.choice([b" OK", b" Reason", b" ", b"", b" caf\xc3\xa9 \xff", b" A very long reason of many words " * draw.choice([1, 1, 5])])
    line_end = draw.choice([b"\r\n"] * 12 + [b"\n"])
    head = line_end.join([b"HTTP/" + version + b" %d" % status + reason, *lines]) + line_end * 2
    interim, whole, early = b"", True, False
    mishap = draw.choices(["", "cut", "garbage", "bad chunk", "interim", "early", "rst", "rst at end", "two lengths", "switch", "fin"],
                          [70, 10, 3, 2, 3, 5, 3, 2, 1, 1, 4])[0]
    if smooth and mishap not in ("interim", "early", "fin"):
        mishap = ""
    data = head + payload
    if mishap == "cut":
        data = data[:draw.randrange(len(data) + 1)]
        end, whole = "fin", None
        if framing in ("length", "chunked") and len(head) < len(data) < len(head + payload) - 40:
            whole = False
        if len(data) < len(head + payload):
            done = False
    elif mishap == "garbage":
        data += draw.choice([b"\r\n", b"garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"\0" * 5000])
        whole = None if framing in ("close", "none") else True
    elif mishap == "bad chunk" and framing == "chunked":
        data = head + payload[:payload.rfind(b"0")] + draw.choice([b"xyz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"\r\n\r\n\r\n"])
        end, whole = "fin", None
    elif mishap == "interim":
        interim = draw.choice([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2, b"HTTP/1.1 102 Processing\r\n\r\n"])
    elif mishap == "early":
        early = True
    elif mishap == "rst":
        data = data[:draw.randrange(len(data) + 1)]
        end, whole = "rst", None
    elif mishap == "rst at end" and framing in ("length", "chunked"):
        end = "rst"
        whole = None
    elif mishap == "two lengths":
        data = data.replace(line_end * 2, line_end + draw.choice([b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Content-Length: x"]) + line_end * 2, 1)
        end, whole, framing = "fin", None, "odd"
    elif mishap == "switch" and not http2:
        data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nbytes"
        status, end, whole, is_events = 101, "fin", None, False
    elif mishap == "fin":
        end = "fin"
    pieces = split(draw, data)
    if mishap == "garbage":
        # behind a pause it might arrive when the connection serves the next request
        pieces = [b"".join(pieces)]
    return Answer(interim, pieces, end, status, whole, body, is_events, done, framing, early, head)


# ------------------------------------------------------------------------------------------------------- settings

def settings(draw, lacking=()):
    """
    (directives of the server, of the location, the number for keepalive, directives of the dispatching location alone).
    `lacking`: what this nginx was built without.
    """
    location = []
    buffer_size = draw.choice(["1k", "4k", "16k", "64k"])
    pick = lambda chance, *choices: location.append(draw.choice(choices)) if draw.random() < chance else None
    location.append(f"proxy_buffering {draw.choice(['on', 'off', 'off'])}; proxy_buffer_size {buffer_size}; proxy_buffers 4 {buffer_size}; "
                    f"proxy_busy_buffers_size {buffer_size.replace('64', '128').replace('16', '32').replace('4k', '8k') if buffer_size != '1k' else '2k'};")
    pick(0.3, "proxy_request_buffering off;")
    pick(0.1, "proxy_http_version 1.0;")
    pick(0.3, "gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;", "gzip on; gzip_types text/event-stream; gzip_min_length 20; gzip_http_version 1.0;")
    pick(0.15, "gunzip on;")
    location.append(f"client_body_buffer_size {draw.choice(['1k', '8k', '64k', '1m'])};")
    pick(0.3, "proxy_max_temp_file_size 0;")
    pick(0.2, "sub_filter zzz YY; sub_filter_types *; sub_filter_once off;", "sub_filter_types *; sub_filter content CONTENT; sub_filter_last_modified on;")
    pick(0.3, "add_header X-Added yes always; add_header X-Some yes;", "expires max;", "expires epoch;")
    pick(0.3, "proxy_hide_header X-Custom;", "proxy_pass_header Server; proxy_pass_header Date;", "proxy_pass_header X-Accel-Buffering;")
    pick(0.3, "proxy_set_header X-Mine $request_uri;", "proxy_set_header Accept-Encoding \"\";", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;")
    pick(0.2, "proxy_intercept_errors on; error_page 404 500 503 /probe;", "error_page 404 500 503 /probe;")
    pick(0.15, "auth_request /auth;")
    pick(0.15, "mirror /mirror;", "mirror /mirror; mirror_request_body off;")
    pick(0.1, "add_after_body /probe; addition_types *;", "add_before_body /probe; addition_types application/json;")
    pick(0.1, "limit_rate 50m;", "proxy_limit_rate 50m;")
    pick(0.15, "postpone_output 0;", "postpone_output 10000;")
    pick(0.15, "chunked_transfer_encoding off;")
    pick(0.15, "charset utf-8; charset_types *;", "ssi on; ssi_types *;")
    pick(0.1, "proxy_force_ranges on;")
    pick(0.1, "proxy_ignore_client_abort on;")
    pick(0.15, "proxy_cookie_path / /x/;", "proxy_redirect http://127.0.0.1/ /there/;", "proxy_cookie_flags ~ secure;")
    pick(0.1, "client_body_in_file_only clean;", "client_body_in_single_buffer on;")
    pick(0.1, "proxy_ignore_headers X-Accel-Buffering X-Accel-Limit-Rate X-Accel-Redirect;")
    pick(0.1, "sendfile on; tcp_nopush on;", "aio threads;", "output_buffers 1 1k;", "tcp_nodelay off;")
    pick(0.1, "keepalive_requests 3;", "keepalive_timeout 0;", "lingering_close always;", "lingering_close off;")
    pick(0.05, "etag off;", "max_ranges 0;", "if_modified_since before;")
    server = []
    if draw.random() < 0.3:
        server.append(draw.choice(["underscores_in_headers on;", "ignore_invalid_headers off;", "merge_slashes off;", "large_client_header_buffers 4 2k;",
                                   "client_header_buffer_size 128;", "server_tokens off;"]))
    own = []
    if draw.random() < 0.3:
        own.append("llm_usage_inject on;")
    if draw.random() < 0.3:
        own.append("llm_engine_priority vllm;")
    own.append(draw.choice(["llm_retries 0;", "llm_retries 0;", "llm_retries 1;"]))
    location = [directives for directives in location if not any(name in directives for name in lacking)]
    return " ".join(server), " ".join(location), draw.choice([0, 1, 8]), " ".join(own)
