"""The faults of the soak: each does one thing to a running system, undoes it, and says which failures of requests it excuses."""

import json
import os
import signal
import socket
import time

from .client import request_bytes
from .poll import until
from .process import stop_for_now
from .traffic import Plan, Traffic
from .wire import Reader


class Fault:
    """One kind. `excuses`: outcomes (or "broken": a connection that ends early) that requests of its time may have."""

    name = ""
    excuses = frozenset()
    settle = 3.0  # seconds after its end for which it still excuses

    def strike(self, world, rng):
        """Does it and undoes it; returns a figure for the table, or None."""
        raise NotImplementedError


class WorkerKilled(Fault):
    name = "worker killed"

    def strike(self, world, rng):
        gate = world.gate
        victim = rng.choice(gate.workers())
        stop_for_now(victim)
        world.lost_ports |= gate.connections_of(victim)
        start = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        world.kills += 1
        until(lambda: f"worker {victim} died" in gate.error_log(), "its leases are returned", 10)
        took = time.monotonic() - start
        until(lambda: len(gate.workers()) == 4, "the dead worker is replaced")
        return "leases back after s", took


class WorkerStopped(Fault):
    name = "worker stopped"

    # nothing fails, but what waits in it may wait until its timeout
    def strike(self, world, rng):
        victim = rng.choice(world.gate.workers())
        seconds = rng.uniform(1, 8)
        os.kill(victim, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(victim, signal.SIGCONT)
        return "for s", seconds


class Reloaded(Fault):
    name = "reload, other settings"

    def strike(self, world, rng):
        policy = rng.choice(("throughput", "least_running", "round_robin", "prefix", "random"))
        world.settings = [f"llm_min_throughput {rng.choice((0, 2, 5))};", f"llm_routing {policy};",
                          f"llm_scheduler {rng.choice(('weighted', 'strict'))};", f"llm_aging {rng.choice(('2s', '30s', 'off'))};"]
        world.write_settings()
        start = time.monotonic()
        world.gate.reload(60)
        return "new workers after s", time.monotonic() - start


class EngineKilled(Fault):
    name = "engine killed"
    excuses = frozenset({"broken", "rejected_no_engine"})  # what had no byte of answer goes elsewhere
    settle = 12.0  # the engine that follows is behind a breaker for up to ten seconds

    def strike(self, world, rng):
        engine = rng.choice(world.engines)
        engine.kill()
        time.sleep(rng.uniform(0.5, 4))
        engine.start()


class EngineStopped(Fault):
    name = "engine stopped"

    def strike(self, world, rng):
        engine = rng.choice(world.engines)
        seconds = rng.uniform(1, 5)
        os.kill(engine.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(engine.pid, signal.SIGCONT)
        return "for s", seconds


class EngineRestarted(Fault):
    """An engine that leaves in order: it finishes what it runs."""
    name = "engine drained, restarted"
    excuses = frozenset({"rejected_no_engine"})

    def strike(self, world, rng):
        engine = rng.choice(world.engines)
        start = time.monotonic()
        engine.finish()
        engine.start()
        return "away for s", time.monotonic() - start


class RedisFault(Fault):
    def strike(self, world, rng):
        self.begin(world)
        time.sleep(rng.uniform(1, 6))
        start = time.monotonic()
        self.end(world)
        until(lambda: world.gate.metrics().total("llm_redis_up") == 1, "Redis is found again", 15)
        return "found again after s", time.monotonic() - start


class RedisKilled(RedisFault):
    name = "Redis killed, back empty"

    def begin(self, world):
        world.redis.kill()

    def end(self, world):
        world.redis.start()


class RedisSlow(RedisFault):
    name = "Redis 500 ms late"

    def begin(self, world):
        world.redis_relay.delay = 0.5

    def end(self, world):
        world.redis_relay.delay = 0


class RedisHangs(RedisFault):
    name = "Redis hangs"

    def begin(self, world):
        world.redis.send_signal(signal.SIGSTOP)

    def end(self, world):
        world.redis.send_signal(signal.SIGCONT)


class DatabaseFault(Fault):
    def strike(self, world, rng):
        self.begin(world)
        time.sleep(rng.uniform(1, 6))
        start = time.monotonic()
        self.end(world)
        until(lambda: world.gate.metrics().total("llm_priority_db_up") == 1, "the database is found again", 30)
        return "found again after s", time.monotonic() - start


class DatabaseKilled(DatabaseFault):
    name = "PostgreSQL killed"

    def begin(self, world):
        world.postgres.kill()

    def end(self, world):
        world.postgres.start()


class DatabaseSilent(DatabaseFault):
    name = "PostgreSQL silent"

    def begin(self, world):
        world.database_relay.silent = True

    def end(self, world):
        world.database_relay.silent = False
        world.database_relay.cut()


class TokenRevoked(Fault):
    name = "token revoked and back"

    def strike(self, world, rng):
        def execute(statement):
            with world.postgres.connect(world.database) as connection:
                connection.execute(statement)

        ask = lambda: world.ask("mallory").status
        start = time.monotonic()
        execute("UPDATE users SET disabled = true WHERE token = 'mallory'")
        until(lambda: ask() == 401, "the token opens nothing", 10)
        took = time.monotonic() - start
        execute("UPDATE users SET disabled = false WHERE token = 'mallory'")
        until(lambda: ask() != 401, "the token opens again", 10)
        return "closed after s", took


class WrongTokens(Fault):
    name = "2,000 wrong tokens"

    def strike(self, world, rng):
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", world.gate.port), timeout=20) as sock:
                reader = Reader(sock)
                for _ in range(5):
                    sock.sendall(b"".join(request_bytes("GET", "/v1/models", [("Authorization", f"Bearer wrong{rng.random()}")])
                                          for _ in range(100)))
                    for _ in range(100):
                        start, headers = reader.head()
                        assert start.split()[1] == "401", start
                        reader.exactly(int(dict(headers)["content-length"]))
        world.expected["rejected_invalid_api_key"] += 2000


class Stampede(Fault):
    name = "300 connections at once"

    def strike(self, world, rng):
        crowd = Traffic(world.gate.port, lambda: Plan("crowd", world.body(20, 5, False)), arrivals=iter([0.0] * 300)).start()
        fates = crowd.finish(120)
        world.fates += fates
        refused = [fate for fate in fates if fate.status == 429]
        return "refused with Retry-After", len(refused)


class SlowReaders(Fault):
    name = "30 clients that read nothing"

    def strike(self, world, rng):
        pending = [world.gate.client.send(world.body(10, 40, True), token="slow", timeout=60) for _ in range(30)]
        time.sleep(rng.uniform(1, 3))
        for one in pending:
            one.reset()
        world.unsure += 30


class LyingReports(Fault):
    name = "lying reports"

    def strike(self, world, rng):
        lies = [{"kv_usage": 1e300}, {"decode_tokens": 10 ** 18, "user_seconds": 1e-9}, {"seq": -1}, {"running": "many"},
                {"url": "ftp://x"}, {"max_running": -4}]
        for key in world.redis.client.keys("llm:engine:*"):
            text = world.redis.client.get(key)
            for lie in rng.sample(lies, 3) if text else ():
                world.redis.client.publish("llm:engines", json.dumps({**json.loads(text), **lie}))
        world.redis.client.publish("llm:engines", "{" * 10000)


class CrowdLeaves(Fault):
    """Many clients that wait or run go away in one moment."""
    name = "60 clients leave at once"

    def strike(self, world, rng):
        pending = [world.gate.client.send(world.body(10, 100, True), token="crowd", timeout=60) for _ in range(60)]
        time.sleep(rng.uniform(0, 0.5))
        for one in pending:
            one.reset()
        world.unsure += 60


KINDS = [WorkerKilled, WorkerStopped, Reloaded, EngineKilled, EngineStopped, EngineRestarted, RedisKilled, RedisSlow, RedisHangs,
         DatabaseKilled, DatabaseSilent, TokenRevoked, WrongTokens, Stampede, SlowReaders, LyingReports, CrowdLeaves]
