-- The outbound networks of containers; those that never had one have no row. The version goes on rising
-- when it is taken away (`doc` is null then), so that what is in force is never taken for newer.
-- `credentials` are sealed: nothing in them is readable without a key that is not in this database.
CREATE TABLE outbound_networks (
  container BYTEA PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  configured_at_ms BIGINT NOT NULL,
  doc TEXT,
  credentials BYTEA
);
