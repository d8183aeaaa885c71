-- The first schema. Written for PostgreSQL; each engine substitutes its own type names.
-- Ids are 12 octets, times are milliseconds since the Unix epoch in UTC, documents are JSON that
-- carries the number of its own schema. Columns beside a document exist for constraints, filters,
-- sorting and routing only.

-- Facts about this store as a whole.
CREATE TABLE cell (
  k TEXT PRIMARY KEY,
  v BYTEA NOT NULL
);

-- The counter that revisions come from: one row, updated last in each transaction, so that
-- revisions are gapless and in the order of the commits.
CREATE TABLE feed (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  rev BIGINT NOT NULL
);
INSERT INTO feed (id, rev) VALUES (1, 0);

CREATE TABLE changes (
  rev BIGINT PRIMARY KEY,
  container BYTEA NOT NULL,
  at_ms BIGINT NOT NULL
);

CREATE TABLE secrets (
  name TEXT PRIMARY KEY,
  value BYTEA NOT NULL
);

CREATE TABLE servers (
  id BYTEA PRIMARY KEY,
  name TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  CONSTRAINT server_name UNIQUE (name)
);

CREATE TABLE users (
  id BYTEA PRIMARY KEY,
  username TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  is_admin BOOLEAN NOT NULL,
  session_generation BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  CONSTRAINT user_name UNIQUE (username)
);

CREATE TABLE tokens (
  id BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL REFERENCES users (id),
  hash BYTEA NOT NULL,
  enabled BOOLEAN NOT NULL,
  expires_at_ms BIGINT,
  last_used_at_ms BIGINT,
  last_used_ip TEXT,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL,
  CONSTRAINT token_hash UNIQUE (hash)
);
CREATE INDEX token_owner ON tokens (owner, created_at_ms, id);

CREATE TABLE projects (
  id BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL REFERENCES users (id),
  alias TEXT NOT NULL,
  max_containers BIGINT,
  version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL,
  CONSTRAINT project_alias UNIQUE (owner, alias)
);

CREATE TABLE project_realms (
  realm BYTEA NOT NULL,
  project BYTEA NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  PRIMARY KEY (realm, project)
);
CREATE INDEX project_realm_project ON project_realms (project);

CREATE TABLE containers (
  id BYTEA PRIMARY KEY,
  project BYTEA NOT NULL REFERENCES projects (id),
  owner BYTEA NOT NULL REFERENCES users (id),
  server BYTEA NOT NULL REFERENCES servers (id),
  name TEXT NOT NULL,
  key_fingerprint BYTEA,
  hoody_kit BOOLEAN NOT NULL,
  wish TEXT NOT NULL,
  wish_seq BIGINT NOT NULL,
  phase TEXT NOT NULL,
  address TEXT,
  generation BIGINT NOT NULL,
  why TEXT,
  done_seq BIGINT NOT NULL,
  started_at_ms BIGINT,
  boot_id TEXT,
  version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL,
  CONSTRAINT container_name UNIQUE (project, name),
  CONSTRAINT container_key UNIQUE (key_fingerprint)
);
CREATE INDEX container_project ON containers (project, created_at_ms, id);
CREATE INDEX container_owner ON containers (owner, created_at_ms, id);
CREATE INDEX container_server ON containers (server, id);

CREATE TABLE container_realms (
  realm BYTEA NOT NULL,
  container BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  PRIMARY KEY (realm, container)
);
CREATE INDEX container_realm_container ON container_realms (container);

-- The version is that of the container's change that caused the entry: it orders entries of one
-- millisecond.
CREATE TABLE status_logs (
  container BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  id BYTEA NOT NULL,
  from_phase TEXT,
  to_phase TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  duration_ms BIGINT,
  triggered_by TEXT NOT NULL,
  note TEXT,
  PRIMARY KEY (container, version)
);

-- A request with an idempotency key; without status while it is under way.
CREATE TABLE idempotency (
  scope TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  body_hash BYTEA NOT NULL,
  at_ms BIGINT NOT NULL,
  status BIGINT,
  body BYTEA,
  PRIMARY KEY (scope, idempotency_key)
);
CREATE INDEX idempotency_at ON idempotency (at_ms);
