-- The sealed key of a certificate that is to be revoked, until the CA has heard it: the key may sign for that where the account may not.
ALTER TABLE certificate_revocations ADD COLUMN key_sealed BYTEA;
