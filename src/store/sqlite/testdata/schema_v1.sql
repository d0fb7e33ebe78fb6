-- A database of schema version 1 as a released build wrote it. Never changed, only added to: a later
-- version has a file of its own.
CREATE TABLE plane (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot INTEGER NOT NULL
) STRICT;
INSERT INTO plane (id, boot) VALUES (1, 0);

CREATE TABLE functions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    function_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (function_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE executions (
    id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    seq INTEGER NOT NULL,
    function_id INTEGER NOT NULL,
    function TEXT NOT NULL,
    version INTEGER NOT NULL,
    status INTEGER NOT NULL,
    standing INTEGER,
    fence INTEGER NOT NULL,
    due INTEGER,
    attempts INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    requeues INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    age_since INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    deadline INTEGER,
    error_code TEXT,
    error_message TEXT,
    input_bytes INTEGER NOT NULL,
    input_kept INTEGER NOT NULL,
    output_bytes INTEGER,
    cold_start INTEGER NOT NULL,
    init_ms INTEGER,
    trace_id TEXT,
    parent BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX executions_by_standing ON executions (standing, id) WHERE standing IS NOT NULL;
CREATE INDEX executions_by_function ON executions (function, id);
CREATE INDEX executions_failed ON executions (function, standing, id) WHERE standing > 0;
CREATE INDEX executions_by_end ON executions (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE inputs (
    seq INTEGER PRIMARY KEY,
    content_type TEXT,
    body BLOB NOT NULL,
    metadata TEXT,
    traceparent TEXT,
    idempotency_key TEXT
) STRICT;

CREATE TABLE outputs (
    seq INTEGER PRIMARY KEY,
    content_type TEXT,
    encoding INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    cold_start INTEGER NOT NULL,
    init_ms INTEGER,
    run_us INTEGER NOT NULL,
    cpu_us INTEGER,
    logs BLOB,
    PRIMARY KEY (seq, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    function_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    execution_id BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (function_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_expiry ON keys (expires_at);

UPDATE plane SET boot = 7;
INSERT INTO functions VALUES (3, 'pinger', '{"format":1,"concurrency":4,"queue_size":100,"rate_per_second":50,"burst":null}', 2, 1760000000000, 1760000000001);
INSERT INTO versions VALUES (3, 1, 1760000000000, '{"format":1,"code":"echo","spec":{"timeout_ms":30000,"cpu_ms":null,"memory_mb":256,"output_bytes_max":6291456,"log_bytes_max":65536,"max_retries":3,"base_delay_ms":100,"max_delay_ms":30000,"max_requeues":1000,"max_age_ms":86400000,"args":[],"env":{},"config":{},"record":"auto","execution_mode":null,"image":null,"endpoint_url":null,"ignored":{}}}');
INSERT INTO versions VALUES (3, 2, 1760000000001, '{"format":1,"code":{"wasm":{"digest":"0707070707070707070707070707070707070707070707070707070707070707","shape":"handler","size":9}},"spec":{"timeout_ms":1000,"cpu_ms":500,"memory_mb":64,"output_bytes_max":6291456,"log_bytes_max":65536,"max_retries":3,"base_delay_ms":100,"max_delay_ms":30000,"max_requeues":1000,"max_age_ms":86400000,"args":["-v"],"env":{"A":"b"},"config":{},"record":"full","execution_mode":"local","image":null,"endpoint_url":null,"ignored":{}}}');
INSERT INTO executions VALUES (x'019a0000000070008000000000000001', 7696581394433, 3, 'pinger', 2, 2, NULL, 7696581394433, NULL, 1, 0, 0, 1760000000100, NULL, 1760000000101, 1760000000103, NULL, NULL, NULL, 10, 1, 10, 1, 2, 'trace', NULL);
INSERT INTO inputs VALUES (7696581394433, NULL, CAST('{"ping":1}' AS BLOB), '[["tenant","a"]]', NULL, 'order-1');
INSERT INTO outputs VALUES (7696581394433, 'application/json', 0, CAST('{"pong":1}' AS BLOB));
INSERT INTO attempts VALUES (7696581394433, 7696581394433, 1, 1760000000101, 1760000000103, 'success', NULL, NULL, 1, 2, 900, 700, x'010001020000006869');
INSERT INTO keys VALUES (3, 'order-1', x'019a0000000070008000000000000001', zeroblob(32), 1760086400000);
INSERT INTO executions VALUES (x'019a0000000070008000000000000002', 7696581394434, 3, 'pinger', 1, 3, 3, 0, NULL, 1, 0, 0, 1760000000200, NULL, 1760000000201, 1760000000203, NULL, 'TRAP', 'unreachable', 10, 0, NULL, 0, NULL, NULL, NULL);
INSERT INTO executions VALUES (x'019a0000000070008000000000000003', 7696581394435, 3, 'pinger', 2, 1, 0, 7696581394434, NULL, 1, 0, 0, 1760000000300, NULL, 1760000000301, NULL, NULL, NULL, NULL, 4, 1, NULL, 0, NULL, NULL, NULL);
INSERT INTO inputs VALUES (7696581394435, NULL, CAST('null' AS BLOB), NULL, NULL, NULL);
PRAGMA user_version = 1;
