-- What SSH needs to know of a container beside its key: whether connections may be forwarded, and when the
-- key was set, which is not known of keys that were set before this.

ALTER TABLE containers ADD COLUMN ssh_forwarding BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE containers ADD COLUMN ssh_key_since_ms BIGINT;
