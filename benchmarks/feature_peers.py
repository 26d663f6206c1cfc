"""The same features as pandas group-by, in its usual forms.

No reasons, no rule of 90 %, no restarts of recursions: pandas does less here than it is compared with.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

_YEAR = np.sqrt(365 * 96) * 100


def in_pandas(bars: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """All features of bars sorted by symbol and time, daily ones included."""
    by = bars.groupby("symbol", sort=False)
    close, high, low, volume = bars["close"], bars["high"], bars["low"], bars["volume"]
    symbol = bars["symbol"]

    def rolled(values: pd.Series, width: int) -> pd.api.typing.RollingGroupby:
        return values.groupby(symbol, sort=False).rolling(width)

    def flat(result: pd.Series) -> pd.Series:
        return result.droplevel(0)

    def smoothed(values: pd.Series, alpha: float) -> pd.Series:
        return flat(values.groupby(symbol, sort=False).ewm(alpha=alpha, adjust=False).mean())

    found = {}
    for name, steps in {"ret_15m": 1, "ret_1h": 4, "ret_4h": 16, "ret_24h": 96, "roc_12": 12}.items():
        found[name] = 100 * by["close"].pct_change(steps)
    before = by["close"].shift(1)
    change = close - before
    gain, loss = change.clip(lower=0), -change.clip(upper=0)
    for name, length in {"rsi_14": 14, "rsi_30": 30}.items():
        up, down = smoothed(gain, 1 / length), smoothed(loss, 1 / length)
        found[name] = 100 * up / (up + down)
    macd = smoothed(close, 2 / 13) - smoothed(close, 2 / 27)
    signal = smoothed(macd, 2 / 10)
    found |= {"macd": macd, "macd_signal": signal, "macd_diff": macd - signal}
    middle, deviation = flat(rolled(close, 20).mean()), flat(rolled(close, 20).std(ddof=0))
    found["bb_width"] = 4 * deviation / middle
    found["bb_position"] = (close - middle + 2 * deviation) / (4 * deviation)
    found["dist_sma20"] = 100 * (close / middle - 1)
    found["dist_sma50"] = 100 * (close / flat(rolled(close, 50).mean()) - 1)
    found["dist_support"] = 100 * (close / flat(rolled(low, 20).min()) - 1)
    found["dist_resistance"] = 100 * (close / flat(rolled(by["high"].shift(1), 20).max()) - 1)
    lowest, highest = flat(rolled(low, 14).min()), flat(rolled(high, 14).max())
    found["stoch_k"] = 100 * (close - lowest) / (highest - lowest)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    found["atr_14"] = 100 * smoothed(true_range.fillna(high - low), 1 / 14) / close
    returns = change / before
    found["vol_4h"] = _YEAR * flat(rolled(returns, 16).std())
    found["vol_24h"] = _YEAR * flat(rolled(returns, 96).std())
    of_day = flat(rolled(volume, 96).sum())
    found["volume_ratio"] = volume / (of_day.groupby(symbol, sort=False).shift(1) / 96)
    found["volume_sma_ratio"] = volume / flat(rolled(volume, 20).mean())
    found["flow_24h"] = flat(rolled(np.sign(change) * volume, 96).sum()) / of_day
    found |= _daily(bars, reference)
    angle = 2 * np.pi * bars["ts"].dt.hour / 24
    found |= {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle), "weekday": bars["ts"].dt.weekday}
    return pd.DataFrame(found)


def _daily(bars: pd.DataFrame, reference: pd.DataFrame) -> dict[str, pd.Series]:
    """Features of whole days, those of the day before laid on each bar."""
    date = bars["ts"].dt.floor("1D")
    own = bars["close"].groupby([date, bars["symbol"]], sort=False).last().unstack()
    btc = reference.set_index("ts")["close"]
    own_returns, btc_returns = own.pct_change(), btc.pct_change()
    year = np.sqrt(365) * 100
    wide = {f"vol_{n}d": year * own_returns.rolling(n).std() for n in (7, 30)}
    wide |= {f"rel_btc_{n}d": 100 * (own.pct_change(n).sub(btc.pct_change(n), axis=0)) for n in (7, 30)}
    wide["corr_btc_30d"] = own_returns.rolling(30).corr(btc_returns)
    narrow = {"btc_ret_1d": 100 * btc_returns}
    narrow |= {f"btc_vol_{n}d": year * btc_returns.rolling(n).std() for n in (7, 30)}
    keys = pd.MultiIndex.from_arrays([date, bars["symbol"]])
    found = {
        name: pd.Series(days.shift(1).stack(future_stack=True).reindex(keys).to_numpy(), bars.index)
        for name, days in wide.items()
    }
    return found | {name: date.map(days.shift(1)) for name, days in narrow.items()}
