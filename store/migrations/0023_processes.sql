-- Which process has a request with an idempotency key under way, so that others can free the keys of one that
-- has gone; and the oldest schema whose programs can go on after a migration, which is not known of those before
-- this.

ALTER TABLE idempotency ADD COLUMN process BYTEA;
ALTER TABLE migrations ADD COLUMN usable_from BIGINT;
