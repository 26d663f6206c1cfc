"""What is wrong is said once for each cause, to a real HTTP server, and recorded; a restart says nothing twice."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tracker_pipeline.domain.alerting import Cause
from tracker_pipeline.operations import alerts, causes, delivery, instance_state
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.notifications import channels
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.operations.instance import own_instance  # noqa: F401
from tracker_pipeline_tests.operations.receiver import Receiver, receiver
from tracker_pipeline_tests.operations.series import bar_closing, track

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BROKEN = Cause("source/bybit", "critical", "bybit is silent", "Nothing new since noon.")
MILD = Cause("symbols/bybit", "warning", "1 symbol of bybit is stale", "Stale: X.")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as one:
        monkeypatch.setenv("TRACKER_ALERT_URLS", one.url)
        yield one


def tick(found: list[Cause], at: datetime) -> None:
    """One look, in a process that remembers nothing of the one before."""
    with connect() as connection:
        alerts.send(connection, alerts.update(connection, found, at), at)


def deliveries() -> list[tuple[str, str, int]]:
    with connect() as connection:
        return connection.execute(
            "SELECT channel, status, attempts FROM operations.deliveries ORDER BY at, channel"
        ).fetchall()


def test_a_cause_is_said_once_reminded_of_and_said_to_be_over(own_database, hook):
    for minutes in range(0, 7 * 60, 5):
        tick([BROKEN], NOW + minutes * MINUTE)
    for minutes in range(0, 60, 5):
        tick([], NOW + 7 * HOUR + minutes * MINUTE)
    assert hook.titles == ["🔴 bybit is silent", "🔴 still: bybit is silent", "🟢 over: bybit is silent"]
    assert deliveries() == [("json-1", "sent", 1)] * 3


def test_a_cause_that_flaps_is_one_alert(own_database, hook):
    for minutes in range(60):
        tick([BROKEN] if minutes % 2 else [], NOW + minutes * MINUTE)
    assert hook.titles == ["🔴 bybit is silent"]


def test_a_cause_that_comes_back_within_the_cooldown_is_the_old_alert(own_database, hook):
    tick([BROKEN], NOW)
    tick([], NOW + 20 * MINUTE)
    tick([BROKEN], NOW + 40 * MINUTE)
    tick([], NOW + 60 * MINUTE)
    tick([BROKEN], NOW + 3 * HOUR)
    assert [title.split()[0] for title in hook.titles] == ["🔴", "🟢", "🟢", "🔴"]
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM operations.alerts").fetchone() == (2,)


def test_a_cause_that_gets_worse_is_said_again(own_database, hook):
    tick([MILD], NOW)
    tick([Cause(MILD.key, "critical", MILD.title, MILD.text)], NOW + MINUTE)
    assert hook.titles == ["🔴 1 symbol of bybit is stale", "🔴 worse: 1 symbol of bybit is stale"]


def test_without_a_channel_a_message_is_recorded_as_skipped(own_database):
    tick([BROKEN], NOW)
    assert deliveries() == [("none", "skipped", 0)]


def test_a_channel_that_refuses_is_tried_again_and_recorded(own_database, hook):
    hook.status = 500
    tick([BROKEN], NOW)
    assert deliveries() == [("json-1", "failed", 1)]
    hook.status = 200
    tick([BROKEN], NOW + 2 * MINUTE)
    tick([BROKEN], NOW + 4 * MINUTE)
    assert deliveries() == [("json-1", "sent", 2)]
    (received,) = hook.received
    assert received["title"] == f"🔴 {BROKEN.title}"
    assert received["message"].startswith(BROKEN.text)


def test_a_message_whose_sender_died_is_not_sent_again(own_database, hook, monkeypatch):
    def die(*_: object) -> tuple[str, None]:
        raise KeyboardInterrupt

    def deliver() -> dict[str, str]:
        targets = channels("TRACKER_ALERT_URLS")
        with connect() as connection:
            return delivery.deliver(connection, targets, message="m", title="t", body="b", now=NOW)

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_send", die)
        with pytest.raises(KeyboardInterrupt):
            deliver()
    outcome = deliver()
    assert outcome == {"json-1": "before"}
    assert hook.received == []


def test_a_channel_is_recorded_without_its_secrets_and_a_wrong_one_is_named_by_its_place(monkeypatch):
    monkeypatch.setenv(
        "TRACKER_ALERT_URLS", "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    )
    (slack,) = channels("TRACKER_ALERT_URLS")
    assert slack.name == "slack-1"
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in repr(slack)
    monkeypatch.setenv("TRACKER_ALERT_URLS", "json://localhost/x, nonsense-secret")
    with pytest.raises(PermanentError, match="URL 2 of TRACKER_ALERT_URLS") as raised:
        channels("TRACKER_ALERT_URLS")
    assert "secret" not in str(raised.value)


def test_a_dead_exchange_is_one_cause_however_many_symbols_show_it(own_database, hook):
    symbols = [f"C{number}/USDT" for number in range(30)]
    track(*symbols)
    bar_closing(NOW, *symbols)
    bar_closing(NOW, *symbols, timeframe="1h")
    with connect() as connection:
        assert alerts.watch(connection, NOW) == []
        for minutes in range(0, 600, 10):
            alerts.watch(connection, NOW + minutes * MINUTE)
    # The 15m bars go stale first; the reminder comes after six hours.
    assert [title.split(":")[0] for title in hook.titles] == ["🔴 no news of bybit", "🔴 still"]


def test_some_dead_symbols_are_one_cause_that_names_them(own_database):
    track(*[f"C{number}/USDT" for number in range(10)])
    bar_closing(NOW, *[f"C{number}/USDT" for number in range(8)])
    bar_closing(NOW - timedelta(hours=9), "C8/USDT", "C9/USDT")
    with connect() as connection:
        (message,) = alerts.watch(connection, NOW)
    assert message.title == "🔴 2 symbols of bybit stale"
    assert "C8/USDT, C9/USDT" in message.body


def test_coins_that_join_the_universe_alarm_nobody_while_they_cannot_have_a_bar(own_database):
    track(*[f"C{number}/USDT" for number in range(10)])
    bar_closing(NOW.replace(hour=0), "C0/USDT", timeframe="1d")
    with connect() as connection:
        assert alerts.watch(connection, NOW) == []
        assert alerts.watch(connection, NOW + timedelta(hours=12)) == []


def test_a_full_disk_is_a_cause(own_database, monkeypatch):
    usage = type("Usage", (), {"free": 2**29})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with connect() as connection:
        (found,) = causes.find(connection, NOW, [])
    assert found.key == "disk"
    assert found.title == "0.5 GiB free on the disk of the state folder"


def test_a_failed_run_of_a_schedule_is_a_cause_until_one_succeeds_and_a_backfill_is_none(
    own_instance,  # noqa: F811
):
    def run(tags: dict[str, str], *, fails: bool = True) -> None:
        @dg.op
        def step() -> None:
            if fails:
                raise dg.Failure("the exchange refuses the key")

        @dg.job(name="market_day")
        def market_day() -> None:
            step()

        market_day.execute_in_process(instance=own_instance, tags=tags, raise_on_error=False)

    now = datetime.now(UTC) + MINUTE
    run({"dagster/schedule_name": "market_hourly", "dagster/backfill": "b"})
    run({})
    with connect() as connection:
        assert instance_state.failed_runs(connection, now) == []
        run({"dagster/schedule_name": "market_hourly"})
        (cause,) = [c for c in causes.find(connection, now, []) if c.key.startswith("run/")]
        assert cause.title == "market_day failed"
        assert cause.text.startswith("step: the exchange refuses the key. Run ")
        run({"dagster/schedule_name": "market_hourly"}, fails=False)
        assert instance_state.failed_runs(connection, now) == []


def test_failed_checks_of_an_asset_are_one_cause(own_instance):  # noqa: F811
    @dg.asset
    def holding() -> None: ...

    @dg.asset_check(asset=holding)
    def unique() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="7 rows twice")

    @dg.asset_check(asset=holding)
    def balanced() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    dg.materialize([holding, unique, balanced], instance=own_instance)
    with connect() as connection:
        (cause,) = [c for c in causes.find(connection, datetime.now(UTC), []) if c.key.startswith("check/")]
    assert cause == Cause("check/holding", "critical", "1 check of holding failed", "unique: 7 rows twice")
