-- Directories of containers that other containers see. Whose they are is that of the source.

CREATE TABLE shares (
  id BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL REFERENCES users (id),
  project BYTEA NOT NULL REFERENCES projects (id),
  source BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  source_path TEXT NOT NULL,
  target_container BYTEA REFERENCES containers (id) ON DELETE CASCADE,
  target_project BYTEA REFERENCES projects (id) ON DELETE CASCADE,
  mode TEXT NOT NULL,
  alias TEXT,
  label TEXT,
  description TEXT,
  enabled BOOLEAN NOT NULL,
  expires_at_ms BIGINT,
  expiry_notified BOOLEAN NOT NULL,
  created_by BYTEA NOT NULL REFERENCES users (id),
  version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  CHECK ((target_container IS NULL) <> (target_project IS NULL))
);
CREATE INDEX share_source ON shares (source, created_at_ms, id);
CREATE INDEX share_owner ON shares (owner, created_at_ms, id);
CREATE INDEX share_project ON shares (project);
CREATE INDEX share_target_container ON shares (target_container);
CREATE INDEX share_target_project ON shares (target_project);
CREATE INDEX share_creator ON shares (created_by);
CREATE INDEX share_expiry ON shares (expires_at_ms);

-- How a share stands with one container that it reaches: what that side has said of it (where `id` is
-- set), and why it is not there.
CREATE TABLE share_mounts (
  share BYTEA NOT NULL REFERENCES shares (id) ON DELETE CASCADE,
  container BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  id BYTEA,
  is_wanted BOOLEAN NOT NULL,
  failure TEXT,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  PRIMARY KEY (share, container)
);
CREATE INDEX share_mount_container ON share_mounts (container);
