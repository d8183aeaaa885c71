-- The firewall rules of containers; those that never had any have no row.

CREATE TABLE firewalls (
  container BYTEA PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  doc TEXT NOT NULL
);
