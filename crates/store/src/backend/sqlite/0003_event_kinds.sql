-- Events by their kind, so that the newest of some kinds is found without reading those before it.

ALTER TABLE events ADD COLUMN kind TEXT;
UPDATE events SET kind = CASE WHEN json_valid(content) THEN json_extract(content, '$.kind') END;
CREATE INDEX events_kind ON events (service, kind, seq);
