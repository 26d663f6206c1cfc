"""A report says what is missing before anything else, is stored as Markdown, and is sent at most once."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
import time_machine

from tracker_pipeline import keys
from tracker_pipeline.assets.reports import SPANS, reports
from tracker_pipeline.automation.report_schedules import periods_due
from tracker_pipeline.definitions import defs
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.io_managers import PostgresIOManager
from tracker_pipeline_tests.operations.receiver import Receiver, receiver
from tracker_pipeline_tests.operations.series import bar_closing, track

# Seven in the morning of the second of March in Los Angeles, and a minute more.
MORNING = datetime(2026, 3, 2, 15, 1, tzinfo=UTC)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as one:
        monkeypatch.setenv("TRACKER_REPORT_URLS", one.url)
        yield one


def render(name: str = "morning", key: str = "2026-03-02") -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [reports[name]],
        resources={"postgres": PostgresIOManager()},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key=key,
    )


def stored(name: str = "morning") -> pl.DataFrame:
    return scan(f"operations.report_{name}").collect()


def delivery_of(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    (event,) = result.get_asset_materialization_events()
    return event.materialization.metadata["delivery"].value


def test_a_report_names_what_is_missing_and_is_sent_once(own_database, hook):
    track("BTC/USDT", "ETH/USDT")
    bar_closing(MORNING.replace(minute=0) - timedelta(hours=2), "BTC/USDT", "ETH/USDT")
    with time_machine.travel(MORNING):
        first, second = render(), render()
    assert delivery_of(first) == {"json-1": "sent"}
    assert delivery_of(second) == {"json-1": "before"}
    (message,) = hook.received
    assert message["title"].startswith("Morning report of Mon 02 Mar 07:00 PST: ")
    text = stored().item(0, "markdown")
    assert text.splitlines()[:5] == [
        "Span: 2026-03-01 19:00 to 2026-03-02 07:00 PST.",
        "",
        "## Missing",
        "- 15m bars of BTC/USDT, ETH/USDT",
        "- scores of 10 hours: 02 03:00, 02 04:00, 02 05:00, 02 06:00, 02 07:00, 02 08:00, 02 09:00, 02 10:00"
        " and 2 more",
    ]
    assert stored().height == 1
    assert len(stored().item(0, "missing")) == 4


def test_an_old_period_is_rendered_and_not_sent(own_database, hook):
    with time_machine.travel(MORNING + timedelta(days=3)):
        outcome = delivery_of(render())
    assert outcome == {"none": "skipped"}
    assert hook.received == []
    assert stored().height == 1


def test_a_period_that_is_not_over_is_rendered_and_left_to_be_sent(own_database, hook):
    with time_machine.travel(MORNING - timedelta(hours=3)):
        assert delivery_of(render()) == {"none": "the period is not over"}
    with time_machine.travel(MORNING):
        assert delivery_of(render()) == {"json-1": "sent"}


def test_a_channel_that_is_down_does_not_fail_the_report(own_database, hook):
    hook.status = 503
    with time_machine.travel(MORNING):
        result = render()
    assert result.success
    assert delivery_of(result) == {"json-1": "failed"}


@pytest.mark.parametrize(
    ("name", "key", "start", "end"),
    [
        ("morning", "2026-03-02", "2026-03-02T03:00", "2026-03-02T15:00"),
        ("midday", "2026-03-02", "2026-03-02T15:00", "2026-03-02T20:00"),
        ("evening", "2026-03-02", "2026-03-02T08:00", "2026-03-03T03:00"),
        ("evening", "2026-03-08", "2026-03-08T08:00", "2026-03-09T02:00"),  # the clock goes forward
        ("weekly", "2026-02-23", "2026-02-23T03:00", "2026-03-02T03:00"),
    ],
)
def test_spans_end_at_the_hour_of_the_report_by_the_local_clock(name, key, start, end):
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("America/Los_Angeles")
    span = SPANS[name](datetime.fromisoformat(key).replace(tzinfo=UTC), zone)
    assert [f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}" for moment in span] == [start, end]


def test_a_tick_asks_for_its_period_and_for_those_that_a_stop_skipped(own_database):
    assert periods_due("morning", MORNING) == [date(2026, 3, 2)]
    with time_machine.travel(MORNING - timedelta(days=3)):
        render(key="2026-02-27")
    assert periods_due("morning", MORNING) == [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 2)]
    assert periods_due("weekly", datetime(2026, 3, 2, 3, 0, tzinfo=UTC)) == [date(2026, 2, 23)]


def test_a_schedule_asks_for_one_report(own_database):
    schedule = defs.resolve_schedule_def("report_evening")
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 3, 3, 3, 0, tzinfo=UTC),
        repository_def=defs.get_repository_def(),
    )
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-03-02"
    assert request.asset_selection == [keys.REPORTS["evening"]]
