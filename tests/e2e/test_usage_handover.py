"""llm_usage across workers: what one could not write before it ended, those after it write."""

import contextlib
import signal

import pytest

from support.poll import until

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


def test_the_log_says_what_is_lost_when_nginx_ends(away):
    case = away()
    case.gate.send_signal(signal.SIGQUIT)
    until(lambda: not case.gate.workers() and not case.gate.old_workers(), "the workers have ended")
    case.gate.wait_logged(rf"\[error\] .*llm: {ASKED} usage records lost: nginx ends and the database does not answer")
    case.gate.lose()
