-- Views of recent bars. They answer from the rows as they are, and open only the partitions that can hold an answer.

-- A moment before the one at which a statement is planned. It is not immutable; it says so because the planner then computes it and
-- leaves old partitions out of the plan, where now() would have all of them planned first: 15 ms for 155 of them. A
-- plan that is kept is then too generous, never too narrow, so a condition on now() always stands beside this one.
CREATE FUNCTION hot.before_planning(distance interval) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN clock_timestamp() - distance;

DO $$
DECLARE
    timeframe text;
    bar_columns constant text := 'open, high, low, close, volume, vwap, trades, n_src, source, revision, run_id,'
        ' fetched_at, available_at';
    today text[];
    recent text[];
    latest text[];
BEGIN
    FOREACH timeframe IN ARRAY ARRAY['1m', '5m', '15m', '1h', '4h', '1d'] LOOP
        -- A day more than is asked for, in case the clock was set back since the statement was planned.
        today := today || format(
            'SELECT venue, symbol, %L::text AS timeframe, ts, %s FROM market.%I'
            ' WHERE ts >= hot.before_planning(''2 days'') AND ts >= now() - interval ''24 hours''',
            timeframe, bar_columns, 'ohlc_' || timeframe);
        recent := recent || format(
            'SELECT venue, symbol, %L::text AS timeframe, ts, %s FROM market.%I'
            ' WHERE ts >= hot.before_planning(''8 days'') AND ts >= now() - interval ''7 days''',
            timeframe, bar_columns, 'ohlc_' || timeframe);

        -- For an instrument whose newest bar is old. The plan over all partitions is made once a session and only
        -- where it is needed.
        EXECUTE format(
            'CREATE FUNCTION hot.%1$I(wanted_venue text, wanted_symbol text) RETURNS SETOF market.%2$I'
            ' LANGUAGE plpgsql STABLE ROWS 1 AS $function$ BEGIN RETURN QUERY SELECT * FROM market.%2$I b'
            ' WHERE b.venue = wanted_venue AND b.symbol = wanted_symbol ORDER BY b.ts DESC LIMIT 1; END $function$',
            'newest_' || timeframe, 'ohlc_' || timeframe);
        latest := latest || format(
            'SELECT i.venue, i.symbol, %1$L::text AS timeframe, b.ts, %2$s FROM market.instruments i'
            ' CROSS JOIN LATERAL (SELECT * FROM market.%3$I b WHERE b.venue = i.venue AND b.symbol = i.symbol'
            ' AND b.ts >= hot.before_planning(''2 days'') ORDER BY b.ts DESC LIMIT 1) b'
            ' UNION ALL SELECT i.venue, i.symbol, %1$L::text, b.ts, %2$s FROM market.instruments i'
            ' CROSS JOIN LATERAL hot.%4$I(i.venue, i.symbol) b'
            ' WHERE NOT EXISTS (SELECT FROM market.%3$I n WHERE n.venue = i.venue AND n.symbol = i.symbol'
            ' AND n.ts >= hot.before_planning(''2 days''))',
            timeframe, bar_columns, 'ohlc_' || timeframe, 'newest_' || timeframe);
    END LOOP;
    EXECUTE 'CREATE VIEW market.ohlc_today AS ' || array_to_string(today, ' UNION ALL ');
    EXECUTE 'CREATE VIEW market.ohlc_recent AS ' || array_to_string(recent, ' UNION ALL ');
    EXECUTE 'CREATE VIEW market.latest_bars AS ' || array_to_string(latest, ' UNION ALL ');
END $$;

COMMENT ON VIEW market.ohlc_today IS 'bars of all timeframes that opened in the last 24 hours';
COMMENT ON VIEW market.ohlc_recent IS 'bars of all timeframes that opened in the last 7 days';
COMMENT ON VIEW market.latest_bars IS 'the newest hot bar of every instrument and timeframe, however old it is';
