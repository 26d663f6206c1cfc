-- Hot tables are partitioned by time: a read of recent rows opens a few partitions instead of one growing table, and
-- a day moves to the archive by dropping its partition. The partitions live in a schema of their own, so that the
-- others list tables and not thousands of days. There is no default partition: a row outside of all partitions is
-- refused, and the writer makes the partition first.
CREATE SCHEMA hot;
CREATE SCHEMA unpartitioned;

DO $$
DECLARE
    t record;
    key text;
    span_start timestamptz;
    span_end timestamptz;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('market', 'ohlc_1m', 'ts', 'day', 'YYYY_MM_DD'),
            ('market', 'ohlc_5m', 'ts', 'day', 'YYYY_MM_DD'),
            ('market', 'ohlc_15m', 'ts', 'day', 'YYYY_MM_DD'),
            ('market', 'ohlc_1h', 'ts', 'month', 'YYYY_MM'),
            ('market', 'ohlc_4h', 'ts', 'month', 'YYYY_MM'),
            ('market', 'ohlc_1d', 'ts', 'year', 'YYYY'),
            ('onchain', 'whale_balance_snapshots', 'snapshot_timestamp', 'day', 'YYYY_MM_DD')
        ) AS hot_table (schema_name, table_name, time_column, span, label)
    LOOP
        EXECUTE format('ALTER TABLE %I.%I SET SCHEMA unpartitioned', t.schema_name, t.table_name);
        SELECT pg_get_constraintdef(oid) INTO key FROM pg_constraint
        WHERE conrelid = format('unpartitioned.%I', t.table_name)::regclass AND contype = 'p';
        EXECUTE format(
            'CREATE TABLE %I.%I (LIKE unpartitioned.%I INCLUDING CONSTRAINTS) PARTITION BY RANGE (%I)',
            t.schema_name, t.table_name, t.table_name, t.time_column);
        EXECUTE format('ALTER TABLE %I.%I ADD %s', t.schema_name, t.table_name, key);
        FOR span_start IN EXECUTE format(
            'SELECT DISTINCT date_trunc(%L, %I, ''UTC'') FROM unpartitioned.%I', t.span, t.time_column, t.table_name)
        LOOP
            span_end := (span_start AT TIME ZONE 'UTC' + ('1 ' || t.span)::interval) AT TIME ZONE 'UTC';
            EXECUTE format(
                'CREATE TABLE hot.%I PARTITION OF %I.%I FOR VALUES FROM (%L) TO (%L)',
                format('%s_%s_%s', t.schema_name, t.table_name, to_char(span_start AT TIME ZONE 'UTC', t.label)),
                t.schema_name, t.table_name, span_start, span_end);
        END LOOP;
        EXECUTE format(
            'INSERT INTO %I.%I SELECT * FROM unpartitioned.%I', t.schema_name, t.table_name, t.table_name);
        EXECUTE format('DROP TABLE unpartitioned.%I', t.table_name);
    END LOOP;
END $$;

DROP SCHEMA unpartitioned;

-- A snapshot is read by hour, a 24th of its partition, and the key begins with the address.
CREATE INDEX whale_balance_snapshots_by_hour ON onchain.whale_balance_snapshots (snapshot_timestamp);
