-- What TLS shows, how it came, and what keeps several edges from doing the same.
CREATE TABLE certificates (
  name TEXT PRIMARY KEY,
  hostnames TEXT NOT NULL,
  chain TEXT,
  key_sealed BYTEA,
  serial TEXT,
  directory TEXT,
  not_before_ms BIGINT,
  not_after_ms BIGINT,
  due_at_ms BIGINT NOT NULL,
  asked_at_ms BIGINT,
  attempts BIGINT NOT NULL,
  error TEXT,
  error_at_ms BIGINT,
  version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL
);
-- Orders under way, written before they are placed. A finished one stays until its records are gone.
CREATE TABLE acme_orders (
  certificate TEXT PRIMARY KEY,
  directory TEXT NOT NULL,
  hostnames TEXT NOT NULL,
  url TEXT,
  key_sealed BYTEA NOT NULL,
  records TEXT NOT NULL,
  is_over BOOLEAN NOT NULL,
  created_at_ms BIGINT NOT NULL
);
CREATE TABLE acme_accounts (
  directory TEXT PRIMARY KEY,
  credentials_sealed BYTEA NOT NULL,
  created_at_ms BIGINT NOT NULL
);
-- Answers to HTTP-01 and TLS-ALPN-01, which any edge may be asked for.
CREATE TABLE acme_challenges (
  hostname TEXT NOT NULL,
  kind TEXT NOT NULL,
  token TEXT NOT NULL,
  key_authorization TEXT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  PRIMARY KEY (hostname, kind)
);
-- What was asked of a CA, for as long as its limits look back.
CREATE TABLE acme_uses (
  directory TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX acme_uses_of ON acme_uses (directory, kind, subject, at_ms);
CREATE TABLE leases (
  name TEXT PRIMARY KEY,
  holder BYTEA NOT NULL,
  fence BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL
);
-- Keys of session tickets, shared by all edges and by what follows this process.
CREATE TABLE ticket_keys (
  id BYTEA PRIMARY KEY,
  key_sealed BYTEA NOT NULL,
  created_at_ms BIGINT NOT NULL
);
-- Grows by one with each write to the tables above that an edge has to know of.
CREATE TABLE certificate_changes (
  one BIGINT PRIMARY KEY,
  version BIGINT NOT NULL
);
INSERT INTO certificate_changes (one, version) VALUES (1, 0)
