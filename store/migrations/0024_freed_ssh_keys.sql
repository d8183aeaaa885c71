-- SSH keys that containers have given back, for as long as an edge may not have heard of that.

CREATE TABLE freed_ssh_keys (
  fingerprint BYTEA PRIMARY KEY,
  owner BYTEA NOT NULL,
  freed_at_ms BIGINT NOT NULL
);
CREATE INDEX freed_ssh_keys_at ON freed_ssh_keys (freed_at_ms);
