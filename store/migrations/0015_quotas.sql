-- How much single accounts may have, where that is not what all may; and what proves, beside a password,
-- that somebody is who logs in.

CREATE TABLE account_limits (
  owner BYTEA PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  containers BIGINT,
  running_containers BIGINT,
  projects BIGINT
);

-- The secret of an authenticator app, sealed; good once its owner has shown a code of it. `last_step` is that of
-- the newest code that was taken: none is taken twice.
CREATE TABLE second_factors (
  owner BYTEA PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
  secret BYTEA NOT NULL,
  enabled_at_ms BIGINT,
  gates_tokens BOOLEAN NOT NULL,
  last_step BIGINT NOT NULL,
  failures BIGINT NOT NULL,
  locked_until_ms BIGINT NOT NULL
);

-- Each is good once, in place of a code.
CREATE TABLE backup_codes (
  owner BYTEA NOT NULL REFERENCES second_factors (owner) ON DELETE CASCADE,
  hash BYTEA NOT NULL,
  PRIMARY KEY (owner, hash)
);

-- What its clients have shown to a user already.
CREATE TABLE onboarding (
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  milestone TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (owner, milestone)
);
