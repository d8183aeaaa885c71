-- How far the environment variables of a container have come: which change of them it is at, which one the
-- container has had, and why the last attempt failed.

ALTER TABLE containers ADD COLUMN env_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN env_applied BIGINT;
ALTER TABLE containers ADD COLUMN env_verified_at_ms BIGINT;
ALTER TABLE containers ADD COLUMN env_attempted_at_ms BIGINT;
ALTER TABLE containers ADD COLUMN env_error TEXT;
