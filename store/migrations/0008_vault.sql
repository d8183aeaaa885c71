-- What users have put away, sealed: nothing in `value` and `metadata` is readable without a key that is
-- not in this database. An entry of no realm has an empty `realm`. The octets are counted before
-- sealing, and stand before what is large, so that sums read little.
CREATE TABLE vault (
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  realm BYTEA NOT NULL,
  name TEXT NOT NULL,
  value_octets BIGINT NOT NULL,
  metadata_octets BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  metadata BYTEA,
  value BYTEA NOT NULL,
  PRIMARY KEY (owner, realm, name)
);
