-- A part may stop being live without a successor: its rows went back to Postgres, or cold retention let them go.
ALTER TABLE archive.batches DROP CONSTRAINT batches_state_check;
ALTER TABLE archive.batches
    ADD CONSTRAINT batches_state_check CHECK (state IN ('live', 'superseded', 'retired'));

-- When a part stopped being live. Its file stays for a day from then on, for readers that had looked it up before.
ALTER TABLE archive.batches ADD COLUMN ended_at timestamptz;
UPDATE archive.batches b SET ended_at = successor.created_at
    FROM archive.batches successor WHERE successor.batch_id = b.superseded_by;
ALTER TABLE archive.batches
    ADD CONSTRAINT batches_ended_at_check CHECK ((state = 'live') = (ended_at IS NULL));

-- Days that the archive leaves alone for a while, because somebody has just restored them.
CREATE TABLE archive.holds (
    table_name text NOT NULL,
    data_day date NOT NULL,
    held_until timestamptz NOT NULL,
    reason text NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (table_name, data_day)
);
