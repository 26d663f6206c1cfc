"""What became of each setup, net of costs.

What belongs here: entry, maturity, coverage, costs, outcome. What does not: how a strategy trades
(`label_rules.py`), the order of events inside a bar (`grid_trade.py`, `barrier_trade.py`), and which setups exist
(`setups.py`).

Setups of every strategy are labelled on 15m bars, those found on 1h bars too: the finer the bars, the fewer of them
touch two barriers, and everything then needs one table.

A label is final only when its whole horizon lies in the past, even where a barrier was touched in its first hour:
otherwise the newest labels would all be quick ones, and whoever learns from them would learn that setups are quick.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, known_bars
from tracker_pipeline.domain.label_rules import RULES, LabelRules
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.domain.timeframes import GRACE, duration
from tracker_pipeline.domain.trade import ExitReason, Path, Trade
from tracker_pipeline.domain.windows import IntArray

_RULES_VERSION: Final = 1  # raise it when labels of the same configuration change
_MIN_COVERAGE: Final = 0.95
_MICROSECOND: Final = timedelta(microseconds=1)
_BAR_US: Final = duration("15m") // _MICROSECOND
_GRACE_US: Final = GRACE["15m"] // _MICROSECOND
_HOUR_US: Final = timedelta(hours=1) // _MICROSECOND
# A missing entry bar is replaced by the next one that opens within two intervals.
_ENTRY_WAIT_US: Final = 2 * _BAR_US
_OHLC: Final = ("open", "high", "low", "close")
_LOW: Final = _OHLC.index("low")
_BY_BARRIER: Final[Mapping[ExitReason, str]] = {"TP": "WIN", "SL": "LOSS"}
_EMPTY: Final = Path(np.empty(0, np.int64), np.empty((0, 4)))


def label(
    setups: pl.DataFrame,
    bars: pl.DataFrame,
    *,
    fine_bars: pl.DataFrame | None = None,
    as_of: datetime,
    config: StrategyConfig,
) -> pl.DataFrame:
    """Label the setups of one strategy.

    The first 15m bar after the signal bar is entered at its open, or, if that is missing, the next that opens within
    two intervals. DCA: from that open hang the orders of the grid, good for the horizon; target and stop hang from
    the average of what was filled. SWING: bought at that open, from which target, stop and trailing stop hang.
    CHANNEL: bought at that open; target and stop are prices of the channel.

    Exit inside a bar: stop, then target, then trailing stop, unless finer bars show another order. Barriers and
    orders fill at the open of a bar that gaps through them. After the horizon: its last close.

    `outcome`: WIN left at the target, LOSS at the stop. At the trailing stop: BREAKEVEN within the band of net
    returns around 0, else WIN or LOSS by its sign; by time: BREAKEVEN within the band, else TIMEOUT. TIMEOUT with 0
    `fills` and no return: nothing was bought, as price never came down to the first order, or the open was not
    between stop and target. PENDING: the horizon has not passed at `as_of`, or no bar known at `as_of` on this venue
    is as late. UNRESOLVED: fewer than 95 % of the bars from entry to exit exist, or, where `entry_ts` is NULL, there
    was no bar to enter at.

    Args:
        setups: rows of `labels.strategy_setups`.
        bars: 15m bars of their series in any order, from the signal to the end of the horizon.
        fine_bars: 1m bars of any of the same moments; they decide bars that touch more than one barrier.
        as_of: aware moment of knowledge: bars available later are not seen.
        config: the strategy's configuration: its costs, and the grid of DCA. Exits, horizon and tier are those of
            each setup.

    Returns:
        The columns of the strategy's table of labels, one row per setup, sorted by key. `entry_ts` is the bar
        entered, where the label's interval and holding time begin; `exit_ts` opens the bar of the exit.

    Raises:
        ValueError: the setups are of another strategy than the configuration, `as_of` is naive, or bars are
            malformed.
    """
    others = sorted(set(setups["strategy"]) - {config.strategy})
    if others:
        raise ValueError(f"setups of {', '.join(others)} with the configuration of {config.strategy}")
    rules = RULES[config.strategy]
    if as_of.tzinfo is None:
        raise ValueError("as_of must be an aware time")
    known = known_bars(bars, "15m", columns=_OHLC, as_of=as_of).select(*SERIES, "ts", *_OHLC)
    labeller = _Labeller(
        paths=_paths(known, setups),
        fine=_fine_paths(fine_bars, setups, as_of),
        front_us=dict(known.group_by("venue").agg(pl.col("ts").max().to_physical()).iter_rows()),
        as_of_us=int(pl.select(pl.lit(as_of).dt.epoch("us")).item()),
        config=config,
        rules=rules,
    )
    rows = [labeller.row(setup) for setup in setups.iter_rows(named=True)]
    return _frame(setups, rows, rules, f"{_RULES_VERSION}-{config.config_version}")


def _paths(bars: pl.DataFrame, setups: pl.DataFrame) -> dict[tuple[Any, ...], Path]:
    wanted = bars.join(setups.select(SERIES).unique(), on=SERIES, how="semi").sort(*SERIES, "ts")
    return {
        series: Path(part["ts"].to_physical().to_numpy(), part.select(_OHLC).to_numpy())
        for series, part in wanted.partition_by(SERIES, as_dict=True).items()
    }


def _fine_paths(
    fine_bars: pl.DataFrame | None, setups: pl.DataFrame, as_of: datetime
) -> dict[tuple[Any, ...], Path]:
    if fine_bars is None:
        return {}
    return _paths(known_bars(fine_bars, "1m", columns=_OHLC, as_of=as_of), setups)


@dataclass(frozen=True)
class _Labeller:
    """Labels one setup at a time.

    Attributes:
        paths: 15m bars by venue and symbol.
        fine: 1m bars by venue and symbol.
        front_us: open of the newest bar known, by venue.
        as_of_us: moment of knowledge.
        config: the strategy's configuration.
        rules: how its setups are traded.
    """

    paths: Mapping[tuple[Any, ...], Path]
    fine: Mapping[tuple[Any, ...], Path]
    front_us: Mapping[str, int]
    as_of_us: int
    config: StrategyConfig
    rules: LabelRules

    def row(self, setup: Mapping[str, Any]) -> dict[str, Any]:
        """The result columns of one setup; those that are not known are left out."""
        series = (setup["venue"], setup["symbol"])
        path = self.paths.get(series, _EMPTY)
        due_us = (setup["signal_ts"] + duration(setup["timeframe"]) - _EPOCH) // _MICROSECOND
        entry = path.between(due_us, due_us + _ENTRY_WAIT_US + 1)
        entry_us = int(entry.ts_us[0]) if entry.ts_us.size else None
        start_us = due_us if entry_us is None else entry_us
        end_us = start_us + setup["horizon_hours"] * _HOUR_US
        result: dict[str, Any] = {"outcome": "PENDING", "entry_ts": entry_us}
        if not self._is_past(setup["venue"], end_us):
            return result
        if entry_us is None:
            return {"outcome": "UNRESOLVED", "coverage_frac": 0.0}
        held = path.between(entry_us, end_us)
        fine = self.fine.get(series, _EMPTY)
        trade = self.rules.replay(
            setup,
            held,
            lambda index: fine.between(int(held.ts_us[index]), int(held.ts_us[index]) + _BAR_US),
            self.config,
        )
        covered = _coverage(held.ts_us, trade, end_us)
        result["coverage_frac"] = covered
        if covered < _MIN_COVERAGE:
            return {**result, "outcome": "UNRESOLVED"}
        if trade is None:
            return {**result, "outcome": "TIMEOUT", "exit_reason": "TIME", "fills": 0, "ambiguous": False}
        return {**result, **self._ended(held, trade, setup["tier"])}

    def _is_past(self, venue: str, end_us: int) -> bool:
        """Whether the horizon's last bar is final by the clock and bars that late have arrived at all."""
        last_us = end_us - _BAR_US
        return self.as_of_us >= end_us + _GRACE_US and self.front_us.get(venue, 0) >= last_us

    def _ended(self, held: Path, trade: Trade, tier: str) -> dict[str, Any]:
        gross_pct = 100 * (trade.exit.price / trade.average - 1)
        net_pct = self.config.costs.net_return_pct(tier, gross_pct)
        reason = trade.exit.reason
        exit_us, entry_us = int(held.ts_us[trade.exit_index]), int(held.ts_us[0])
        # A timed exit is at the close of its bar; a barrier is touched within it.
        left_us = exit_us + (_BAR_US if reason == "TIME" else 0)
        mfe_pct, mae_pct = _excursions(held, trade)
        return {
            "outcome": _outcome(reason, net_pct, self.config.break_even_band_pct),
            "exit_reason": reason,
            "entry_price": trade.average,
            "exit_ts": exit_us,
            "exit_price": trade.exit.price,
            "gross_return_pct": gross_pct,
            "actual_return": net_pct,
            "mfe_pct": mfe_pct,
            "mae_pct": mae_pct,
            "hold_time_hours": (left_us - entry_us) / _HOUR_US,
            "fills": trade.fills,
            "ambiguous": trade.exit.ambiguous,
        }


def _outcome(reason: ExitReason, net_pct: float, band_pct: float) -> str:
    if reason in _BY_BARRIER:
        return _BY_BARRIER[reason]
    if abs(net_pct) <= band_pct:
        return "BREAKEVEN"
    if reason == "TIME":
        return "TIMEOUT"
    return "WIN" if net_pct > 0 else "LOSS"


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _coverage(ts_us: IntArray, trade: Trade | None, end_us: int) -> float:
    """Bars present from entry to exit / bars expected; to the end of the horizon where no barrier ended it."""
    by_barrier = trade is not None and trade.exit.reason != "TIME"
    present = trade.exit_index + 1 if trade is not None and by_barrier else len(ts_us)
    last_us = int(ts_us[present - 1]) + _BAR_US if by_barrier else end_us
    return present / ((last_us - int(ts_us[0])) // _BAR_US)


def _excursions(held: Path, trade: Trade) -> tuple[float, float]:
    """Best and worst price while holding, % of the average entry.

    Of the bar of the first fill only the low and the close are surely later than the fill, unless it was filled at
    the open; of the bar left by a barrier, only the open and the exit are surely not later than the exit.
    """
    first, last = trade.entry_index, trade.exit_index
    after_fill = 0 if trade.at_open else _LOW
    prices = [np.array([trade.exit.price])]
    if first < last:
        between = held.prices[first + 1 : last]
        at_exit = held.prices[last] if trade.exit.reason == "TIME" else held.prices[last, :1]
        prices += [held.prices[first, after_fill:], between[:, 1], between[:, _LOW], at_exit]
    reached = 100 * (np.concatenate(prices) / trade.average - 1)
    return max(0.0, float(reached.max())), min(0.0, float(reached.min()))


def _frame(
    setups: pl.DataFrame, rows: Iterable[Mapping[str, Any]], rules: LabelRules, version: str
) -> pl.DataFrame:
    evidence = pl.col("evidence").str.json_decode(rules.evidence)
    described = (
        setups.with_columns(evidence)
        .unnest("evidence")
        .select(
            "setup_id",
            "venue",
            "symbol",
            pl.col("signal_ts").alias("timestamp"),
            *rules.described,
            pl.lit(version).alias("label_version"),
        )
    )
    schema = rules.table.polars_schema
    results = {name: kind for name, kind in schema.items() if name not in described.columns}
    times = [name for name, kind in results.items() if kind == pl.Datetime("us", "UTC")]
    frame = pl.DataFrame(
        [{name: row.get(name) for name in results} for row in rows],
        schema={name: pl.Int64() if name in times else kind for name, kind in results.items()},
    ).with_columns(pl.from_epoch(name, "us").dt.replace_time_zone("UTC") for name in times)
    return rules.table.conform(pl.concat([described, frame], how="horizontal"))
