-- What happened, for whoever follows it. Numbers are gapless in the order of the commits.

CREATE TABLE event_head (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  seq BIGINT NOT NULL
);
INSERT INTO event_head (id, seq) VALUES (1, 0);

CREATE TABLE events (
  seq BIGINT PRIMARY KEY,
  id BYTEA NOT NULL,
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  project BYTEA,
  container BYTEA,
  payload TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  CONSTRAINT event_id UNIQUE (id)
);
CREATE INDEX event_owner ON events (owner, seq);
CREATE INDEX event_at ON events (at_ms);

CREATE TABLE event_realms (
  realm BYTEA NOT NULL,
  event BYTEA NOT NULL REFERENCES events (id) ON DELETE CASCADE,
  PRIMARY KEY (realm, event)
);
CREATE INDEX event_realm_event ON event_realms (event);
