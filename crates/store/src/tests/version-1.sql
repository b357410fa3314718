-- What the first version of the schema holds after a short life: one service with an active deployment, its plan and
-- release, events, audit, journal, an answer that was kept, an artifact. As it was written then; never written anew.

INSERT INTO meta (name, value) VALUES
    ('cluster_id', '87e5749457d20e82702bf85cbc879592');
INSERT INTO meta (name, value) VALUES
    ('audit_head', 'sha256:7c2a77ce615c1f3163f109581af3da46db0bbf77e3556bb43cf487903b31c696');
DELETE FROM counters;
INSERT INTO counters (name, value) VALUES
    ('generation', 1);
INSERT INTO counters (name, value) VALUES
    ('route_revision', 0);
INSERT INTO counters (name, value) VALUES
    ('event_seq', 2);
INSERT INTO counters (name, value) VALUES
    ('audit_seq', 2);
INSERT INTO counters (name, value) VALUES
    ('journal_seq', 1);
INSERT INTO counters (name, value) VALUES
    ('max_time', 1000001);
INSERT INTO leader_term (scope, term, holder) VALUES
    ('cluster', 1, 'a');
INSERT INTO services (key, intent_seq, generation, plan_seq, next_incarnation, next_deployment, service, plan) VALUES
    ('default/api', 1, 1, 1, 1, 2, '{"key":"default/api","generation":1,"intent_seq":1,"owner":"api","spec":{"workload":{"kind":"process","command":["./app-1"],"workdir":null,"user":null},"replicas":1,"domains":[],"env":{},"files":{},"port":null,"health":{"startup":null,"readiness":null,"liveness":null,"assumed":false},"restart":{"backoff":"1s","max_backoff":"1m","attempts":5,"window":"10m"},"stop":{"signal":"SIGTERM","grace":"10s"},"deploy":{"strategy":"rolling","order":"start-first","parallelism":1,"min_healthy":"2s","deadline":"10m","drain":"10s","on_failure":"rollback"},"drift":{"mode":"correct","ignore":[]},"resources":{"memory":null,"millicpus":null},"retain":2},"target":"sha256:de788724e408e4225eab0651319fff8e170e1a49c2e3c16eb29f38518c2327ec","scale":null,"stopped":false,"restart_epoch":0,"deleted":null,"created_at":1000000,"updated_at":1000000}', '{"seq":1,"generation":0,"placements":{"default.api.0.0":{"id":"default.api.0.0","node":"local","release":"sha256:de788724e408e4225eab0651319fff8e170e1a49c2e3c16eb29f38518c2327ec","deployment":"utoewspmafzo","restart_epoch":0,"created_at":1000000,"stage":"run","attempts":{"at":[],"fast_crashes":0,"total":0}}},"route":null,"current":null,"next_incarnation":1,"rollout":{"progress":1,"progressed_at":1000000,"held_since":null}}');
INSERT INTO releases (service, digest, artifact, content) VALUES
    ('default/api', 'sha256:de788724e408e4225eab0651319fff8e170e1a49c2e3c16eb29f38518c2327ec', NULL, '{"workload":{"kind":"process","command":["./app-1"],"workdir":null,"user":null},"domains":[],"env":{},"files":{},"port":null,"health":{"startup":null,"readiness":null,"liveness":null,"assumed":false},"stop":{"signal":"SIGTERM","grace":"10s"},"resources":{"memory":null,"millicpus":null}}');
INSERT INTO deployments (id, service, number, release, phase, standing, was_active, intended, content) VALUES
    ('utoewspmafzo', 'default/api', 1, 'sha256:de788724e408e4225eab0651319fff8e170e1a49c2e3c16eb29f38518c2327ec', 'active', 'active', 1, 1, '{"id":"utoewspmafzo","service":"default/api","number":1,"release":"sha256:de788724e408e4225eab0651319fff8e170e1a49c2e3c16eb29f38518c2327ec","previous":null,"cause":"apply","phase":"active","started_at":1000000,"phase_updated_at":1000000,"ended_at":null,"message":"","metadata":{}}');
INSERT INTO events (seq, at, service, content) VALUES
    (1, 1000000, 'default/api', '{"kind":"service.applied","service":"default/api","instance":null,"deployment":null,"message":"applied"}');
INSERT INTO events (seq, at, service, content) VALUES
    (2, 1000000, 'default/api', '{"kind":"service.applied","service":"default/api","instance":null,"deployment":null,"message":"queued"}');
INSERT INTO audit (seq, at, actor, action, subject, detail, prev, hash) VALUES
    (1, 1000000, 'admin', 'apply', 'default/api', '{"a":[true,null],"b":1}', 'sha256:0000000000000000000000000000000000000000000000000000000000000000', 'sha256:a09790413153459564d967ae958d9e9e440609f7135436b7f075d87eb157ae86');
INSERT INTO audit (seq, at, actor, action, subject, detail, prev, hash) VALUES
    (2, 1000000, 'admin', 'scale', 'default/api', '{"a":[true,null],"b":1}', 'sha256:a09790413153459564d967ae958d9e9e440609f7135436b7f075d87eb157ae86', 'sha256:7c2a77ce615c1f3163f109581af3da46db0bbf77e3556bb43cf487903b31c696');
INSERT INTO idempotency (scope, key, at, body_digest, status, response) VALUES
    ('admin', 'k1', 1000000, 'sha256:230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5', 200, '{}');
INSERT INTO journal (seq, service, at, world, decision, report) VALUES
    (1, 'default/api', 1000000, 'sha256:486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7', '{"key":"default/api","parent":{"intent":0,"plan":0},"plan":{"seq":0,"generation":0,"placements":{},"route":null,"current":null,"next_incarnation":0,"rollout":{"progress":0,"progressed_at":0,"held_since":null}},"service":null,"deployments":[],"events":[{"kind":"service.applied","service":"default/api","instance":null,"deployment":null,"message":"planned"}],"purge":false}', '{"classify":{"changed":[],"waiting":[]},"lost":{"changed":[],"waiting":[]},"drift":{"changed":[],"waiting":[]},"rollout":{"changed":[],"waiting":[]},"place":{"changed":[],"waiting":[]},"routes":{"changed":[],"waiting":[]},"retire":{"changed":[],"waiting":[]},"holds_until":1000000}');
INSERT INTO worlds (digest, content) VALUES
    ('sha256:486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7', x'28b52ffd2005290000776f726c64');
INSERT INTO artifacts (digest, at, content) VALUES
    ('sha256:0e6bfcb0a418227a5ac83978f3a576bd741e92bd935557210e97d71de99adcbe', 1000000, '{"files":{"index.html":{"digest":"sha256:f839161355091fcd9e33f571e0b11c60217a5009f9973e769c13d7858db162cc","size":4}}}');
