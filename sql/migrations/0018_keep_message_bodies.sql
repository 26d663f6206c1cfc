-- A message that a channel refused is sent again whole, by whatever process comes by next.
ALTER TABLE operations.deliveries ADD COLUMN body text NOT NULL DEFAULT '';
