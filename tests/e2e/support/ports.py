"""Free TCP ports that stay ours.

A port found by binding to 0 can be taken by anybody before the server that is told to use it binds it. Ours come from below the
ephemeral range, so no outgoing connection takes one, and a lock on one byte of a file per port keeps parallel test processes apart.
"""

import errno
import fcntl
import os
import random
import socket
import tempfile

_FIRST, _LAST = 20000, 32000
_path = os.path.join(tempfile.gettempdir(), f"llm-dispatch-ports-{os.getuid()}.lock")
_file = None  # open for the life of this process: closing it would give up its locks
_ours = set()


def free_port():
    global _file
    _file = _file or open(_path, "a")
    for port in random.Random().sample(range(_FIRST, _LAST), 2000):
        if port in _ours:
            continue
        try:
            fcntl.lockf(_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            continue
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError as error:
            fcntl.lockf(_file, fcntl.LOCK_UN, 1, port)
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _ours.add(port)
        return port
    raise AssertionError("no free port found")
