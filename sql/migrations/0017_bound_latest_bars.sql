-- The newest bar is looked for among partitions that have begun. Those made ahead are empty, and stood first in the
-- search for every instrument: the condition on now() drops them when the statement begins to run.
DO $$
DECLARE
    timeframe text;
    bar_columns constant text := 'open, high, low, close, volume, vwap, trades, n_src, source, revision, run_id,'
        ' fetched_at, available_at';
    latest text[];
BEGIN
    FOREACH timeframe IN ARRAY ARRAY['1m', '5m', '15m', '1h', '4h', '1d'] LOOP
        latest := latest || format(
            'SELECT i.venue, i.symbol, %1$L::text AS timeframe, b.ts, %2$s FROM market.instruments i'
            ' CROSS JOIN LATERAL (SELECT * FROM market.%3$I b WHERE b.venue = i.venue AND b.symbol = i.symbol'
            ' AND b.ts >= hot.before_planning(''2 days'') AND b.ts < now() + interval ''1 hour'''
            ' ORDER BY b.ts DESC LIMIT 1) b'
            ' UNION ALL SELECT i.venue, i.symbol, %1$L::text, b.ts, %2$s FROM market.instruments i'
            ' CROSS JOIN LATERAL hot.%4$I(i.venue, i.symbol) b'
            ' WHERE NOT EXISTS (SELECT FROM market.%3$I n WHERE n.venue = i.venue AND n.symbol = i.symbol'
            ' AND n.ts >= hot.before_planning(''2 days'') AND n.ts < now() + interval ''1 hour'')',
            timeframe, bar_columns, 'ohlc_' || timeframe, 'newest_' || timeframe);
    END LOOP;
    EXECUTE 'CREATE OR REPLACE VIEW market.latest_bars AS ' || array_to_string(latest, ' UNION ALL ');
END $$;
