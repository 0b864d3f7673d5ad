"""Free TCP ports that stay ours.

A port found by binding to 0 can be taken by anybody before the server that is told to use it binds it. Ours come from below the
ephemeral range, so no outgoing connection takes one, and a lock file per port keeps parallel test processes apart.
"""

import errno
import fcntl
import os
import random
import socket
import tempfile

_FIRST, _LAST = 20000, 32000
_directory = os.path.join(tempfile.gettempdir(), f"llm-dispatch-ports-{os.getuid()}")
_locks = []  # open for the life of this process: closing a file would give up its lock


def free_port():
    os.makedirs(_directory, exist_ok=True)
    for port in random.Random().sample(range(_FIRST, _LAST), 2000):
        lock = open(os.path.join(_directory, str(port)), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EAGAIN):
                raise
            continue
        _locks.append(lock)
        return port
    raise AssertionError("no free port found")
