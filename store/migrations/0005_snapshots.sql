-- Snapshots, and where the files of a container come from.

-- The container that one is a copy of, and what its files are to be taken from before its next start.
ALTER TABLE containers ADD COLUMN source BYTEA;
ALTER TABLE containers ADD COLUMN fill TEXT;

-- Nothing here refers to a container or a project: a snapshot outlives both. What a runtime keeps has
-- the id in `data`, which several snapshots share when a container was copied with them.
CREATE TABLE snapshots (
  id BYTEA PRIMARY KEY,
  data BYTEA NOT NULL,
  container BYTEA NOT NULL,
  project BYTEA NOT NULL,
  owner BYTEA NOT NULL REFERENCES users (id),
  server BYTEA NOT NULL REFERENCES servers (id),
  name TEXT NOT NULL,
  alias TEXT,
  is_ready BOOLEAN NOT NULL,
  bytes BIGINT NOT NULL,
  expires_at_ms BIGINT,
  last_used_at_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL,
  CONSTRAINT snapshot_name UNIQUE (container, name)
);
CREATE INDEX snapshot_owner ON snapshots (owner, created_at_ms, id);
CREATE INDEX snapshot_data ON snapshots (data);
CREATE INDEX snapshot_end ON snapshots (expires_at_ms);

CREATE TABLE snapshot_realms (
  realm BYTEA NOT NULL,
  snapshot BYTEA NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  PRIMARY KEY (realm, snapshot)
);
CREATE INDEX snapshot_realm_snapshot ON snapshot_realms (snapshot);

-- What runtimes still keep of snapshots that are gone.
CREATE TABLE discarded_snapshots (
  data BYTEA PRIMARY KEY,
  server BYTEA NOT NULL
);
