"""Tables that say how complete bars are: coverage by day, gaps, outages of venues."""

from typing import Final

from tracker_pipeline.domain.schemas.declaration import RUN_ID, SYMBOL, VENUE, Column, T, Table

_TIMEFRAME: Final = Column("timeframe", T.TEXT, "timeframe of the bars")

BAR_COVERAGE: Final = Table(
    name="market.bar_coverage",
    key=("venue", "symbol", "timeframe", "day"),
    time_column="day",
    description="How many bars of each day are there, and what the others are:"
    " expected = present + empty + outage + missing.",
    columns=(
        VENUE,
        SYMBOL,
        _TIMEFRAME,
        Column("day", T.TIME, "start of the UTC day"),
        Column("expected", T.INT, "bars closed so far while the symbol was listed"),
        Column("present", T.INT, "bars stored"),
        Column("empty", T.INT, "bars that the source confirmed not to exist: nothing traded"),
        Column("outage", T.INT, "bars that most symbols of the venue lack at once"),
        Column("missing", T.INT, "bars that we failed to get"),
        Column("first_ts", T.TIME, "open of the first bar stored", nullable=True),
        Column("last_ts", T.TIME, "open of the last bar stored", nullable=True),
    ),
)

BAR_GAPS: Final = Table(
    name="market.bar_gaps",
    key=("venue", "symbol", "timeframe", "gap_start"),
    time_column="gap_start",
    write="merge",
    description="Runs of absent bars, why they are absent, and when the source is asked again. A gap that was filled"
    " is resolved and stays.",
    columns=(
        VENUE,
        SYMBOL,
        _TIMEFRAME,
        Column("gap_start", T.TIME, "open of the first absent bar"),
        Column("gap_end", T.TIME, "end of the last absent bar"),
        Column("bars", T.INT, "how many bars"),
        Column("state", T.TEXT, "missing, empty, outage or unlisted"),
        Column("attempts", T.INT, "how often the source was asked for exactly these bars"),
        Column("next_attempt_at", T.TIME, "when it is asked again; NULL for never", True, True),
        Column("detected_at", T.TIME, "when the first of the bars was found absent", provenance=True),
        Column("resolved_at", T.TIME, "when they were found present; NULL while absent", True, True),
        Column("confirmed_by", T.TEXT, "source that answered that there are none", nullable=True),
        Column("last_error", T.TEXT, "why the last attempt did not get them", nullable=True),
    ),
)

OUTAGES: Final = Table(
    name="market.outages",
    key=("venue", "outage_start"),
    time_column="outage_start",
    write="merge",
    description="Intervals in which most symbols of a venue have no bars: one row for each, whatever the number of"
    " symbols and timeframes that show it.",
    columns=(
        VENUE,
        Column("outage_start", T.TIME, "open of the first bar that most symbols lack"),
        Column("outage_end", T.TIME, "end of the last one"),
        Column("timeframe", T.TEXT, "finest timeframe that shows it: the bounds are as sharp as its bars"),
        Column("symbols_absent", T.INT, "symbols without bars, at most at once"),
        Column("symbols_expected", T.INT, "symbols that should have had them"),
        Column("confirmed_by", T.TEXT, "source that answered that there are none", nullable=True),
        Column("detected_at", T.TIME, "when it was first seen", provenance=True),
        Column("resolved_at", T.TIME, "when its bars turned out to exist after all", True, True),
        RUN_ID,
    ),
)
