-- Rows that come late for an archived day are another part of it. Of a table whose rows are corrected, no key stands in
-- two live parts: the move sees to that.
DROP INDEX archive.batches_live_day;
CREATE INDEX batches_live ON archive.batches (table_name, data_day) WHERE state = 'live';

-- For each column of the file, the number of its values and the sum of their hashes, as Postgres computed them.
ALTER TABLE archive.batches ADD COLUMN column_hashes jsonb NOT NULL DEFAULT '{}';
-- What the rows took in the table, about.
ALTER TABLE archive.batches ADD COLUMN table_bytes bigint;
