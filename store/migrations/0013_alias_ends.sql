-- What was told of an alias' end: 0 for nothing yet, 1 that it comes soon, 2 that it has come.

ALTER TABLE aliases ADD COLUMN end_told BIGINT NOT NULL DEFAULT 0;
CREATE INDEX alias_end ON aliases (expires_at_ms) WHERE end_told < 2;
