-- A message that a channel refused is sent again whole, by whatever process comes by next. NULL where none was sent.
ALTER TABLE operations.deliveries ADD COLUMN body text;
