"""What can go wrong between two servers: a relay that delays, swallows or cuts what passes, and a network that loses it."""

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import threading

import pytest

from .ports import free_port


class Relay:
    """
    A TCP relay in front of `target` (port). `delay`: seconds added to each piece in each direction; `silent`: nothing passes any
    more, nothing is closed; `refuse`: new connections are reset. All may change while it runs.
    """

    def __init__(self, target):
        self.target = target
        self.port = free_port()
        self.delay = 0.0
        self.silent = False
        self.refuse = False
        self.connections = 0
        self.pieces = 0  # that passed, both directions
        self._writers = set()
        self._to_clients = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _pass_on(self, reader, writer):
        try:
            while data := await reader.read(65536):
                self.pieces += 1
                if self.delay:
                    await asyncio.sleep(self.delay)
                while self.silent:
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        if self.refuse:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        self._to_clients.add(writer)
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        self._writers -= {writer, far_writer}
        self._to_clients.remove(writer)

    def answer(self, data):
        """Every client gets this as if the server had sent it."""
        def write():
            for writer in self._to_clients:
                writer.write(data)
        self._loop.call_soon_threadsafe(write)

    def cut(self):
        """Resets every open connection."""
        def abort():
            for writer in list(self._writers):
                writer.transport.abort()
        self._loop.call_soon_threadsafe(abort)

    def stop(self):
        def end():
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.01, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(10)


class Network:
    """
    A network namespace of its own, joined to ours by a pair of virtual cables: `address` is reached from outside, run() starts
    commands inside, lose() has the kernel drop whatever arrives there without a word, as a broken switch does.
    """

    _numbers = itertools.count(1)

    def __init__(self):
        if os.geteuid() != 0:
            pytest.skip("making a network namespace needs root")
        missing = [tool for tool in ("ip", "iptables") if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
        if missing:
            pytest.skip(f"{' and '.join(missing)} not installed")
        number = next(self._numbers)
        self.name = f"llm{os.getpid()}n{number}"
        cable = f"l{os.getpid() % 1000000}n{number}"
        subnet = f"10.{203 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self.address = f"{subnet}.{number * 4 + 2}"
        here = f"{subnet}.{number * 4 + 1}"
        try:
            self._ip("netns", "add", self.name)
            self._ip("link", "add", cable, "type", "veth", "peer", "name", "far", "netns", self.name)
            self._ip("addr", "add", f"{here}/30", "dev", cable)
            self._ip("link", "set", cable, "up")
            self._ip("-n", self.name, "addr", "add", f"{self.address}/30", "dev", "far")
            for device in ("far", "lo"):
                self._ip("-n", self.name, "link", "set", device, "up")
            self._iptables("-L")
        except subprocess.CalledProcessError as refused:
            self.remove()
            pytest.skip(f"the kernel grants no network namespace: {refused.stderr.strip()}")

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def _iptables(self, *words):
        subprocess.run([*self.argv(), "iptables", "-w", *words], check=True, capture_output=True, text=True)

    def argv(self):
        """What to write before a command for it to run inside."""
        return ["ip", "netns", "exec", self.name]

    def lose(self):
        self._iptables("-A", "INPUT", "!", "-i", "lo", "-j", "DROP")

    def mend(self):
        self._iptables("-F", "INPUT")

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


class FullBacklog:
    """A port that never answers: it listens, but its queue of connections is full, so the kernel drops further ones."""

    def __init__(self):
        self.port = free_port()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(0)
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def stop(self):
        for sock in [self._listener, *self._fillers]:
            sock.close()
