-- What people make of images; the images themselves are the runtime's, and an id derives from a name. Rows
-- of images that are not offered now wait until they are again.
CREATE TABLE images_seen (
  image BYTEA NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  first_seen_at_ms BIGINT NOT NULL
);
CREATE TABLE image_imports (
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  image BYTEA NOT NULL,
  imported_at_ms BIGINT NOT NULL,
  PRIMARY KEY (owner, image)
);
-- A user's ratings go with the user.
CREATE TABLE image_ratings (
  image BYTEA NOT NULL,
  owner BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  rating BIGINT NOT NULL,
  rated_at_ms BIGINT NOT NULL,
  PRIMARY KEY (image, owner)
);
CREATE INDEX image_ratings_by_owner ON image_ratings (owner);
