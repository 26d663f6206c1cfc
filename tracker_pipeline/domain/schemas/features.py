"""Tables of features, which live in the lake."""

from datetime import timedelta
from typing import Final

from tracker_pipeline.domain import feature_catalogue
from tracker_pipeline.domain.schemas.declaration import SYMBOL, VENUE, Chart, Column, T, Table

ML_FEATURES_15M: Final = Table(
    name="features.ml_features_15m",
    key=("venue", "symbol", "ts"),
    time_column="ts",
    store="lake",
    chart=Chart("rsi_14", timedelta(days=1)),
    description="Point-in-time features at each closed 15m bar, NULL with a reason where history is short.",
    columns=(
        VENUE,
        SYMBOL,
        Column("ts", T.TIME, "open time of the bar; the features are known at available_at"),
        Column("available_at", T.TIME, "from when on the row may be used"),
        *(
            Column(feature.name, T.TEXT if feature.is_text else T.FLOAT, feature.description, nullable=True)
            for feature in feature_catalogue.CATALOGUE
        ),
        Column("null_reasons", T.JSON, "reason code for each feature that is NULL"),
        Column("feature_set_version", T.TEXT, "version of the feature definitions"),
        Column(
            "input_revision",
            T.INT,
            "sum of revisions - 1 over the input bars of the row's window: 0 if never corrected",
        ),
    ),
)
