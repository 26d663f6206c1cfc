"""Every table has exactly one policy, or the archive does not begin."""

from datetime import timedelta

import psycopg
import pytest

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.settings import ConfigurationError
from tracker_pipeline.storage.archive import archive_tables
from tracker_pipeline.storage.archive_policy import get_policies, read_policies

ONE = "archived:\n  a.b: {time_column: ts, retention: 24 h}\n"


def test_every_table_of_ours_is_named_in_archive_policies_yaml():
    policies = get_policies()
    named = {*policies.archived, *policies.never}
    assert {table.name for table in TABLES.values() if table.store == "postgres"} == named


@pytest.mark.parametrize("name", list(get_policies().archived))
def test_a_policy_of_ours_names_columns_that_exist(name):
    policy = get_policies().of(name)
    assert TABLES[name].time_column == policy.time_column
    assert {*policy.sort} <= set(TABLES[name].column_by_name)
    assert policy.same_key == "correct"


def test_retention_is_a_duration_in_hours_or_days():
    assert read_policies([("x", ONE)]).of("a.b").retention == timedelta(hours=24)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "never_archived:\n  a.b: why\n", r"a\.b may stand under archived or under never_archived"),
        (ONE + "  a.b: {time_column: ts, retention: 2 d}\n", r"a\.b stands there twice"),
        ("archived:\n  a.b: {time_column: ts, retention: 0 d}\n", "not a duration"),
        ("archived:\n  a.b: {time_column: ts, retention: 5 weeks}\n", "not a duration"),
        (
            "archived:\n  a.b: {time_column: ts, retention: 30 d, cold_retention: 24 h}\n",
            "must be longer than retention",
        ),
        ("archived:\n  a.b: {time_column: ts, retention: 1 d, mode: fast}\n", "mode"),
        ("archived:\n  a.b: {time_column: ts, retention: 1 d, colour: red}\n", "colour"),
        ("archived:\n  b: {time_column: ts, retention: 1 d}\n", r"write b as schema\.table"),
        ("archived: [", "not valid"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_sentence(text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_policies([("policies.yaml", text)])


def test_a_table_that_two_files_name_is_refused():
    with pytest.raises(ConfigurationError, match=r"second: a\.b may stand"):
        read_policies([("first", ONE), ("second", ONE)])


def test_a_table_that_no_policy_names_stops_the_archive_before_any_write(own_database):
    with psycopg.connect(own_database) as connection:
        connection.execute("CREATE TABLE market.surprise (id int)")
    with pytest.raises(PermanentError, match=r"no archive policy names market\.surprise"):
        archive_tables(run_id="r")


def test_a_table_that_is_never_archived_is_refused_even_if_asked_for(own_database):
    with pytest.raises(PermanentError, match=r"market\.instruments is not archived"):
        archive_tables(["market.instruments"], run_id="r")
