-- What operators say about nodes, and the tokens that were given out. A token itself is never stored.

CREATE TABLE nodes (id TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL);

CREATE TABLE tokens (name TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL, content TEXT NOT NULL);
CREATE UNIQUE INDEX tokens_digest ON tokens (digest);
