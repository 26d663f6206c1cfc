"""The catalogue is the one description of the features: schema, page and values agree with it."""

from pathlib import Path

from tracker_pipeline.domain.feature_catalogue import CATALOGUE, NUMBERS, OF_BARS, as_markdown
from tracker_pipeline.domain.feature_formulas import FORMULAS
from tracker_pipeline.domain.schemas import ML_FEATURES_15M, TRAINING_SET

PAGE = Path(__file__).resolve().parents[2] / "docs" / "features.md"


def test_the_page_of_the_documentation_is_the_catalogue():
    """Where it is not, write what `as_markdown` returns to the page."""
    assert PAGE.read_text("utf-8") == as_markdown()


def test_every_feature_is_described_and_once():
    assert len({feature.name for feature in CATALOGUE}) == len(CATALOGUE)
    assert all(f.formula and f.unit and f.source for f in CATALOGUE)


def test_the_tables_have_the_features_of_the_catalogue():
    names = [feature.name for feature in CATALOGUE]
    assert [name for name in ML_FEATURES_15M.column_by_name if name in names] == names
    assert [name for name in TRAINING_SET.column_by_name if name in NUMBERS] == list(NUMBERS)


def test_every_feature_of_bars_is_one_entry_and_one_function():
    assert set(OF_BARS) == set(FORMULAS)
    assert tuple(feature.name for feature in CATALOGUE[: len(OF_BARS)]) == OF_BARS
