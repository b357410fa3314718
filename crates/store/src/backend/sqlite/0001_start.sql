-- Numbers are BIGINT, values are JSON in TEXT; times are milliseconds since the epoch.

CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);

-- generation, route_revision, event_seq, audit_seq, journal_seq, max_time
CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters (name, value) VALUES
    ('generation', 0), ('route_revision', 0), ('event_seq', 0), ('audit_seq', 0), ('journal_seq', 0), ('max_time', 0);

CREATE TABLE leader_term (scope TEXT NOT NULL PRIMARY KEY, term BIGINT NOT NULL, holder TEXT NOT NULL);

-- A row without a service is a tombstone: its counters outlive the service, so that no id comes twice.
CREATE TABLE services (
    key TEXT NOT NULL PRIMARY KEY,
    intent_seq BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    plan_seq BIGINT NOT NULL,
    next_incarnation BIGINT NOT NULL,
    next_deployment BIGINT NOT NULL,
    service TEXT,
    plan TEXT
);

CREATE TABLE releases (
    service TEXT NOT NULL,
    digest TEXT NOT NULL,
    artifact TEXT,
    content TEXT NOT NULL,
    PRIMARY KEY (service, digest)
);
CREATE INDEX releases_artifact ON releases (artifact) WHERE artifact IS NOT NULL;

-- standing: open, active, ended. was_active: 1 once it has been active. intended: 0 for a restoration.
CREATE TABLE deployments (
    id TEXT NOT NULL PRIMARY KEY,
    service TEXT NOT NULL,
    number BIGINT NOT NULL,
    release TEXT NOT NULL,
    phase TEXT NOT NULL,
    standing TEXT NOT NULL,
    was_active BIGINT NOT NULL,
    intended BIGINT NOT NULL,
    content TEXT NOT NULL
);
CREATE UNIQUE INDEX deployments_number ON deployments (service, number);
CREATE UNIQUE INDEX deployments_one_open ON deployments (service) WHERE standing = 'open';
CREATE UNIQUE INDEX deployments_one_active ON deployments (service) WHERE standing = 'active';
CREATE INDEX deployments_was_active ON deployments (service, was_active, number);
CREATE INDEX deployments_intended ON deployments (service, intended, number);

CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    service TEXT,
    content TEXT NOT NULL
);
CREATE INDEX events_service ON events (service, seq);

CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    at BIGINT NOT NULL,
    body_digest TEXT NOT NULL,
    status BIGINT NOT NULL,
    response TEXT NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE journal (
    seq BIGINT NOT NULL PRIMARY KEY,
    service TEXT NOT NULL,
    at BIGINT NOT NULL,
    world TEXT NOT NULL,
    decision TEXT,
    report TEXT NOT NULL
);
CREATE INDEX journal_service ON journal (service, seq);
CREATE INDEX journal_world ON journal (world);

-- Compressed with zstd.
CREATE TABLE worlds (digest TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL);

CREATE TABLE artifacts (digest TEXT NOT NULL PRIMARY KEY, at BIGINT NOT NULL, content TEXT NOT NULL);
