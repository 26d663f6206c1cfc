"""What goes wrong is named in the report, loses nothing, keeps no other table back, and the next run goes on."""

import errno
import re
import resource
import signal
import threading
import time
from datetime import UTC, date, datetime, timedelta

import polars as pl
import psycopg
import pytest

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import lake_store as store
from tracker_pipeline.storage import moving, part_writer, row_mode, scan
from tracker_pipeline.storage.archive import archive_tables, move_day
from tracker_pipeline.storage.audit import KEY_REUSED, audit
from tracker_pipeline.storage.compaction import compact_days
from tracker_pipeline.storage.database import connect
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.storage.foreign import use_policies
from tracker_pipeline_tests.stores import lake_files, plant_file, read_file

pytestmark = pytest.mark.usefixtures("each_store")
CUT = datetime(2024, 6, 1, tzinfo=UTC)
DAY = date(2024, 5, 1)
POLICY = """
archived:
  public.one: {time_column: at, retention: 24 h}
  public.two: {time_column: at, retention: 24 h}
never_archived: {public.child: refers to the others}
"""
MAKE = """
CREATE TABLE {0} (id bigint PRIMARY KEY, at timestamptz, v text);
INSERT INTO {0} SELECT i, '2024-05-01Z'::timestamptz + i * interval '1 min', 'v' || i FROM generate_series(0, 99) AS i
"""


@pytest.fixture
def two_tables(own_database, monkeypatch, tmp_path):
    with psycopg.connect(own_database) as connection:
        for name in ("one", "two"):
            connection.execute(MAKE.format(name))
    use_policies(monkeypatch, tmp_path, text=POLICY)
    return own_database


def run() -> dict[str, tuple[str, str]]:
    return {r.table: (r.outcome, r.problem) for r in archive_tables(cut=CUT, run_id="r")}


def total(name: str) -> int:
    return scan(f"public.{name}").select(pl.len()).collect().item()


def hot(name: str) -> int:
    with connect() as connection:
        return connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]


def everything_moves_next_time() -> None:
    outcomes = run()
    assert {problem for _, problem in outcomes.values()} == {""}
    assert (hot("one"), hot("two"), total("one"), total("two")) == (0, 0, 100, 100)


def test_one_table_whose_rights_were_revoked_fails_alone(two_tables, monkeypatch):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        role = f"archiver_{id(monkeypatch)}"
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        connection.execute(f"ALTER ROLE {role} NOSUPERUSER")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA archive, tracker, public TO {role}")
        connection.execute(f"GRANT USAGE ON SCHEMA archive, tracker, public TO {role}")
        connection.execute(f"REVOKE DELETE ON one FROM {role}")
        monkeypatch.setenv("TRACKER_DATABASE_URL", two_tables.replace("postgres@", f"{role}@"))
        forget_settings()
        outcomes = run()
        assert outcomes["public.two"] == ("moved", "")
        assert outcomes["public.one"][0] == "failed"
        assert "permission denied for table one" in outcomes["public.one"][1]
        assert total("one") == 100
        connection.execute(f"GRANT DELETE ON one TO {role}")
        everything_moves_next_time()
        monkeypatch.setenv("TRACKER_DATABASE_URL", two_tables)
        forget_settings()
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("place", ["write", "fsync", "rename"])
def test_a_full_disk_is_named_wherever_it_is_met(two_tables, each_store, monkeypatch, place):
    if each_store == "s3" and place != "write":
        pytest.skip("a put is one step")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if place == "write":
            patch.setattr(part_writer.PartWriter, "write", full)
        elif place == "fsync":
            patch.setattr(store.os, "fsync", full)
        else:
            patch.setattr(store.Path, "replace", full)
        outcomes = run()
    assert {outcome for outcome, _ in outcomes.values()} == {"failed"}
    assert all("No space left on device" in problem for _, problem in outcomes.values())
    assert (total("one"), lake_files()) == (100, [])
    everything_moves_next_time()


def test_a_file_that_the_system_does_not_let_grow_is_named(two_tables):
    """The kernel itself refuses to write on, in the midst of the file."""
    with psycopg.connect(two_tables) as connection:
        connection.execute(
            "UPDATE one SET v = (SELECT string_agg(md5((id * 100 + i)::text), '') FROM generate_series(0, 99) AS i)"
        )
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        outcomes = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert outcomes["public.one"][0] == "failed"
    assert re.search(
        r"the (lake|folder) .* cannot be written to: .*File too large", outcomes["public.one"][1]
    )
    assert (outcomes["public.two"], total("one")) == (("moved", ""), 100)
    assert [path for path in lake_files() if "/one/" in path] == []
    everything_moves_next_time()


def test_too_little_space_is_seen_before_anything_is_written(two_tables, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(moving, "_SPARE_BYTES", 1 << 60)
        assert "make room" in run()["public.one"][1]
    assert lake_files() == []
    everything_moves_next_time()


def test_a_statement_timeout_is_named(two_tables):
    name = psycopg.conninfo.conninfo_to_dict(two_tables)["dbname"]
    with psycopg.connect(two_tables, autocommit=True) as connection, psycopg.connect(two_tables) as holder:
        connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '300ms'")
        holder.execute("SELECT FROM one WHERE id = 5 FOR UPDATE")
        forget_settings()
        outcomes = run()
        assert "statement timeout" in outcomes["public.one"][1]
        assert outcomes["public.two"] == ("moved", "")
        connection.execute(f"ALTER DATABASE {name} RESET statement_timeout")
    forget_settings()
    everything_moves_next_time()


def test_rows_that_change_or_go_meanwhile_are_taken_as_they_are_then(two_tables):
    changed = []

    def change(name: str) -> None:
        if name == "after publishing" and not changed:
            changed.append(name)
            with psycopg.connect(two_tables) as connection:
                connection.execute("UPDATE one SET v = 'changed' WHERE id = 7")
                connection.execute("DELETE FROM one WHERE id = 8")

    moved = move_day("public.one", DAY, cut=CUT, run_id="r", step=change)
    assert moved.rows_moved == 99
    rows = scan("public.one").collect()
    assert rows.filter(pl.col("id") == 7).item(0, "v") == "changed"
    assert (rows.height, len(lake_files())) == (99, 1)


@pytest.mark.parametrize("committed", [True, False])
def test_a_connection_lost_at_commit_is_settled_by_the_manifest(two_tables, committed):
    """The server rests in the commit; there its session is ended, or only the way to it."""
    with connect() as connection:
        connection.execute(
            "CREATE FUNCTION archive.rest() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON archive.batches DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION archive.rest()"
        )

    def cut_off(name: str) -> None:
        if name == "before commit":
            threading.Thread(target=end_session, args=(two_tables,)).start()

    if committed:
        outcome = lose_the_answer(two_tables)
        assert outcome == 100
    else:
        with pytest.raises(Exception, match="lost at COMMIT and nothing was moved"):
            move_day("public.one", DAY, cut=CUT, run_id="r", step=cut_off)
        assert (hot("one"), lake_files()) == (100, [])
    assert total("one") == 100
    everything_moves_next_time()


def end_session(url: str) -> None:
    deadline = time.monotonic() + 5
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query ILIKE 'COMMIT%' AND state = 'active' AND datname = current_database()"
            ).fetchall()
            if ended:
                return
            time.sleep(0.02)


def lose_the_answer(url: str) -> int:
    """Close the client's socket while the server commits; it commits all the same."""
    import os
    import socket

    def shut(connection: psycopg.Connection) -> None:
        time.sleep(0.2)
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RD)

    whole = row_mode.manifest.add_part

    def add_part(connection, *args, **kwargs):
        whole(connection, *args, **kwargs)
        threading.Thread(target=shut, args=(connection,)).start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_mode.manifest, "add_part", add_part)
        return move_day("public.one", DAY, cut=CUT, run_id="r").rows_moved


def insert_late(url: str, *names: str) -> None:
    with psycopg.connect(url) as connection:
        for name in names:
            connection.execute(f"INSERT INTO {name} VALUES (500, '2024-05-01 12:00Z', 'late')")


def test_late_rows_wait_while_a_part_of_their_day_is_broken(two_tables):
    run()
    insert_late(two_tables, "one", "two")
    (path,) = (path for path in lake_files() if "/one/" in path)
    content = read_file(path)
    plant_file(path, content[:200])
    outcomes = run()
    assert outcomes["public.one"][0] == "failed"
    assert "a file of public.one in the lake" in outcomes["public.one"][1]
    assert "is broken" in outcomes["public.one"][1]
    assert (outcomes["public.two"], hot("one"), hot("two")) == (("moved", ""), 1, 0)
    plant_file(path, content)
    assert run()["public.one"] == ("moved", "")
    assert (hot("one"), total("one")) == (0, 101)


def test_what_nobody_foresaw_fails_its_table_alone(two_tables, monkeypatch):
    whole = moving.move_rows

    def fails(connection, work, step):
        if work.table.name == "public.one":
            raise ZeroDivisionError("of all things")
        return whole(connection, work, step)

    with monkeypatch.context() as patch:
        patch.setattr(moving, "move_rows", fails)
        outcomes = run()
    assert outcomes["public.one"] == (
        "failed", "ZeroDivisionError, which this program did not foresee: of all things",
    )  # fmt: skip
    assert outcomes["public.two"] == ("moved", "")
    everything_moves_next_time()


def test_each_day_that_fails_is_named(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute("INSERT INTO one VALUES (500, '2024-05-02 12:00Z', 'late')")
        connection.execute("CREATE TABLE child (one bigint PRIMARY KEY REFERENCES one ON DELETE CASCADE)")
        connection.execute("INSERT INTO child VALUES (5), (6), (500)")
    problem = run()["public.one"][1]
    assert "would remove or change 2 rows of child" in problem
    assert "would remove or change 1 rows of child" in problem


def test_a_commit_that_the_server_refuses_leaves_no_file(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE child (one bigint PRIMARY KEY REFERENCES one DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.execute("INSERT INTO child VALUES (5)")
        assert "is still referenced from table" in run()["public.one"][1]
        assert [path for path in lake_files() if "/one/" in path] == []
        connection.execute("DELETE FROM child")
    everything_moves_next_time()


def test_what_deleted_rows_left_behind_counts_neither_as_their_size_nor_as_space_that_is_needed(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute("UPDATE one SET v = repeat('x', 1000)")
        connection.execute(
            "INSERT INTO one SELECT i, '2024-05-02Z'::timestamptz + i * interval '1 s', repeat('x', 1000)"
            " FROM generate_series(1000, 1099) AS i"
        )
        sizes = []
        for _ in range(2):
            (report,) = archive_tables(["public.one"], first=DAY, last=DAY, cut=CUT, run_id="r")
            sizes.append(report.days[0].table_bytes)
            assert report.days[0].compression == round(sizes[-1] / report.days[0].bytes, 1)
            connection.execute("DELETE FROM one")
            connection.execute("VACUUM (TRUNCATE off, ANALYZE) one")
            connection.execute("INSERT INTO one VALUES (2000, '2024-05-01 12:00Z', repeat('x', 1000))")
    assert 100_000 < sizes[0] < 400_000
    assert 1_000 < sizes[1] < 4_000


def test_columns_that_are_added_dropped_and_retyped_leave_old_parts_readable(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        run()
        connection.execute(
            "ALTER TABLE one ADD COLUMN w numeric(10,2) DEFAULT 1.5, ALTER COLUMN id TYPE numeric(20,0)"
        )
        connection.execute("INSERT INTO one VALUES (500, '2024-05-01 12:00Z', 'late', 2.25)")
        assert run()["public.one"] == ("moved", "")
        assert total("one") == 101
        connection.execute("ALTER TABLE one DROP COLUMN v")
        connection.execute("INSERT INTO one VALUES (501, '2024-05-01 13:00Z', 3)")
        assert run()["public.one"] == ("moved", "")
        assert total("one") == 102


def test_a_key_that_is_used_again_is_reported_and_both_rows_are_kept(two_tables):
    run()
    with psycopg.connect(two_tables) as connection:
        connection.execute(
            "INSERT INTO one VALUES (3, '2024-05-01 12:00Z', 'another'), (4, '2024-05-01 00:04Z', 'v4')"
        )
    (report,) = archive_tables(["public.one"], cut=CUT, run_id="r")
    assert "1 keys of archived rows were used again for other rows; both are kept" in report.days[0].reason
    assert "1 rows are archived already with the same values and stay in Postgres" in report.days[0].reason
    assert (report.days[0].rows_moved, hot("one")) == (1, 1)
    with connect() as connection:
        counted = connection.execute(
            "SELECT sum(rows)::int FROM archive.batches WHERE table_name = 'public.one' AND state = 'live'"
        ).fetchone()
    assert counted == (101,)


def test_a_key_that_is_used_again_is_kept_twice_where_the_archived_row_does_not_fit_the_columns_now(
    two_tables,
):
    run()
    with psycopg.connect(two_tables) as connection:
        connection.execute("ALTER TABLE one ALTER v TYPE int USING 5")
        connection.execute(
            "INSERT INTO one VALUES (3, '2024-05-01 00:03Z', NULL), (500, '2024-05-01 12:00Z', 7)"
        )
    (report,) = archive_tables(["public.one"], cut=CUT, run_id="r")
    assert report.problem == ""
    assert "1 keys of archived rows were used again" in report.days[0].reason
    assert (report.days[0].rows_moved, hot("one"), total("one")) == (2, 0, 102)


def test_parts_from_before_and_after_a_change_of_the_key_are_not_merged_and_those_of_one_key_are(two_tables):
    def late(number: int) -> None:
        connection.execute(f"INSERT INTO one VALUES ({number}, '2024-05-01 12:00Z', 'late')")
        assert run()["public.one"] == ("moved", "")

    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute("ALTER TABLE one ALTER v SET NOT NULL")
        run()
        late(500)
        connection.execute("ALTER TABLE one DROP CONSTRAINT one_pkey, ADD PRIMARY KEY (id, v)")
        late(501)
        late(502)
    done = compact_days("public.one", run_id="r")
    assert sorted((one.outcome, one.parts, one.rows) for one in done) == [
        ("compacted", 2, 2),
        ("compacted", 2, 101),
    ]
    assert total("one") == 103


def test_a_key_that_is_used_again_on_another_day_is_named_by_the_audit_and_is_no_loss(two_tables):
    run()
    assert audit(["public.one"]).problems == []
    with psycopg.connect(two_tables) as connection:
        connection.execute(
            "INSERT INTO one SELECT i, timestamptz '2024-05-02 12:00Z' + i * interval '1 minute', 'anew'"
            " FROM generate_series(90, 109) AS i"
        )
    assert run()["public.one"] == ("moved", "")
    found = audit(["public.one"])
    assert [(p.problem, p.is_loss) for p in found.problems] == [(f"10 {KEY_REUSED}", False)] * 2
    assert (found.orphans, total("one")) == ([], 120)


def test_a_delete_that_would_reach_other_rows_is_refused(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE child (id int PRIMARY KEY, one bigint REFERENCES one ON DELETE CASCADE)"
        )
        connection.execute("INSERT INTO child VALUES (1, 5)")
        assert "1 rows of child by a foreign key: archive child first" in run()["public.one"][1]
        connection.execute("DELETE FROM child")
        connection.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;"
            "CREATE TRIGGER noted BEFORE DELETE ON one FOR EACH ROW EXECUTE FUNCTION note()"
        )
        assert "triggers on DELETE (noted)" in run()["public.one"][1]
        connection.execute("DROP TRIGGER noted ON one")
    everything_moves_next_time()


def test_a_table_that_is_not_there_fails_alone(two_tables):
    with psycopg.connect(two_tables) as connection:
        connection.execute("DROP TABLE one")
    outcomes = run()
    assert outcomes["public.one"] == (
        "failed", "the table public.one does not exist: create it or remove its archive policy",
    )  # fmt: skip
    assert outcomes["public.two"] == ("moved", "")


@pytest.mark.parametrize("condition", ["nosuch = 1", "id = = 1", "v", "id = 1) --", "''"])
def test_a_condition_that_postgres_does_not_understand_is_named_with_its_policy(
    two_tables, monkeypatch, tmp_path, condition
):
    text = POLICY.replace("24 h}", f'24 h, may_change_while: "{condition}"}}', 1)
    use_policies(monkeypatch, tmp_path, text=text)
    outcomes = run()
    assert (
        "public.one: may_change_while in its policy is no condition on its rows" in outcomes["public.one"][1]
    )
    assert outcomes["public.one"][1].endswith(condition)
    assert outcomes["public.two"] == ("moved", "")


def test_a_table_beside_the_policies_stops_all_before_any_write(two_tables):
    with psycopg.connect(two_tables) as connection:
        connection.execute("CREATE TABLE surprise (id int)")
    with pytest.raises(PermanentError, match=r"no archive policy names public\.surprise"):
        run()
    assert (lake_files(), hot("one")) == ([], 100)


def test_hourly_cuts_within_a_day_make_parts_beside_each_other(two_tables):
    for minutes in (30, 60, 61, 500):
        cut = datetime(2024, 5, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        archive_tables(["public.one"], cut=cut, run_id="r")
        assert hot("one") == max(100 - minutes, 0)
        assert total("one") == 100
    assert len(lake_files()) == 4


def test_a_null_under_a_constraint_that_was_never_validated_moves_like_any_other(two_tables):
    with psycopg.connect(two_tables, autocommit=True) as connection:
        connection.execute("INSERT INTO one VALUES (500, '2024-05-01 12:00Z', NULL)")
        connection.execute("ALTER TABLE one ADD CONSTRAINT later NOT NULL v NOT VALID")
    assert run()["public.one"] == ("moved", "")
    assert (hot("one"), total("one")) == (0, 101)
