-- A store of schema 1 (release 0.1) in SQLite, as dumped then. See test_migrations; never to be made anew.
BEGIN TRANSACTION;
CREATE TABLE event (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, study_id INTEGER NOT NULL, at DOUBLE NOT NULL, kind TEXT NOT NULL,
            trial INTEGER, attempt INTEGER, payload TEXT NOT NULL, FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE);
INSERT INTO "event" VALUES(1,1,1800000000.0,'created',NULL,NULL,'{"hash":"7344d1da867fb0faafb427a4f8337ae7bc268f320319ce8bf55b4f9ba6a8f52e"}');
INSERT INTO "event" VALUES(2,1,1800000000.0,'lease',NULL,NULL,'{"action":"acquired","epoch":1,"expires_at":1800000060.0,"owner":"me","previous_owner":null}');
INSERT INTO "event" VALUES(3,1,1800000000.0,'asked',0,1,'{"origin":"bayesian"}');
INSERT INTO "event" VALUES(4,1,1800000001.0,'asked',1,1,'{"origin":"bayesian"}');
INSERT INTO "event" VALUES(5,1,1800000002.0,'asked',2,1,'{"origin":"bayesian"}');
INSERT INTO "event" VALUES(6,1,1800000002.0,'completed',0,1,'{}');
INSERT INTO "event" VALUES(7,1,1800000003.0,'stage_done',1,1,'{}');
INSERT INTO "event" VALUES(8,1,1800000001.0,'front',NULL,NULL,'{"hypervolume":0.5,"members":[0],"revision":1}');
INSERT INTO "event" VALUES(9,1,1800000004.0,'requested',NULL,NULL,'{"request":"drain"}');
INSERT INTO "event" VALUES(10,1,1800000005.0,'state',NULL,NULL,'{"message":"asked to","state":"stopped"}');
INSERT INTO "event" VALUES(11,1,1800000006.0,'lease',NULL,NULL,'{"action":"released","epoch":1,"owner":"me"}');
CREATE TABLE front (
            study_id INTEGER NOT NULL, revision INTEGER NOT NULL, members TEXT NOT NULL,
            hypervolume DOUBLE, reference TEXT NOT NULL, ideal TEXT NOT NULL,
            trials INTEGER NOT NULL, at DOUBLE NOT NULL,
            PRIMARY KEY (study_id, revision), FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE);
INSERT INTO "front" VALUES(1,1,'[0]',0.5,'[6.0,2000000.0]','[0.0,0.0]',3,1800000001.0);
CREATE TABLE hpo_migration (
	number INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	applied_at DOUBLE NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "hpo_migration" VALUES(1,'first tables',1.79523361738970494271e+09);
CREATE TABLE lease (
            study_id INTEGER NOT NULL, owner TEXT, epoch INTEGER NOT NULL,
            expires_at DOUBLE NOT NULL, PRIMARY KEY (study_id), FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE);
INSERT INTO "lease" VALUES(1,NULL,1,1800000006.0);
CREATE TABLE measurement (
            study_id INTEGER NOT NULL, trial INTEGER NOT NULL, attempt INTEGER NOT NULL,
            position INTEGER NOT NULL, metric TEXT NOT NULL, value DOUBLE NOT NULL,
            unit TEXT NOT NULL, source TEXT NOT NULL, spread DOUBLE NOT NULL,
            repeats INTEGER NOT NULL, device TEXT NOT NULL, note TEXT NOT NULL,
            PRIMARY KEY (study_id, trial, attempt, position), FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE, FOREIGN KEY (study_id, trial) REFERENCES trial (study_id, number) ON DELETE CASCADE);
INSERT INTO "measurement" VALUES(1,0,1,0,'perplexity',4.7,'ppl','measured',0.01,5,'cpu:sample','a note');
INSERT INTO "measurement" VALUES(1,0,1,1,'weight_memory',1048576.0,'bytes','exact',0.0,1,'','');
INSERT INTO "measurement" VALUES(1,1,1,0,'perplexity',4.7,'ppl','measured',0.01,5,'cpu:sample','a note');
INSERT INTO "measurement" VALUES(1,1,1,1,'weight_memory',1048576.0,'bytes','exact',0.0,1,'','');
CREATE TABLE plan (
            study_id INTEGER NOT NULL, trial INTEGER NOT NULL, layers TEXT NOT NULL,
            PRIMARY KEY (study_id, trial), FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE, FOREIGN KEY (study_id, trial) REFERENCES trial (study_id, number) ON DELETE CASCADE);
INSERT INTO "plan" VALUES(1,0,'[{"bytes":34816,"dense_parameters":16384,"kind":"low_rank","layer":"layers.0.q_proj","parameters":8704,"size":"rank 34"},{"bytes":65536,"dense_parameters":16384,"kind":"dense","layer":"layers.0.k_proj","parameters":16384,"size":""}]');
INSERT INTO "plan" VALUES(1,1,'[]');
INSERT INTO "plan" VALUES(1,2,'[]');
CREATE TABLE study (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL, hash TEXT NOT NULL,
            state TEXT NOT NULL, message TEXT NOT NULL, requested TEXT NOT NULL,
            hours DOUBLE NOT NULL, environment TEXT NOT NULL,
            created_at DOUBLE NOT NULL, updated_at DOUBLE NOT NULL);
INSERT INTO "study" VALUES(1,'quick','{"budget":{"hours":null,"trials":10},"data":{"calibration":{"column":"text","config":null,"dataset":null,"documents":null,"limit":null,"reference":true,"split":null,"text":null,"tokens":null},"context":null,"evaluation":{"column":"text","config":null,"dataset":null,"documents":null,"limit":null,"reference":true,"split":null,"text":null,"tokens":null}},"model":{"dtype":null,"revision":null,"source":"reference","trust_remote_code":false},"name":"quick","objectives":[{"allow_modelled":false,"limit":null,"metric":"perplexity"},{"allow_modelled":false,"limit":null,"metric":"weight_memory"}],"question":"How small can it get?","run":{"attempts":3,"device":"auto","gpus_per_worker":1.0,"latency_repeats":5,"runner":"ray","stage_timeout_s":3600.0,"threads":1,"workers":1},"search":{"initial":8,"sampler":"bayesian","seed":0},"space":{"factorise":{"choices":["svd","mpo"],"type":"choice"},"factorise.keep_ratio":{"high":1.0,"low":0.1,"type":"float"}},"version":1}','7344d1da867fb0faafb427a4f8337ae7bc268f320319ce8bf55b4f9ba6a8f52e','stopped','asked to','drain',0.5,'{"python":"3.11"}',1800000000.0,1800000006.0);
CREATE TABLE trial (
            study_id INTEGER NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL,
            origin TEXT NOT NULL, candidate TEXT NOT NULL, plan_hash TEXT NOT NULL,
            state TEXT NOT NULL, cause TEXT, message TEXT NOT NULL, worker TEXT NOT NULL,
            created_at DOUBLE NOT NULL, started_at DOUBLE,
            finished_at DOUBLE, stages TEXT NOT NULL, notes TEXT NOT NULL,
            PRIMARY KEY (study_id, number), FOREIGN KEY (study_id) REFERENCES study (id) ON DELETE CASCADE);
INSERT INTO "trial" VALUES(1,0,1,'bayesian','{"factorise":"svd","factorise.keep_ratio":0.1}','0000000000000000','completed',NULL,'','worker-1',1800000000.0,1800000001.0,1800000002.0,'[{"seconds":0.75,"stage":"screen"}]','{"loss_before":2.5}');
INSERT INTO "trial" VALUES(1,1,1,'bayesian','{"factorise":"svd","factorise.keep_ratio":0.10001}','0000000000000001','running',NULL,'','worker-1',1800000001.0,1800000002.0,NULL,'[{"seconds":0.75,"stage":"screen"}]','{"loss_before":2.5}');
INSERT INTO "trial" VALUES(1,2,1,'bayesian','{"factorise":"svd","factorise.keep_ratio":0.10002000000000001}','0000000000000002','waiting',NULL,'','',1800000002.0,NULL,NULL,'[]','{}');
CREATE INDEX trial_by_state ON trial (study_id, state, cause);
CREATE INDEX event_by_study ON event (study_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('study',1);
INSERT INTO "sqlite_sequence" VALUES('event',11);
COMMIT;
