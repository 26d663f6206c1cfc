"""Tables that we do not declare are archived and restored value by value, whatever the zone of the session."""

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import archive_tables
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.catalogue import tables_of
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.restore import restore_days
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.storage.foreign import DDL, POLICIES, all_text, fill, use_policies

pytestmark = pytest.mark.usefixtures("each_store")
START = datetime(2026, 1, 5, 10, tzinfo=UTC)
CUT = datetime(2026, 2, 1, tzinfo=UTC)
ZONES = ["UTC", "Asia/Tokyo", "America/New_York"]


def set_zone(url: str, zone: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        connection.execute(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'")
        connection.execute(f"ALTER DATABASE {name} SET intervalstyle = 'iso_8601'")
        connection.execute(f"ALTER DATABASE {name} SET extra_float_digits = -3")
    forget_settings()


@pytest.fixture
def follower(own_database, monkeypatch, tmp_path):
    with psycopg.connect(own_database) as connection:
        connection.execute(DDL.read_text())
    use_policies(monkeypatch, tmp_path, "archive_policies.yaml", POLICIES)
    return own_database


def test_the_policies_name_exactly_the_13_and_the_9(follower):
    policies = get_policies()
    with connect() as connection:
        there = set(tables_of(connection, ["public"]))
    archived = {name for name in policies.archived if name.startswith("public.")}
    never = {name for name in policies.never if name.startswith("public.")}
    assert (len(archived), len(never), archived | never) == (13, 9, there)


def test_the_13_tables_come_back_value_by_value_a_day_in_each_zone(follower):
    names = sorted(name for name in get_policies().archived if name.startswith("public."))
    for name in names:
        fill(name, 51, get_policies().of(name).time_column, START, 3_600)
    days = [date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)]
    with psycopg.connect(follower) as connection:
        connection.execute("UPDATE cycle_tracker SET cycle_end_time = cycle_start_time + interval '1 hour'")
        connection.commit()
        before = {name: all_text(connection, name) for name in names}
        for day, zone, rows in zip(days, ZONES, (14, 24, 13), strict=True):
            set_zone(follower, zone)
            reports = archive_tables(names, first=day, last=day, cut=CUT, run_id="r")
            assert [(r.table, r.outcome, r.problem) for r in reports] == [(n, "moved", "") for n in names]
            assert all([(d.day, d.rows_moved) for d in r.days] == [(day, rows)] for r in reports)
        assert all(all_text(connection, name) == [] for name in names)
        for day, zone in zip(days, reversed(ZONES), strict=True):
            set_zone(follower, zone)
            for name in names:
                restore_days(name, day, day, run_id="back")
        assert {name: all_text(connection, name) for name in names} == before


def test_what_was_restored_moves_again_without_loss_once_the_hold_is_over(follower):
    fill("public.whale_movements", 50, "timestamp", START, 1_800)
    with psycopg.connect(follower) as connection:
        before = all_text(connection, "whale_movements")
        archive_tables(["public.whale_movements"], cut=CUT, run_id="r")
        restore_days("public.whale_movements", date(2026, 1, 1), date(2026, 2, 1), run_id="back")
        (dry,) = archive_tables(["public.whale_movements"], cut=CUT, dry_run=True, run_id="r")
        assert (dry.outcome, [(day.rows_moved, day.reason) for day in dry.days]) == (
            "nothing", [(0, "held back since it was restored")] * 2,
        )  # fmt: skip
        (held,) = archive_tables(["public.whale_movements"], cut=CUT, run_id="r")
        assert sum(day.rows_moved for day in held.days) == 0
        assert held.days[0].reason == "held back since it was restored"
        connection.execute("DELETE FROM archive.holds")
        connection.commit()
        (again,) = archive_tables(["public.whale_movements"], cut=CUT, run_id="r")
        assert sum(day.rows_moved for day in again.days) == 50
        restore_days("public.whale_movements", date(2026, 1, 1), date(2026, 2, 1), run_id="back")
        assert all_text(connection, "whale_movements") == before


def test_rows_that_may_still_change_stay_with_their_children_and_are_counted(follower):
    fill("public.follow_the_goat_buyins", 40, "followed_at", START, 3_600)
    fill("public.follow_the_goat_buyins_price_checks", 40, "checked_at", START, 3_600)
    fill("public.cycle_tracker", 40, "cycle_start_time", START, 3_600)
    with psycopg.connect(follower) as connection:
        connection.execute("UPDATE follow_the_goat_buyins SET potential_gains = 1, our_status = 'sold'")
        connection.execute(
            "UPDATE follow_the_goat_buyins SET our_status = 'pending', price_cycle = 8 WHERE id = 7"
        )
        connection.execute(
            "UPDATE follow_the_goat_buyins SET our_status = NULL, price_cycle = 11 WHERE id = 9"
        )
        connection.execute(
            "UPDATE follow_the_goat_buyins SET our_status = 'unheard of', price_cycle = 12 WHERE id = 10"
        )
        connection.execute("UPDATE follow_the_goat_buyins_price_checks SET buyin_id = id")
        connection.execute("UPDATE cycle_tracker SET cycle_end_time = cycle_start_time")
        connection.execute("UPDATE cycle_tracker SET cycle_end_time = NULL WHERE id = 5")
    reports = {r.table.removeprefix("public."): r for r in archive_tables(cut=CUT, run_id="r")}
    with psycopg.connect(follower) as connection:
        stayed = {
            name: [row[0] for row in connection.execute(f"SELECT id FROM {name} ORDER BY 1").fetchall()]
            for name in ("follow_the_goat_buyins", "follow_the_goat_buyins_price_checks", "cycle_tracker")
        }
    assert stayed == {
        "follow_the_goat_buyins": [7, 9, 10],
        "follow_the_goat_buyins_price_checks": [7, 9, 10],
        "cycle_tracker": [5, 8, 11, 12],
    }
    assert reports["cycle_tracker"].left_behind.may_change == 4
    assert "3 rows before the cut may still change" in str(reports["follow_the_goat_buyins"].left_behind)


def test_the_cut_is_strict_and_times_without_zone_are_utc(follower):
    set_zone(follower, "Asia/Tokyo")
    fill("public.prices", 3, "timestamp", CUT - timedelta(microseconds=1), 1)
    with psycopg.connect(follower) as connection:
        connection.execute(f"UPDATE prices SET \"timestamp\" = '{CUT:%Y-%m-%d %H:%M}' WHERE id = 1")
    (report,) = archive_tables(["public.prices"], cut=CUT, run_id="r")
    assert [(m.day, m.rows_moved) for m in report.days] == [(date(2026, 1, 31), 1)]


def test_rows_with_null_future_or_endless_times_are_reported_and_stay(follower):
    fill("public.whale_movements", 10, "timestamp", START, 60)
    with psycopg.connect(follower) as connection:
        for number, moment in enumerate(
            ["NULL", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'9999-12-31'"]
        ):
            connection.execute(f'UPDATE whale_movements SET "timestamp" = {moment} WHERE id = {number}')
        connection.execute("UPDATE whale_movements SET \"timestamp\" = '0001-01-01' WHERE id = 5")
    (report,) = archive_tables(["public.whale_movements"], cut=CUT, run_id="r")
    assert [(m.day, m.rows_moved) for m in report.days] == [(date(1, 1, 1), 1), (START.date(), 4)]
    assert (report.left_behind.without_time, report.left_behind.ahead) == (3, 2)
    assert report.outcome == "moved"


EVERY_TYPE = """
CREATE TYPE mood AS ENUM ('sad', 'ok "so"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS numeric(12,4) CHECK (VALUE > 0);
CREATE TABLE public."Every Type" (
    "Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "select" timestamptz NOT NULL, small smallint,
    whole integer, big bigint, real4 real, real8 double precision, money_ money, n numeric,
    n8 numeric(20,8), n0 numeric(5,0), wide numeric(78,0), most numeric(38,10),
    negative_scale numeric(3,-2), dom positive, yes boolean, t text,
    v varchar(10), c char(5), nm name, one "char", b bytea, d date, ts timestamp, ts0 timestamp(0), tz timestamptz,
    tm time, tmz timetz, iv interval, u uuid, ip inet, net cidr, mac macaddr, mac8 macaddr8, bits bit(5),
    vbits varbit(8), j json, jb jsonb, m mood, p pair, ia int[], ta text[], va varchar(5)[], fa float8[],
    r int4range, mr nummultirange, tsr tstzrange, pt point, bx box, ts_v tsvector, ts_q tsquery, lsn pg_lsn,
    twice bigint GENERATED ALWAYS AS (big * 2) STORED, empty text, blanks bpchar DEFAULT 'ab  ',
    endless interval DEFAULT '-infinity', jp jsonpath DEFAULT '$."a"[*] ? (@ > 1)', ca char(3)[] DEFAULT '{a,"b "}',
    ma mood[] DEFAULT '{sad,NULL}', pa pair[] DEFAULT ARRAY[ROW(1, 'x "y"')::pair], li line DEFAULT '{1,2,3}',
    pg polygon DEFAULT '((0,0),(1,1),(1,0))', oi oid DEFAULT 4294967295, scaled numeric(3,5) DEFAULT 0.00123,
    fraction numeric(18,18) DEFAULT 0.123456789012345678, tsa timestamptz[] DEFAULT '{2026-01-01 00:00+09,infinity}'
)
"""
ROWS = [
    "DEFAULT, '2026-01-05 01:02:03.999999+00', -32768, 2147483647, 4503599627370497, 'NaN', '-0', '-12.34', 'NaN',"
    " '123456789012.12345678', 12345, repeat('9', 78)::numeric, 1.0000000000, 12300, 1.5, true, E'a\\nb', '', 'ab',"
    " 'n', 'q', '\\x00ff', 'infinity', 'infinity', '2026-01-05 10:00:00', '-infinity', '23:59:59.999999',"
    " '01:02:03+09', '1 year -2 mons 3 days -04:05:06.789',"
    " 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '192.168.1.5/24', '10.0.0.0/8',"
    " '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '10101', '101', '{\"b\":1, \"b\": 2,  \"a\":1e400}',"
    ' \'{"a": 0.1000, "n": null}\', \'ok "so"\', \'(1,"x,y")\', \'{1,NULL,3}\', \'{a,NULL,"b c","",null}\','
    " '{x}', '{NaN,1}', '[1,5)', '{[1,2),[3,4)}', '[2026-01-01,)', '(1,2)', '(3,4),(1,2)', 'a:1 fat', 'a & b',"
    " '16/B374D848', DEFAULT, NULL",
    "DEFAULT, '2026-01-05 02:00:00+00', NULL, NULL, NULL, 1.1, 5e-324, NULL, 0.1000, 'NaN', NULL, 0, NULL, NULL,"
    " NULL, false, '', NULL, NULL, NULL, NULL, '', '0044-03-15 BC', '294276-12-31 23:59:59.999999', NULL, NULL, NULL,"
    " NULL, '00:00:00', NULL, '::1', NULL, NULL, NULL, NULL, NULL, 'null', 'null', NULL, NULL, '{}',"
    " '[0:1]={a,b}', '{}', '{{1,2},{3,4}}', 'empty', '{}', NULL, NULL, NULL, '', NULL, NULL, DEFAULT, NULL",
    "DEFAULT, '2026-01-05 03:00:00+00', 0, 0, 0, 0, 1e308, 0, 'Infinity', 1.10000000, 0, 1, 2, 0, 3, NULL, '🐐',"
    " 'ab', '', 'b', NULL, NULL, '2024-02-29', '0001-01-01', NULL, '2026-01-05 00:00:00.000001+05', '24:00:00', NULL,"
    " '178000000 years', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '1', '\"abc\"', 'sad', '(,)', NULL,"
    " '{{a,b},{c,d}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, DEFAULT, NULL",
]
POLICY = (
    "archived:\n  public.Every Type: {time_column: select, retention: 24 h, sort: [t]}\n"
    "never_archived: {public.other: because}\n"
)


@pytest.mark.parametrize("zone", ZONES)
def test_every_type_comes_back_as_it_was(own_database, monkeypatch, tmp_path, zone):
    use_policies(monkeypatch, tmp_path, "archive_policies.yaml", text=POLICY)
    with psycopg.connect(own_database) as connection:
        connection.execute(EVERY_TYPE)
        for row in ROWS:
            connection.execute(f'INSERT INTO "Every Type" VALUES ({row})')
        connection.execute(
            "INSERT INTO \"Every Type\" (\"select\", t, b) VALUES ('2026-01-05', repeat('long é', 200000), %s)",
            [bytes(range(256)) * 4_000],
        )
    set_zone(own_database, zone)
    with psycopg.connect(own_database) as connection:
        before = all_text(connection, '"Every Type"')
        (report,) = archive_tables(["public.Every Type"], cut=CUT, run_id="r")
        assert (report.problem, report.outcome) == ("", "moved")
        assert all_text(connection, '"Every Type"') == []
        restore_days("public.Every Type", date(2026, 1, 5), date(2026, 1, 5), run_id="back")
        assert all_text(connection, '"Every Type"') == before


def test_a_table_without_key_is_refused_unless_its_policy_allows_it(own_database, monkeypatch, tmp_path):
    text = "archived:\n  public.keyless: {time_column: at, retention: 24 h}\n"
    with psycopg.connect(own_database) as connection:
        connection.execute("CREATE TABLE keyless (at timestamptz, v int)")
        connection.execute(
            "INSERT INTO keyless VALUES ('2026-01-05', 1), ('2026-01-05', 1), ('2026-01-05', NULL)"
        )
    use_policies(monkeypatch, tmp_path, text=text)
    (report,) = archive_tables(run_id="r")
    assert (report.outcome, "has no primary key" in report.problem) == ("failed", True)
    use_policies(monkeypatch, tmp_path, text=text.replace("24 h", "24 h, allow_no_key: true"))
    (report,) = archive_tables(run_id="r")
    assert (report.outcome, report.days[0].rows_moved, report.days[0].rows_cold) == ("moved", 3, 3)


OF_DOMAINS = {
    "int2": "32767",
    "int4": "-7",
    "int8": "9007199254740993",
    "bool": "true",
    "float4": "0.1",
    "float8": "1e-300",
    "numeric(9,2)": "-12.50",
    "text": "é",
    "varchar(9)": "a b ",
    "char(4)": "ab",
    "bytea": r"\x00ff",
    "date": "2026-01-05",
    "timestamp": "2026-01-05 00:00:00.000001",
    "timestamptz": "2026-01-05 00:00:00.000001+00",
    "text[]": "{a,NULL}",
}


def test_columns_of_domains_are_read_and_come_back_as_those_of_their_types(
    own_database, monkeypatch, tmp_path
):
    text = "archived: {public.kinds: {time_column: at, retention: 24 h, sort: [at]}}"
    use_policies(monkeypatch, tmp_path, text=text)
    values = ", ".join(f"'{value}'" for value in OF_DOMAINS.values())
    with psycopg.connect(own_database) as connection:
        for number, kind in enumerate(OF_DOMAINS):
            connection.execute(f"CREATE DOMAIN d{number} AS {kind}")
        columns = ", ".join(f"c{number} d{number}" for number in range(len(OF_DOMAINS)))
        connection.execute(f"CREATE TABLE kinds (id int PRIMARY KEY, at timestamptz, {columns})")
        connection.execute(f"INSERT INTO kinds VALUES (1, '2026-01-05 01:00Z', {values})")
        connection.execute("INSERT INTO kinds VALUES (2, '2026-01-05 02:00Z')")
        before = all_text(connection, "kinds")
    hot = scan("public.kinds").sort("id").collect()
    (report,) = archive_tables(["public.kinds"], cut=CUT, run_id="r")
    assert [moved.rows_moved for moved in report.days] == [2]
    assert scan("public.kinds").sort("id").collect().equals(hot)
    assert run_query("SELECT * FROM public.kinds ORDER BY id").equals(hot)
    (restored,) = restore_days("public.kinds", date(2026, 1, 5), date(2026, 1, 5), run_id="back")
    assert restored.inserted == 2
    with psycopg.connect(own_database) as connection:
        assert all_text(connection, "kinds") == before


def test_rows_move_whose_key_has_a_time_without_end(own_database, monkeypatch, tmp_path):
    use_policies(monkeypatch, tmp_path, text="archived: {public.quotes: {time_column: at, retention: 24 h}}")
    with psycopg.connect(own_database) as connection:
        connection.execute(
            "CREATE TABLE quotes (until timestamptz, id int, at timestamptz, PRIMARY KEY (until, id))"
        )
        connection.execute(
            "INSERT INTO quotes SELECT CASE WHEN i % 2 = 0 THEN 'infinity' ELSE '2026-01-06'::timestamptz END,"
            " i, '2026-01-05 01:00Z' FROM generate_series(1, 40) AS i"
        )
        before = all_text(connection, "quotes")
    (report,) = archive_tables(["public.quotes"], cut=CUT, run_id="r")
    assert [moved.rows_moved for moved in report.days] == [40]
    (restored,) = restore_days("public.quotes", date(2026, 1, 5), date(2026, 1, 5), run_id="back")
    assert restored.inserted == 40
    with psycopg.connect(own_database) as connection:
        assert all_text(connection, "quotes") == before
