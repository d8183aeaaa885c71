-- Of aliases that ended before anybody was told of such ends it is not told any more: the first look after this
-- finds those that have not been told of and passes over the ones that have ended.

UPDATE aliases SET end_told = -1 WHERE end_told = 0;
CREATE INDEX alias_unlooked ON aliases (id) WHERE end_told < 0;
