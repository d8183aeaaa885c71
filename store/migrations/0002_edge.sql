-- What owners set about the requests to their containers: who may pass, hooks, settings, aliases and
-- custom hostnames.

-- Permission documents. A removed one leaves its row, so that no version is used twice.
CREATE TABLE project_access (
  project BYTEA PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL
);

CREATE TABLE container_access (
  container BYTEA PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL
);

CREATE TABLE edge_settings (
  container BYTEA PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL
);

-- A label is unique in the whole store, which is more than one server and more than one account.
CREATE TABLE aliases (
  id BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL REFERENCES users (id),
  project BYTEA NOT NULL REFERENCES projects (id),
  container BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  server BYTEA NOT NULL REFERENCES servers (id),
  label TEXT NOT NULL,
  enabled BOOLEAN NOT NULL,
  expires_at_ms BIGINT,
  clear_site_data BOOLEAN NOT NULL,
  version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL,
  CONSTRAINT alias_label UNIQUE (label)
);
CREATE INDEX alias_container ON aliases (container);
CREATE INDEX alias_owner ON aliases (owner, created_at_ms, id);
CREATE INDEX alias_project ON aliases (project);

-- Labels that nobody has now, and who had them last.
CREATE TABLE freed_aliases (
  label TEXT PRIMARY KEY,
  owner BYTEA NOT NULL,
  container BYTEA NOT NULL,
  freed_at_ms BIGINT NOT NULL
);
CREATE INDEX freed_alias_owner ON freed_aliases (owner, freed_at_ms);

CREATE TABLE hostnames (
  name TEXT PRIMARY KEY,
  alias BYTEA NOT NULL REFERENCES aliases (id) ON DELETE CASCADE,
  container BYTEA NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
  proof TEXT NOT NULL,
  is_proven BOOLEAN NOT NULL,
  checked_at_ms BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL
);
CREATE INDEX hostname_alias ON hostnames (alias);
CREATE INDEX hostname_container ON hostnames (container, created_at_ms);
