"""A name server for nginx's `resolver` that knows what a test tells it."""

import socket
import struct
import threading

from .ports import free_port


class NameServer:
    """`addresses`: {name: [IPv4 or IPv6 address]}, changed at will; other names do not exist. Answers hold for `ttl` seconds."""

    def __init__(self, addresses, ttl=1):
        self.addresses = addresses
        self.port = free_port()
        self.asked = 0
        self.ttl = ttl
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def directive(self):
        return f"resolver 127.0.0.1:{self.port};"

    def _serve(self):
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query):
        """RFC 1035, section 4: the question repeated, and a record for each address of the kind that was asked for (A or AAAA)."""
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        known = self.addresses.get(".".join(labels))
        kind = struct.unpack_from(">H", query, at + 1)[0]
        family = {1: socket.AF_INET, 28: socket.AF_INET6}[kind]
        found = [socket.inet_pton(family, address) for address in known or () if (":" in address) == (kind == 28)]
        head = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(found), 0, 0)
        records = [struct.pack(">HHHIH", 0xc00c, kind, 1, self.ttl, len(address)) + address for address in found]
        return head + query[12:at + 5] + b"".join(records)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as farewell:
            farewell.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
