"""Tables of the watched addresses: universe, candidates, balances and their re-checks, stETH rates, scores."""

from datetime import timedelta
from typing import Final

from tracker_pipeline.domain.schemas.declaration import RUN_ID, Chart, Column, T, Table

_NETWORK = Column("network", T.TEXT, "network name of the configuration")

WHALE_UNIVERSE: Final = Table(
    name="onchain.whale_universe",
    key=("network", "version", "whale_address"),
    description="Addresses that are watched, and those that are not with the reason, by version.",
    write="merge",
    columns=(
        _NETWORK,
        Column("version", T.TEXT, "hash of the list's content"),
        Column("whale_address", T.TEXT, "lower-case address"),
        Column("label", T.TEXT, "public name, if known", nullable=True),
        Column("category", T.TEXT, "exchange, bridge, contract, burn, staking, whale or unknown"),
        Column("excluded", T.BOOL, "true where the address is listed but not watched"),
        Column("reason", T.TEXT, "why it is excluded", nullable=True),
        Column("source", T.TEXT, "the list it came from"),
    ),
)

WHALE_CANDIDATES: Final = Table(
    name="onchain.whale_candidates",
    key=("network", "snapshot_timestamp", "asset", "whale_address"),
    time_column="snapshot_timestamp",
    description="Both sides of every large transfer in the blocks since the hour before.",
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour that the blocks lead up to"),
        Column("asset", T.TEXT, "ETH or a configured token"),
        Column("whale_address", T.TEXT, "lower-case address"),
        Column("received", T.WEI, "sum of large transfers received, smallest unit"),
        Column("sent", T.WEI, "sum of large transfers sent, smallest unit"),
        Column("largest", T.WEI, "the largest of them, smallest unit"),
        Column("transfers", T.INT, "how many; one to oneself counts twice"),
        Column("first_block", T.INT, "block of the first"),
        Column("last_block", T.INT, "block of the last"),
        Column("kind", T.TEXT, "account, delegated (EIP-7702) or contract, by the code at the hour's block"),
        Column("excluded", T.BOOL, "true where it is known not to be a whale"),
        Column("reason", T.TEXT, "why it is excluded", nullable=True),
        RUN_ID,
    ),
)

SNAPSHOT_RECHECKS: Final = Table(
    name="onchain.snapshot_rechecks",
    key=("network", "snapshot_timestamp"),
    time_column="snapshot_timestamp",
    description="Whether the pinned block of each hour is still part of the chain, and final.",
    write="merge",
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("block_number", T.INT, "the block that the chain has for the hour"),
        Column("block_hash", T.TEXT, "its hash"),
        Column("state", T.TEXT, "pending, final, or reorganised while the hour is read again"),
        Column("replaced_hash", T.TEXT, "hash that the last reorganisation replaced", nullable=True),
        Column("repairs", T.INT, "how often the hour was read again"),
        RUN_ID,
    ),
)

WHALE_BALANCE_SNAPSHOTS: Final = Table(
    name="onchain.whale_balance_snapshots",
    key=("network", "asset", "whale_address", "snapshot_timestamp"),
    time_column="snapshot_timestamp",
    partition="day",
    description="Balance of every watched address at one pinned block for each hour.",
    columns=(
        _NETWORK,
        Column("asset", T.TEXT, "ETH or a configured token"),
        Column("whale_address", T.TEXT, "lower-case address"),
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("balance", T.WEI, "smallest unit of the asset; NULL is unknown, never 0", nullable=True),
        Column("status", T.TEXT, "ok, reverted, empty_return, rpc_error or decode_error"),
        Column("rank", T.INT, "1 is the largest known balance of the asset; ties by address", nullable=True),
        Column("block_number", T.INT, "the pinned block"),
        Column("block_hash", T.TEXT, "its hash"),
        Column("block_timestamp", T.TIME, "its time"),
        RUN_ID,
    ),
)

STETH_RATES: Final = Table(
    name="onchain.steth_rates",
    key=("network", "snapshot_timestamp"),
    time_column="snapshot_timestamp",
    description="Ether for one stETH at the pinned block of each hour, from the configured price feed.",
    chart=Chart("rate", timedelta(days=3)),
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("rate", T.NUMERIC, "ETH per stETH; NULL is unknown, never 1", nullable=True),
        Column("status", T.TEXT, "ok, no_feed, no_answer, stale or out_of_range (0.90 to 1.10)"),
        Column("answered_at", T.TIME, "when the feed was last given a price", nullable=True),
        Column("block_number", T.INT, "the pinned block"),
        Column("block_hash", T.TEXT, "its hash"),
        Column("block_timestamp", T.TIME, "its time"),
        RUN_ID,
    ),
)

ACCUMULATION_SCORES: Final = Table(
    name="onchain.accumulation_scores",
    key=("network", "snapshot_timestamp", "lookback_hours"),
    time_column="snapshot_timestamp",
    description="Whether the watched addresses gained or lost over a look-back, on the matched cohort.",
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("lookback_hours", T.INT, "24, 168 or 720"),
        Column("score_pct", T.NUMERIC, "change of the summed native balance, %", nullable=True),
        Column(
            "lst_score_pct",
            T.NUMERIC,
            "change of native + WETH + stETH, one rate on both legs, %",
            nullable=True,
        ),
        Column("trend_score", T.NUMERIC, "0 to 1; 0.5 is flat", nullable=True),
        Column("change_wei", T.WEI, "change of the summed native balance, wei", nullable=True),
        Column(
            "lst_change_wei",
            T.WEI,
            "change of the summed wealth (native + WETH + stETH), wei of ether",
            nullable=True,
        ),
        Column("universe", T.INT, "addresses in either snapshot"),
        Column("matched", T.INT, "addresses known on both sides"),
        Column("missing_current", T.INT, "unknown now"),
        Column("missing_historical", T.INT, "unknown then"),
        Column("entrants", T.INT, "only in the current snapshot"),
        Column("leavers", T.INT, "only in the baseline"),
        Column("accumulators", T.INT, "addresses that gained"),
        Column("distributors", T.INT, "addresses that lost"),
        Column("neutral", T.INT, "addresses within tolerance"),
        Column("median_change_pct", T.NUMERIC, "median change per address, %", nullable=True),
        Column(
            "mad_pct", T.NUMERIC, "median absolute deviation of the changes, percentage points", nullable=True
        ),
        Column("outlier_threshold_pct", T.NUMERIC, "max(3 x MAD, 1 percentage point)", nullable=True),
        Column("outliers", T.INT, "addresses beyond the threshold"),
        Column("driver", T.TEXT, "the outlier with the largest change of wealth", nullable=True),
        Column("is_anomaly", T.BOOL, "the driver holds at least half of all movement"),
        Column("gini", T.NUMERIC, "concentration of positive current wealth, 0 to 1", nullable=True),
        Column(
            "steth_rate", T.NUMERIC, "ETH per stETH used on both legs; NULL when not known", nullable=True
        ),
        Column(
            "band",
            T.TEXT,
            "verdict on score_pct: strong accumulation above 2, accumulation above 0.5, neutral, distribution below"
            " -0.5, strong distribution below -2",
            nullable=True,
        ),
        Column("tags", T.TEXT_LIST, "what stands out"),
        Column("status", T.TEXT, "ok, no_baseline or low_coverage"),
        Column("baseline_timestamp", T.TIME, "the snapshot compared with", nullable=True),
        Column(
            "elapsed_seconds", T.INT, "true distance of the two snapshots' blocks, seconds", nullable=True
        ),
        RUN_ID,
    ),
)
