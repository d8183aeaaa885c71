-- What tokens show of themselves to whoever knows their public key. It stands beside the tokens, which are
-- read with every request.
CREATE TABLE token_profiles (
  token BYTEA PRIMARY KEY REFERENCES tokens (id) ON DELETE CASCADE,
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  public_key TEXT UNIQUE,
  octets BIGINT NOT NULL,
  public_storage TEXT
);
CREATE INDEX token_profiles_owner ON token_profiles (owner);
