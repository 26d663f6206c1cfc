-- Which database this is, so that a lake is swept by one deployment only.
CREATE TABLE archive.deployment (
    deployment_id text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    is_this boolean NOT NULL DEFAULT true UNIQUE CHECK (is_this)
);
INSERT INTO archive.deployment DEFAULT VALUES;
