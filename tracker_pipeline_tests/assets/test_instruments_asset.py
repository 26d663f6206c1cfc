"""Instruments from a running exchange whose list changes, in a real database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest
import stamina

import tracker_pipeline
from tracker_pipeline import settings
from tracker_pipeline.assets import instruments as module
from tracker_pipeline.commands.import_bars import imported_instruments
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.io_managers import PostgresIOManager
from tracker_pipeline_tests.serving import served

DAY = timedelta(days=1)


@pytest.fixture
def venue(own_database: str) -> Iterator[str]:
    app = make_exchange_app(
        symbols=["BTC", "ETH", "SOL", "1000PEPE"], seed=7, replay=None, clock=lambda: datetime.now(UTC)
    )
    with served(app) as url:
        yield url


def switch(url: str, *faults: str) -> None:
    httpx.put(f"{url}/sandbox/faults", content="\n".join(faults)).raise_for_status()


def look(url: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [module.instruments],
        resources={
            "postgres": PostgresIOManager(),
            "exchange": ExchangeResource(venue="bybit", market_type="spot", url=url),
        },
    )


def stored() -> pl.DataFrame:
    return scan("market.instruments").collect()


def sql(statement: str) -> list[tuple]:
    with connect() as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type]


def test_a_look_records_listings_and_the_next_one_changes_nothing(venue):
    born = (datetime.now(UTC) - 40 * DAY).replace(minute=15, second=0, microsecond=0)
    switch(venue, f"listing:symbols=SOLUSDT,at={born.isoformat()}")
    assert look(venue).success
    rows = stored()
    assert rows.select("symbol", "coin", "multiplier", "listed_from").sort("symbol").rows() == [
        ("1000PEPE/USDT", "PEPE", 1000, None),
        ("BTC/USDT", "BTC", 1, None),
        ("ETH/USDT", "ETH", 1, None),
        ("SOL/USDT", "SOL", 1, born),
    ]
    assert rows["tier"].to_list() == ["memecoin", "large_cap", "large_cap", "large_cap"]
    before = sql("SELECT xmin::text, symbol FROM market.instruments ORDER BY symbol")
    assert look(venue).success
    assert sql("SELECT xmin::text, symbol FROM market.instruments ORDER BY symbol") == before


def test_a_symbol_that_leaves_and_returns_is_never_lost(venue):
    assert look(venue).success
    now = datetime.now(UTC)
    switch(venue, f"delisting:symbols=ETHUSDT,at={(now - 20 * DAY).isoformat()}")
    result = look(venue)
    metadata = result.asset_materializations_for_node("market__instruments")[0].metadata
    assert metadata["symbols that left"].value == "ETH/USDT"
    assert stored().filter(symbol="ETH/USDT")["listed_to"].item() is not None

    # As if it had left 20 days ago, and came back 5 days ago.
    left, back = (
        (now - 20 * DAY).replace(microsecond=0),
        (now - 5 * DAY).replace(minute=0, second=0, microsecond=0),
    )
    with connect() as connection:
        connection.execute(
            "UPDATE market.instruments SET listed_to = %s, listings = jsonb_build_array("
            "jsonb_build_object('from', NULL, 'to', %s::text)) WHERE symbol = 'ETH/USDT'",
            (left, left.isoformat()),
        )
    switch(venue, f"delisting:symbols=ETHUSDT,at={left.isoformat()},relisted={back.isoformat()}")
    assert look(venue).success
    assert stored().filter(symbol="ETH/USDT")["listed_to"].item() is None
    found = sql(
        "SELECT listed_from, listed_to FROM market.listing_intervals WHERE symbol = 'ETH/USDT'"
        " ORDER BY listed_from NULLS FIRST"
    )
    assert found == [(None, left), (back, None)]


def test_a_list_that_cannot_be_had_changes_nothing(venue):
    assert look(venue).success
    before = stored()
    switch(venue, "html:path=instruments-info")
    exchange = ExchangeResource(venue="bybit", market_type="spot", url=venue)
    with stamina.set_testing(True, attempts=2), pytest.raises(TransientError, match="list of markets"):
        module.listed_instruments(exchange, None)
    assert stored().equals(before)


def test_bars_from_files_do_not_undo_what_the_venue_told(venue):
    assert look(venue).success
    before = stored()
    bars = pl.DataFrame({"venue": ["bybit", "bybit"], "symbol": ["BTC/USDT", "XYZ/USDT"]})
    assert imported_instruments(bars)["symbol"].to_list() == ["XYZ/USDT"]
    assert stored().equals(before)


def test_the_universe_is_named_in_no_other_place():
    """Bases of the universe appear together in no module: availability and membership are data."""
    root = Path(tracker_pipeline.__file__).parent
    names = [symbol.base for symbol in settings.get_config().universe.symbols]
    for path in [*root.rglob("*.py"), *root.rglob("*.yaml")]:
        if path.name == "universe.yaml":
            continue
        text = path.read_text()
        quoted = [name for name in names if f'"{name}"' in text or f"'{name}'" in text]
        assert len(quoted) <= 3, f"{path.name} lists {quoted}"
