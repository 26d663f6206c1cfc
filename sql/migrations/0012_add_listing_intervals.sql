-- Which coin an instrument is, and every time that it was listed: one that leaves a venue and comes back has two
-- intervals and no gap between them.
ALTER TABLE market.instruments
    ADD COLUMN coin text,
    ADD COLUMN multiplier bigint CHECK (multiplier >= 1),
    ADD COLUMN listings jsonb,
    ADD COLUMN seen_on date;

CREATE VIEW market.listing_intervals AS
SELECT i.venue, i.symbol,
       CASE WHEN i.listings IS NULL THEN i.listed_from ELSE (l.listing ->> 'from')::timestamptz END AS listed_from,
       CASE WHEN i.listings IS NULL THEN i.listed_to ELSE (l.listing ->> 'to')::timestamptz END AS listed_to
FROM market.instruments i
LEFT JOIN LATERAL jsonb_array_elements(i.listings) AS l (listing) ON true;

COMMENT ON VIEW market.listing_intervals IS
    'one row for each time that an instrument was listed; an open end is NULL';
