-- Snapshots whose data are still to be fetched from another server.

ALTER TABLE snapshots ADD COLUMN origin BYTEA;
CREATE INDEX snapshot_origin ON snapshots (origin);
