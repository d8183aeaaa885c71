-- Certificates that an operator has had revoked: from then on shown by no process that knows of them, whether or not the CA has heard yet.
CREATE TABLE certificate_revocations (
  directory TEXT NOT NULL,
  serial TEXT NOT NULL,
  certificate TEXT NOT NULL,
  chain TEXT NOT NULL,
  reason BIGINT NOT NULL,
  not_after_ms BIGINT NOT NULL,
  asked_at_ms BIGINT NOT NULL,
  done_at_ms BIGINT,
  attempts BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  error TEXT,
  PRIMARY KEY (directory, serial)
)
