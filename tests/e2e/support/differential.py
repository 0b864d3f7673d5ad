"""The same traffic through a gateway and through nginx's own proxy_pass, and what differs."""

import dataclasses
import re
import socket
import threading
import time
import zlib

import h2.config
import h2.connection
import h2.errors
import h2.events

from .fake_engine import Exchange, FakeEngine
from .random_traffic import CASE, USAGE
from .wire import Incomplete, Reader, reset

ADDED_TO_ANSWERS = {b"x-request-id", b"x-llm-queue-ms", b"date"}
KEPT_BACK = {b"upgrade", b"te", b"proxy-connection"}  # hop-by-hop headers of an engine's answer that nginx passes
ADDED_TO_REQUESTS = {b"x-request-id", b"x-llm-priority", b"content-length", b"transfer-encoding", b"connection", b"host", CASE.encode()}
ERROR_EVENT = re.compile(rb'data: \{"error":\{"message":[^\r\n]*\n\n\Z')
TIMEOUT = 20


# --------------------------------------------------------------------------------------------------------- engine

@dataclasses.dataclass
class Got:
    """A request as an engine has received it."""

    line: bytes
    headers: list
    body: bytes | None  # None: it did not come, or not whole
    connection: int


class ScriptedEngine(FakeEngine):
    """Answers each request as `answers`, by its x-case header, says, and remembers what it got in `got`."""

    def __init__(self, **keywords):
        super().__init__(script=self._answer, **keywords)
        self.answers = {}
        self.got = {}

    def _read(self, reader, number):
        reader.reset_raw()
        reader.head()
        raw = bytes(reader.raw)
        line, *lines = raw[:-4].split(b"\r\n")
        headers = [tuple(line.split(b":", 1)) for line in lines]
        names = {name.lower(): value.strip() for name, value in headers}
        case = names.get(CASE.encode(), b"").decode("latin-1")
        got = Got(line, headers, None, number)
        self.got.setdefault(case, []).append(got)
        answer = self.answers.get(case)
        if answer and answer.early:
            self._send(answer, reader.socket, case)
        body = b""
        if names.get(b"transfer-encoding") == b"chunked":
            while chunk := reader.chunk():
                body += chunk
        else:
            body = reader.exactly(int(names.get(b"content-length", 0)))
        got.body = body
        request = _Read(case)
        return request

    @staticmethod
    def _send(answer, sock, case):
        if case.endswith("g") and answer.interim:
            sock.sendall(answer.interim)
        for piece in answer.sends:
            sock.sendall(piece)
            if len(answer.sends) > 1:
                time.sleep(0.0005)  # so that pieces are read one by one; nothing depends on it

    def _answer(self, exchange: Exchange):
        answer = self.answers.get(exchange.request.case)
        if answer is None:
            exchange.body(200, b"good")
            return
        if not answer.early:
            self._send(answer, exchange.socket, exchange.request.case)
        if answer.end == "fin":
            exchange.closed = True
            exchange.socket.shutdown(socket.SHUT_WR)
            try:
                while exchange.socket.recv(65536):
                    pass
            except OSError:
                pass
        elif answer.end == "rst":
            exchange.reset()


class _Read:
    """What FakeEngine asks of a request."""

    def __init__(self, case):
        self.case = case

    @staticmethod
    def header(_):
        return None


# -------------------------------------------------------------------------------------------------------- clients

@dataclasses.dataclass
class Seen:
    """An answer as a client sees it."""

    line: bytes = b""
    headers: list = dataclasses.field(default_factory=list)
    body: bytes = b""
    interim: int = 0      # 1xx heads before it
    end: str = "nothing"  # "length", "chunked", "none", "switched", "eof": whole, as far as one can tell; "short", "rst", "nothing": not; "gone": "eof" or "rst"

    def header(self, name):
        return next((value.strip() for key, value in self.headers if key.lower() == name), None)

    @property
    def status(self):
        found = re.match(rb"HTTP/\S+ (\d{3})(?!\d)", self.line)
        return int(found[1]) if found else 0

    def whole(self):
        return self.end in ("length", "chunked", "none", "switched", "eof")


def _send_pieces(sock, pieces, failed):
    try:
        for piece in pieces:
            sock.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.0005)
    except OSError as error:
        failed.append(error)  # the kernel tells it once: the end of the answer looks orderly now, whatever it was


def _read_answer(reader, method):
    seen = Seen()
    try:
        while True:
            reader.reset_raw()
            reader.head()
            line, *lines = re.split(rb"\r\n", reader.reset_raw()[:-4])
            if not re.match(rb"HTTP/1.1 1(?!01)", line):
                break
            seen.interim += 1
        seen.line, seen.headers = line, [tuple(line.split(b":", 1)) for line in lines]
        length, encoding = seen.header(b"content-length"), seen.header(b"transfer-encoding")
        if seen.status == 101:
            seen.end = "switched"  # what follows is no HTTP
            return seen
        if method == "HEAD" or seen.status in (204, 304):
            seen.end = "none"
            return seen
        seen.end = "short"
        if encoding == b"chunked":
            while chunk := reader.chunk():
                seen.body += chunk
            seen.end = "chunked"
        elif length is not None:
            while len(seen.body) < int(length):
                data = reader.some_of(int(length) - len(seen.body))
                if not data:
                    return seen
                seen.body += data
            seen.end = "length"
        else:
            seen.end = "rst"
            parts = []
            while data := reader.some():
                parts.append(data)
                seen.body = b"".join(parts) if len(parts) < 2 else seen.body + data
            seen.end = "eof"
    except TimeoutError:
        seen.end = "hangs"
    except (Incomplete, OSError, ValueError):
        pass
    return seen


class _AnswerReader(Reader):
    def some_of(self, most):
        """At least one byte and at most so many, or b"" at the end."""
        if not self._buffer:
            try:
                self._fill()
            except Incomplete:
                return b""
        return self._take(min(most, len(self._buffer)))


def http1(port, pieces, methods):
    """Sends `pieces` on one connection; the answers to these methods, and whether the connection can be used again."""
    answers, failed = [], []
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = None
        if sum(map(len, pieces)) > 50_000:
            sender = threading.Thread(target=_send_pieces, args=(sock, pieces, failed), daemon=True)
            sender.start()
        else:
            _send_pieces(sock, pieces, failed)
        reader = _AnswerReader(sock)
        for method in methods:
            answers.append(_read_answer(reader, method))
            if answers[-1].end not in ("length", "chunked", "none"):
                if sender:
                    reset(sock)  # or it may wait for a reader
                    sender.join()
                if failed and answers[-1].end in ("eof", "rst"):
                    answers[-1].end = "gone"
                return answers, False
        if sender:
            sender.join()
        _send_pieces(sock, [b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n"], failed)
        probe = _read_answer(reader, "GET")
        assert probe.end != "hangs"
        return answers, probe.line == b"HTTP/1.1 200 OK" and probe.body == b"probe"


def http2(port, asks, names):
    """Sends these requests, with their names in x-case, as streams of one connection; their answers."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False))
    connection.initiate_connection()
    connection.increment_flow_control_window(1 << 24)
    unsent, seen, methods = {}, {}, {}
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        for number, ask in enumerate(asks):
            stream = connection.get_next_available_stream_id()
            headers = [(b":method", ask.method.encode()), (b":scheme", b"http"), (b":authority", b"gateway.test"), (b":path", ask.path)]
            headers += [(name.lower(), value.strip(b" \t").replace(b"{case}", names[number])) for name, value in ask.headers
                        if name.lower() not in (b"host", b"connection", b"keep-alive", b"upgrade", b"te", b"proxy-connection", b"expect")]
            if ask.chunks is None:
                headers.append((b"content-length", b"%d" % len(ask.body)))
            connection.send_headers(stream, headers)
            unsent[stream], seen[stream], methods[stream] = ask.body, Seen(), ask.method
        ended = set()
        while len(ended) < len(asks):
            for stream, body in list(unsent.items()):
                while stream in unsent and connection.state_machine.state is not h2.connection.ConnectionState.CLOSED:
                    step = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size, len(body))
                    if step == 0 and body:
                        break
                    connection.send_data(stream, body[:step], end_stream=step == len(body))
                    body = unsent[stream] = body[step:]
                    if not body:
                        del unsent[stream]
            if connection.state_machine.state is h2.connection.ConnectionState.CLOSED:
                break
            try:
                sock.sendall(connection.data_to_send())
                data = sock.recv(65536)
            except TimeoutError:
                for stream in set(seen) - ended:
                    seen[stream].end = "hangs"
                break
            except (OSError, h2.exceptions.ProtocolError):
                break
            if not data:
                break
            for event in connection.receive_data(data):
                stream = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.ResponseReceived):
                    seen[stream].line = b"HTTP/2 " + dict(event.headers)[b":status"]
                    seen[stream].headers = [(key, value) for key, value in event.headers if key != b":status"]
                    seen[stream].end = "short"
                elif isinstance(event, h2.events.DataReceived):
                    seen[stream].body += event.data
                    try:
                        connection.acknowledge_received_data(event.flow_controlled_length, stream)
                    except h2.exceptions.ProtocolError:
                        pass  # the connection or the stream has ended behind it
                elif isinstance(event, h2.events.StreamEnded):
                    seen[stream].end = "none" if methods[stream] == "HEAD" else "length"
                    ended.add(stream)
                    unsent.pop(stream, None)
                elif isinstance(event, h2.events.StreamReset):
                    if event.error_code != h2.errors.ErrorCodes.NO_ERROR:
                        ended.add(stream)
                    unsent.pop(stream, None)
    return list(seen.values())


# ----------------------------------------------------------------------------------------------------- comparison

def _plain_text(seen):
    """The body as the client understands it: nginx compresses by the piece, and pieces depend on when they arrived."""
    if seen.header(b"content-encoding") != b"gzip" or not seen.body:
        return seen.body
    try:
        return zlib.decompressobj(31).decompress(seen.body)
    except zlib.error:
        return seen.body


def _answer_headers(seen, events):
    dropped = ADDED_TO_ANSWERS | ({b"x-accel-buffering"} if events else set())
    return [(name, value) for name, value in seen.headers if name.lower() not in dropped and name.lower() != b"content-length"]


def differing(left, right):
    """What is only in one of the lists, or both when only the order differs."""
    return ([one for one in left if one not in right], [one for one in right if one not in left]) if sorted(left) != sorted(right) else (left, right)


def made_by_nginx(seen):
    """Whether the answer is an error page of nginx's own."""
    return seen.status >= 400 and b"<center>nginx" in _plain_text(seen) or seen.status in (400, 414) and seen.end == "none"


def compare_answers(plain, gate, answer, ask, *, injected, reached, last, holding):
    """A complaint, or None. `reached`: the engine was asked; `last`: no other request comes behind on the connection; `holding`:
    filters are on that hold back what they are not sure of."""
    events = b"text/event-stream" in answer.head.lower()
    if not reached and gate.end != "hangs" and plain.status == 502:
        return None  # an idle connection that nothing came of
    if "hangs" in (plain.end, gate.end):
        return f"hangs: plain {plain.end}, gateway {gate.end}"
    if (answer.whole is not True or holding) and not gate.whole() and not (plain.line and gate.line):
        return None  # broken, in nginx's eyes too; how much had been sent until then depends on buffers
    if not last and plain.whole() != gate.whole() or answer.early and ask.broken:
        return None  # a reset behind a later answer takes what is on its way; what comes first is chance
    if {plain.status, answer.status} == {200, 206}:
        return None  # nginx has cut the answer itself
    if plain.status != gate.status and not (answer.end == "rst" and 502 in (plain.status, gate.status)):
        return f"status: {plain.line} {plain.end}, {gate.line} {gate.end} {gate.body[:200]}"
    if made_by_nginx(plain) or gate.header(b"content-type") == b"application/json" and b'"type":"server_error"' in gate.body:
        if ask.method != "HEAD" and b'"error"' not in _plain_text(gate) and b"<center>nginx" not in _plain_text(gate):
            return f"an error of nginx's: {gate.body[:300]}"
        return None
    if not plain.line and not gate.line:
        return None  # closed after the answer before
    if plain.body == gate.body == b"probe":
        return None  # error_page
    if ask.method == "HEAD" and plain.status >= 400 and (gate.header(b"content-type") or b"").startswith(b"application/json") \
            and (plain.header(b"content-type") or b"").startswith(b"text/html"):
        return None  # an error of nginx's, most likely
    if ask.method == "HEAD" and plain.header(b"content-length") == gate.header(b"content-length") == b"5":
        return None  # error_page
    if plain.line != gate.line or plain.interim != gate.interim:
        return f"line: {plain.line} after {plain.interim}, {gate.line} after {gate.interim}"
    hides = injected and answer.events
    headers = [(name, value) for name, value in _answer_headers(plain, events) if name.lower() not in KEPT_BACK or plain.status == 101]
    if headers != _answer_headers(gate, events) and not hides:
        return f"headers: {differing(headers, _answer_headers(gate, events))}"
    if plain.header(b"content-length") != gate.header(b"content-length") and not hides and not (injected and ask.method == "HEAD"):
        return f"length: {plain.header(b'content-length')}, {gate.header(b'content-length')}"
    if reached and b"101" not in gate.line and None in (gate.header(b"x-request-id"), gate.header(b"x-llm-queue-ms")):
        return f"headers missing: {gate.line} {gate.headers}"
    expected, body = _plain_text(plain), _plain_text(gate)
    if hides:
        expected = expected.replace(USAGE, b"")
    has_body = plain.end != "none" and ask.method != "HEAD"
    if "gone" in (plain.end, gate.end) or not last and {plain.end, gate.end} <= {"eof", "rst", "nothing"}:
        return None  # nginx closes with requests unread: that resets the connection
    cut = plain.end in ("short", "rst", "nothing")
    if not reached:
        return None if plain.body == gate.body else f"body: {plain.body[-200:]} {gate.body[-200:]}"
    if answer.whole is False and has_body:
        cut = True
    elif answer.framing == "close" and answer.events and not answer.done and has_body and answer.status < 300:
        cut = True
    if answer.end == "rst" and (gate.whole() and body == answer.body or plain.whole() and expected.startswith(body)):
        return None  # whether all of it had arrived is chance
    if cut != (not gate.whole()) and not (answer.whole is None and plain.end == "eof"):
        return f"end: plain {plain.end}, gateway {gate.end}, should be {'cut' if cut else 'whole'}; {plain.body[-60:]} {gate.body[-100:]}"
    if body == expected:
        return None
    if not gate.whole():
        shorter = ERROR_EVENT.sub(b"", body)
        expected = expected.removesuffix(b"probe")  # add_after_body
        if answer.events and shorter == expected:
            return None
        if answer.end == "rst" or gate.end == "rst" or holding or plain.header(b"content-encoding") == b"gzip":
            if expected.startswith(shorter) or shorter.startswith(expected):
                return None  # what is on the way when a connection is reset may be lost, and what a filter holds back
    return f"body: {len(expected)} {expected[:100]}…{expected[-100:]}, {len(body)} {body[:100]}…{body[-200:]}"


def _request_headers(got):
    return [(name, value) for name, value in got.headers if name.lower() not in ADDED_TO_REQUESTS]


def compare_requests(plain, gate, gate_seen, answer, ask, own):
    """What the engine got: a complaint, or None."""
    if not plain or not gate_seen.line:
        return None  # the answers tell whether that is right
    if not gate:
        return f"the engine got {len(plain)} requests, and none from the gateway, whose answer is {gate_seen}"[:1500]
    for one in gate:
        if one.line != plain[0].line:
            return f"request line: {plain[0].line}, {one.line}"
        if _request_headers(one) != _request_headers(plain[0]):
            return f"request headers: {differing(_request_headers(plain[0]), _request_headers(one))}"
        if one.body is not None and one.body != ask.body and "llm_" not in own.replace("llm_retries", ""):
            return f"request body: {ask.body[:200]} {len(ask.body)}, {one.body[:200]} {len(one.body)}"
    if gate[-1].body is None and not (answer.early or ask.broken):
        return "the engine did not get the body"
    if "llm_retries 0" in own and len(gate) > 1 and answer.whole and not answer.early and len(gate) > len(plain):
        return f"{len(gate)} requests instead of {len(plain)}"
    return None
