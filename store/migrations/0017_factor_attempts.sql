-- Attempts with codes of a second factor, counted apart for who has shown the password besides and for who has
-- a session only: the one never locks the other out.
CREATE TABLE factor_attempts (
  owner BYTEA NOT NULL REFERENCES second_factors (owner) ON DELETE CASCADE,
  door TEXT NOT NULL,
  failures BIGINT NOT NULL,
  -- How often it was locked since the last code that was right.
  lockouts BIGINT NOT NULL,
  locked_until_ms BIGINT NOT NULL,
  PRIMARY KEY (owner, door)
);
INSERT INTO factor_attempts (owner, door, failures, lockouts, locked_until_ms)
  SELECT owner, 'password', failures, CASE WHEN locked_until_ms > 0 THEN 1 ELSE 0 END, locked_until_ms
  FROM second_factors;
ALTER TABLE second_factors DROP COLUMN failures;
ALTER TABLE second_factors DROP COLUMN locked_until_ms;
