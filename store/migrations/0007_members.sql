-- What users may do with projects that are not theirs.

CREATE TABLE project_members (
  id BYTEA PRIMARY KEY,
  project BYTEA NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  member BYTEA NOT NULL REFERENCES users (id),
  level TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  CONSTRAINT project_member UNIQUE (project, member)
);
CREATE INDEX project_member_member ON project_members (member, project);

-- Members see snapshots by their project.
CREATE INDEX snapshot_project ON snapshots (project);

-- Where a label was freed: members of that project may have it back, not those of another one. Old notes
-- do not say.
ALTER TABLE freed_aliases ADD COLUMN project BYTEA;
