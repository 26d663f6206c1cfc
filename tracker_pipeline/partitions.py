"""The partition definitions, declared once, in UTC.

The market chain is daily because each materialized partition costs Dagster 12 to 25 ms: a year of one asset is
5 s by day and 3 minutes by hour. Its `end_offset=1` makes today's partition exist while the day is still open.
Symbols and addresses live inside a partition, never as a dimension of it.
"""

from typing import Final

import dagster as dg

from tracker_pipeline.settings import get_config

_HISTORY_START = get_config().history_start

DAILY: Final = dg.DailyPartitionsDefinition(f"{_HISTORY_START:%Y-%m-%d}", timezone="UTC", end_offset=1)
# An hour of the chain is the moment that it begins at, so it exists from then on: a node without an archive keeps the
# state of 128 blocks, which is 25 minutes, and an hour later could not be asked any more.
HOURLY: Final = dg.HourlyPartitionsDefinition(
    f"{_HISTORY_START:%Y-%m-%d}-00:00", timezone="UTC", end_offset=1
)

# Training sets are read by the month and made of labels that take days to become final: a week is their grain.
WEEKLY: Final = dg.WeeklyPartitionsDefinition(f"{_HISTORY_START:%Y-%m-%d}", timezone="UTC", day_offset=1)
