"""The catalogue is the one description of the features: schema, page and values agree with it."""

from pathlib import Path

from tracker_pipeline.domain.feature_catalogue import CATALOGUE, as_markdown
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
    for table in (ML_FEATURES_15M, TRAINING_SET):
        assert [name for name in table.column_by_name if name in names] == names
