"""llm_usage across workers: what one could not write before it ended, those after it write."""

import contextlib
import re
import signal

import pytest

from support.client import chat_body
from support.poll import until
from support.process import Adopted, children_of

ASKED = 12


class Away:
    """A gateway whose workers keep ASKED rows, because their database is away."""

    def __init__(self, postgres, engine, gateway, **keywords):
        self.postgres, self.name = postgres, postgres.create_database()
        self.gate = gateway([engine], http=f'llm_usage "{postgres.url(self.name)}";', **keywords)
        postgres.stop()
        for _ in range(ASKED):
            assert self.gate.client.ask(token="alice").status == 200
        self.gate.wait_outcomes({"completed": ASKED})

    def reload(self):
        """Ends once the old workers have ended."""
        self.gate.reload()
        until(lambda: not self.gate.old_workers(), "the old workers have ended")

    @contextlib.contextmanager
    def back(self):
        self.postgres.start()
        with self.postgres.connect(self.name) as connection:
            yield connection

    def all_are_written(self, asked=ASKED):
        with self.back() as connection:
            until(lambda: connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == asked, "all rows are written", 20)
        until(lambda: self.gate.metrics().total("llm_usage_records_total") == asked, "and counted")
        assert self.gate.metrics().total("llm_usage_dropped_total") == 0
        assert "usage records lost" not in self.gate.error_log()


@pytest.fixture
def away(own_postgres, fake_engine, gateway):
    return lambda **keywords: Away(own_postgres, fake_engine(), gateway, **keywords)


def test_rows_survive_reloads_without_a_database(away):
    """Also those that had been handed over before."""
    case = away()
    for _ in range(2):
        case.reload()
    assert case.gate.client.ask(token="alice").status == 200
    case.all_are_written(ASKED + 1)


def test_rows_survive_a_new_zone(away):
    case = away()
    case.gate._values["zone"] = "16m"
    case.reload()
    case.all_are_written()


def test_a_password_is_changed_before_the_gateway_knows(own_postgres, fake_engine, gateway):
    """And the reload that tells it comes when rows wait already."""
    name = own_postgres.create_database()
    with own_postgres.connect(name) as connection:
        connection.execute("CREATE ROLE former LOGIN")
        connection.execute("CREATE ROLE later LOGIN")
        connection.execute("GRANT INSERT ON metrics TO former, later")
        connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO former, later")
        usage = lambda role: f'llm_usage "{own_postgres.url(name).replace("llm@", f"{role}@")}";'
        gate = gateway([fake_engine()], http=usage("former"), workers=1)
        count = lambda: connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
        assert gate.client.ask(token="alice").status == 200
        until(lambda: count() == 1, "the row is written")
        connection.execute("ALTER ROLE former NOLOGIN")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'former'")
        for _ in range(3):
            assert gate.client.ask(token="alice").status == 200
        gate.wait_logged('role "former" is not permitted to log in')
        gate.blocks["http"] = gate.blocks["http"].replace(usage("former"), usage("later"))
        gate.reload()
        until(lambda: count() == 4, "all rows are written", 20)
        until(lambda: gate.metrics().total("llm_usage_records_total") == 4, "and counted")
        assert gate.metrics().total("llm_usage_dropped_total") == 0


def test_rows_that_nobody_is_to_write_any_more_are_counted_as_lost(away):
    case = away()
    case.gate.blocks["http"] = case.gate.blocks["http"].replace("llm_usage ", "llm_usage off; #")
    case.reload()
    until(lambda: case.gate.metrics().total("llm_usage_dropped_total") == ASKED, "the lost rows are counted")
    case.gate.wait_logged("usage records lost: llm_usage is off")
    with case.back() as connection:
        assert connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == 0


def test_the_log_says_what_is_lost_when_the_module_is_no_longer_in_use(away):
    """The old workers left their rows to others, though there were none."""
    case = away()
    old = case.gate.workers()
    case.gate.conf.write_text(re.sub(r"\nhttp \{.*", f"\nhttp {{ server {{ listen 127.0.0.1:{case.gate.port}; }} }}\n", case.gate.conf.read_text(), flags=re.DOTALL))
    case.gate.send_signal(signal.SIGHUP)
    until(lambda: not set(old) & set(children_of(case.gate.pid)), "the old workers have ended")
    lost = re.findall(r"llm: (\d+) usage records lost: the worker ends and the database does not answer", case.gate.error_log())
    assert sum(int(count) for count in lost) == ASKED and "left to other workers" not in case.gate.error_log()
    case.gate.metered = False


def test_the_log_says_what_is_lost_when_nginx_ends(away):
    case = away()
    case.gate.send_signal(signal.SIGQUIT)
    until(lambda: not case.gate.workers() and not case.gate.old_workers(), "the workers have ended")
    case.gate.wait_logged(rf"\[error\] .*llm: {ASKED} usage records lost: nginx ends and the database does not answer")
    case.gate.lose()


def ask_while_away(postgres, engine, nginx, count, **keywords):
    """A gateway that keeps this many rows, as its database is away; and the database's name."""
    name = postgres.create_database()
    gate = nginx(http=f'llm_engine {engine.url} model=sim max_running=64; llm_usage "{postgres.url(name)}";', **keywords)
    postgres.stop()
    for _ in range(count):
        assert gate.client.ask(chat_body("sim", max_tokens=1)).status == 200
    return gate, name


def test_all_that_is_lost_is_told_and_not_the_first_batch_only(own_postgres, llm_engine, nginx):
    """Without a master nobody comes after the process."""
    gate, _ = ask_while_away(own_postgres, llm_engine(sim=True), nginx, 1100, workers=0, main="master_process off;")
    gate.send_signal(signal.SIGQUIT)
    gate.wait_logged("llm: 1100 usage records lost: the worker ends and the database does not answer")
    gate.lose()


def test_more_than_a_batch_is_written_later(own_postgres, llm_engine, nginx):
    gate, name = ask_while_away(own_postgres, llm_engine(sim=True), nginx, 1100, workers=1)
    gate.reload()
    until(lambda: not gate.old_workers(), "the old worker has ended")
    own_postgres.start()
    with own_postgres.connect(name) as connection:
        until(lambda: connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == 1100, "all rows are written", 20)


@pytest.fixture
def slow(own_postgres, llm_engine, nginx):
    """A gateway with 2100 rows for a database that is back, and takes 0.3 s for each batch of them; and a connection to that."""
    gate, name = ask_while_away(own_postgres, llm_engine(sim=True), nginx, 2100, workers=1)
    own_postgres.start()
    with own_postgres.connect(name) as connection:
        connection.execute("""
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
            CREATE TRIGGER slow BEFORE INSERT ON metrics FOR EACH STATEMENT EXECUTE FUNCTION slow()""")
        yield gate, connection


def test_a_worker_that_ends_writes_all_that_a_slow_database_takes(slow):
    """It gave up a second after it had begun, in the midst of a batch."""
    gate, connection = slow
    gate.send_signal(signal.SIGQUIT)
    gate.wait_logged("worker process .* exited with code 0")
    assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (2100,)
    assert "usage records lost" not in gate.error_log()
    gate.lose()


def test_a_worker_that_must_end_at_once_says_what_it_could_not_write(slow):
    """Before nginx kills it, which it does a second and a half after it has told it."""
    gate, connection = slow
    gate.send_signal(signal.SIGTERM)
    gate.wait_logged("usage records lost: nginx ends and the database does not answer")
    lost = int(re.search(r"(\d+) usage records lost: nginx ends", gate.error_log())[1])
    assert "exited on signal" not in gate.error_log()
    with connection.transaction():
        connection.execute("LOCK TABLE metrics IN SHARE MODE")  # what is under way has ended
        written = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
    assert 0 < lost < 2100 and written + lost >= 2100
    gate.lose()


def test_rows_that_wait_for_a_lock_at_a_reload_are_written_once(postgres_cluster, fake_engine, gateway):
    """The session of the old worker waited on, and that of the new one beside it: each wrote the same rows in the end."""
    name = postgres_cluster.create_database()
    gate = gateway([fake_engine()], workers=1, http=f'llm_usage "{postgres_cluster.url(name)}";')
    with postgres_cluster.connect(name) as connection:
        waiting = lambda: connection.execute("SELECT array_agg(pid) FROM pg_locks WHERE NOT granted AND relation = 'metrics'::regclass").fetchone()[0]
        with connection.transaction():
            connection.execute("LOCK TABLE metrics IN SHARE MODE")  # as CREATE INDEX does
            assert gate.client.ask(token="alice").status == 200
            old = until(waiting, "the old worker's session waits")
            gate.reload()
            gate.wait_logged("1 usage records are left to other workers")
            until(lambda: waiting() not in (None, old) and old[0] not in waiting(), "the new worker's session waits instead", 5)
        until(lambda: gate.metrics().total("llm_usage_records_total") == 1, "the row is counted")
        assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (1,)


def test_an_upgrade_that_is_taken_back(away):
    """USR2 and WINCH, then HUP to the old master: its next workers write what its former ones have left."""
    case = away(daemon=True)
    gate, old = case.gate, case.gate.pid
    workers = lambda master: sum(title == "nginx: worker process" for title in children_of(master).values())
    gate.send_signal(signal.SIGUSR2)
    new = until(lambda: (pid := gate._pid_in_file()) != old and pid, "a new master")
    until(lambda: workers(new) == 4, "its workers run")
    gate.send_signal(signal.SIGWINCH)
    until(lambda: not children_of(old).keys() - {new}, "the old workers have ended")
    gate.send_signal(signal.SIGHUP)
    until(lambda: workers(old) == 4, "the old master has workers again")
    assert Adopted(new, gate.directory / "output.log").stop(signal.SIGQUIT) == 0
    case.all_are_written()
