-- Containers that wait in their owner's warm pool until a creation claims them.

ALTER TABLE containers ADD COLUMN prespawn BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX container_pool ON containers (owner, created_at_ms, id) WHERE prespawn;
