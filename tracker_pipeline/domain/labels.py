"""What became of each setup, net of costs.

What belongs here: entry, maturity, coverage, costs, outcome. What does not: how a strategy trades
(`label_rules.py`), the order of events inside a bar (`grid_trade.py`, `barrier_trade.py`), and which setups exist
(`setups.py`).

Setups of every strategy are labelled on 15m bars, those found on 1h bars too: the finer the bars, the fewer of them
touch two barriers, and everything then needs one table.

A label is final only when its whole horizon lies in the past, even where a barrier was touched in its first hour:
otherwise the newest labels would all be quick ones, and whoever learns from them would learn that setups are quick.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracker_pipeline.domain.bar_grid import SERIES, known_bars
from tracker_pipeline.domain.label_rules import RULES, Held, LabelRules
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.domain.timeframes import GRACE, TIMEFRAMES, duration
from tracker_pipeline.domain.trade import REASONS, Path, Trades
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

_RULES_VERSION: Final = 1  # raise it when labels of the same configuration change
_MIN_COVERAGE: Final = 0.95
_MICROSECOND: Final = timedelta(microseconds=1)
_BAR_US: Final = duration("15m") // _MICROSECOND
_GRACE_US: Final = GRACE["15m"] // _MICROSECOND
_HOUR_US: Final = timedelta(hours=1) // _MICROSECOND
# A missing entry bar is replaced by the next one that opens within two intervals.
_ENTRY_WAIT_US: Final = 2 * _BAR_US
_OHLC: Final = ("open", "high", "low", "close")
_TIME: Final = REASONS.index("TIME")
OUTCOMES: Final = ("PENDING", "UNRESOLVED", "WIN", "LOSS", "BREAKEVEN", "TIMEOUT")
_PENDING, _UNRESOLVED, _WIN, _LOSS = range(4)
_TIMEOUT: Final = OUTCOMES.index("TIMEOUT")
# A price of zero is none: nothing can be bought for it, so the bar counts as missing.
_PRICED: Final = pl.min_horizontal(_OHLC) > 0
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
        paths=_paths(known.filter(_PRICED), setups),
        fine=_fine_paths(fine_bars, setups, as_of),
        front_us=dict(known.group_by("venue").agg(pl.col("ts").max().to_physical()).iter_rows()),
        as_of_us=int(pl.select(pl.lit(as_of).dt.epoch("us")).item()),
        config=config,
        rules=rules,
    )
    found = [labeller.labels(part) for part in setups.partition_by(SERIES, maintain_order=True)]
    version = f"{_RULES_VERSION}-{config.config_version}"
    return rules.table.conform(
        pl.concat(
            [rules.table.polars_schema.to_frame(), *(_described(part, rules, version) for part in found)]
        )
    )


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
    return _paths(known_bars(fine_bars, "1m", columns=_OHLC, as_of=as_of).filter(_PRICED), setups)


@dataclass(frozen=True)
class _Labeller:
    """Labels the setups of one series at a time.

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

    def labels(self, setups: pl.DataFrame) -> pl.DataFrame:
        """The setups of a series with the result columns of their labels, NULL where those are not known."""
        series = setups.row(0, named=True)["venue"], setups.row(0, named=True)["symbol"]
        path = self.paths.get(series, _EMPTY)
        due_us = _due_us(setups)
        entry = np.searchsorted(path.ts_us, due_us)
        opens_us = np.append(path.ts_us, np.iinfo(np.int64).max)[entry]
        entered = opens_us <= due_us + _ENTRY_WAIT_US
        start_us = np.where(entered, opens_us, due_us)
        end_us = start_us + setups["horizon_hours"].to_numpy() * _HOUR_US
        past = self._is_past(series[0], end_us)
        result = _Results.pending(setups.height)
        result.put("entry_ts", entered, start_us[entered])
        result.outcome[past & ~entered] = _UNRESOLVED
        result.put("coverage_frac", past & ~entered, 0.0)
        rows = np.flatnonzero(past & entered)
        if rows.size:
            held = Held(
                path,
                entry[rows],
                np.searchsorted(path.ts_us, end_us[rows]),
                self.fine.get(series, _EMPTY),
                _BAR_US,
            )
            trades = self.rules.replay(setups[rows], held, self.config)
            self._resolve(result, rows, setups["tier"].to_numpy()[rows], held, trades, end_us[rows])
        return setups.with_columns(result.columns())

    def _is_past(self, venue: str, end_us: IntArray) -> BoolArray:
        """Whether the horizon's last bar is final by the clock and bars that late have arrived at all."""
        return (self.as_of_us >= end_us + _GRACE_US) & (self.front_us.get(venue, 0) >= end_us - _BAR_US)

    def _resolve(
        self,
        result: "_Results",
        rows: IntArray,
        tiers: npt.NDArray[Any],
        held: Held,
        trades: Trades,
        end_us: IntArray,
    ) -> None:
        """Fill in what became of trades whose horizon is past."""
        covered = _coverage(held, trades, end_us)
        result.put("coverage_frac", rows, covered)
        result.outcome[rows] = np.where(covered < _MIN_COVERAGE, _UNRESOLVED, _TIMEOUT)
        waited = rows[(covered >= _MIN_COVERAGE) & ~trades.bought]
        result.put("exit_reason", waited, _TIME)
        result.put("fills", waited, 0)
        result.put("ambiguous", waited, False)
        ended = np.flatnonzero((covered >= _MIN_COVERAGE) & trades.bought)
        of = rows[ended]
        average, price = trades.average[ended], trades.exit_price[ended]
        gross_pct = 100 * (price / average - 1)
        net_pct = np.empty(len(ended))
        for tier in np.unique(tiers[ended].astype(str)):
            own = tiers[ended] == tier
            net_pct[own] = self.config.costs.net_return_pct(str(tier), gross_pct[own])
        result.outcome[of] = _outcomes(trades.reason[ended], net_pct, self.config.break_even_band_pct)
        result.put("exit_reason", of, trades.reason[ended])
        exit_us, entry_us = (held.path.ts_us[index[ended]] for index in (trades.exit_index, held.start))
        # A timed exit is at the close of its bar; a barrier is touched within it.
        left_us = exit_us + np.where(trades.reason[ended] == _TIME, _BAR_US, 0)
        result.put("entry_price", of, average)
        result.put("exit_ts", of, exit_us)
        result.put("exit_price", of, price)
        result.put("gross_return_pct", of, gross_pct)
        result.put("actual_return", of, net_pct)
        result.put("mfe_pct", of, np.maximum(0.0, 100 * (trades.highest[ended] / average - 1)))
        result.put("mae_pct", of, np.minimum(0.0, 100 * (trades.lowest[ended] / average - 1)))
        result.put("hold_time_hours", of, (left_us - entry_us) / _HOUR_US)
        result.put("fills", of, trades.fills[ended])
        result.put("ambiguous", of, trades.ambiguous[ended])


_TIMES: Final = ("entry_ts", "exit_ts")
_WHOLE: Final = (*_TIMES, "exit_reason", "fills")
_REALS: Final = (
    *("entry_price", "exit_price", "gross_return_pct", "actual_return", "mfe_pct", "mae_pct"),
    *("hold_time_hours", "coverage_frac"),
)


@dataclass(frozen=True)
class _Results:
    """Result columns of labels, side by side; each but the outcome has one beside that says where it is known."""

    outcome: IntArray
    numbers: Mapping[str, npt.NDArray[Any]]
    known: Mapping[str, BoolArray]

    @classmethod
    def pending(cls, count: int) -> "_Results":
        kinds = {
            **dict.fromkeys(_WHOLE, np.int64),
            **dict.fromkeys(_REALS, np.float64),
            "ambiguous": np.bool_,
        }
        return cls(
            np.full(count, _PENDING),
            {name: np.zeros(count, kind) for name, kind in kinds.items()},
            {name: np.zeros(count, np.bool_) for name in kinds},
        )

    def put(self, name: str, rows: npt.NDArray[Any], values: Any) -> None:
        """Fill in a number at some rows."""
        self.numbers[name][rows] = values
        self.known[name][rows] = True

    def columns(self) -> list[pl.Series]:
        """The columns as they are declared."""
        columns = [pl.Series("outcome", OUTCOMES).gather(self.outcome)]
        for name, values in self.numbers.items():
            column = pl.Series(name, values)
            if name in _TIMES:
                column = column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            if name == "exit_reason":
                column = pl.Series(name, REASONS).gather(column)
            columns.append(column.set(pl.Series(~self.known[name]), None))
        return columns


def _due_us(setups: pl.DataFrame) -> IntArray:
    """When each signal bar has closed, microseconds since 1970."""
    length = pl.col("timeframe").replace_strict(TIMEFRAMES, return_dtype=pl.Duration("us"))
    return setups.select((pl.col("signal_ts") + length).to_physical())["signal_ts"].to_numpy()


def _outcomes(reason: IntArray, net_pct: FloatArray, band_pct: float) -> IntArray:
    """Classes of labels, as indices of `OUTCOMES`."""
    outcome = np.where(reason == _TIME, _TIMEOUT, np.where(net_pct > 0, _WIN, _LOSS))
    outcome = np.where(np.abs(net_pct) <= band_pct, OUTCOMES.index("BREAKEVEN"), outcome)
    outcome = np.where(reason == REASONS.index("TP"), _WIN, outcome)
    return np.where(reason == REASONS.index("SL"), _LOSS, outcome)


def _coverage(held: Held, trades: Trades, end_us: IntArray) -> FloatArray:
    """Bars present from entry to exit / bars expected; to the end of the horizon where no barrier ended it."""
    by_barrier = trades.bought & (trades.reason != _TIME)
    present = np.where(by_barrier, trades.exit_index + 1, held.end) - held.start
    last_us = np.where(by_barrier, held.path.ts_us[trades.exit_index] + _BAR_US, end_us)
    return present / ((last_us - held.path.ts_us[held.start]) // _BAR_US)


def _described(setups: pl.DataFrame, rules: LabelRules, version: str) -> pl.DataFrame:
    """Labels with the columns that come from the setup."""
    evidence = pl.col("evidence").str.json_decode(rules.evidence)
    results = ["outcome", *_WHOLE, *_REALS, "ambiguous"]
    return rules.table.conform(
        setups.with_columns(evidence)
        .unnest("evidence")
        .select(
            "setup_id",
            "venue",
            "symbol",
            pl.col("signal_ts").alias("timestamp"),
            *rules.described,
            pl.lit(version).alias("label_version"),
            *results,
        )
    )
