-- What users say about themselves, and what was written through the API.

CREATE TABLE profiles (
  owner BYTEA PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  alias TEXT,
  public_key TEXT,
  metadata TEXT NOT NULL
);

-- One row for each request that was no read, after its answer. `security` marks those about
-- passwords, sessions and tokens.
CREATE TABLE activity (
  id BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  token BYTEA,
  realm BYTEA,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  status BIGINT NOT NULL,
  ip TEXT,
  user_agent TEXT,
  security BIGINT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX activity_owner ON activity (owner, at_ms, id);
CREATE INDEX activity_at ON activity (at_ms);
