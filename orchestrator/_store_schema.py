"""The journal's tables."""

from __future__ import annotations

# "ORCJ": says to `file` and to us that a database is a journal.
APPLICATION_ID = 0x4F52434A
VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    boot TEXT NOT NULL,
    host TEXT NOT NULL,
    platform TEXT NOT NULL,     -- of Python and the system, for whoever looks for the cause of a crash
    pid INTEGER NOT NULL,
    started REAL NOT NULL,      -- wall clock, as every time here but births.started
    ended REAL,
    clean INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    identity TEXT,              -- a second submit with it is the same job
    key TEXT,
    target TEXT NOT NULL,
    head BLOB NOT NULL,         -- members of the job frame as JSON text; empty when they are in a file, as body is
    body BLOB NOT NULL,
    options TEXT NOT NULL,      -- JSON
    effects TEXT NOT NULL,
    priority INTEGER NOT NULL,
    hash BLOB NOT NULL,         -- of target, head and body
    attempts INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    suspect INTEGER NOT NULL,
    created REAL NOT NULL,
    status TEXT,                -- NULL: the job is open
    value TEXT,                 -- JSON
    typed INTEGER,
    error TEXT,                 -- JSON
    seconds REAL,
    worker TEXT,
    settled REAL,
    discarded REAL,             -- when a person gave up a quarantined job
    files TEXT                  -- JSON object: which columns are in a file of <journal>.payloads, and in which
) STRICT;
CREATE UNIQUE INDEX jobs_by_identity ON jobs (identity) WHERE identity IS NOT NULL;
CREATE INDEX jobs_open ON jobs (id) WHERE status IS NULL;
CREATE INDEX jobs_quarantined ON jobs (id) WHERE status = 'quarantined';
CREATE INDEX jobs_with_files ON jobs (id) WHERE files IS NOT NULL;

CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    worker TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL,        -- leased, started, returned, ended
    outcome TEXT,
    certificate TEXT,           -- JSON
    refunded INTEGER NOT NULL,
    PRIMARY KEY (job, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE effects (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    key TEXT NOT NULL,
    phase TEXT NOT NULL,        -- begun, done, undone
    fence INTEGER NOT NULL,
    ref TEXT,                   -- JSON
    PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE births (
    marker TEXT PRIMARY KEY,    -- what a child and all it starts have in their environment
    run TEXT NOT NULL,
    name TEXT NOT NULL,
    worker TEXT NOT NULL,
    generation INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    started REAL NOT NULL,      -- on the clock that the kill set uses
    temp TEXT NOT NULL,
    ended REAL,
    certificate TEXT            -- JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX births_open ON births (run) WHERE ended IS NULL;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    verb TEXT NOT NULL,
    job INTEGER,
    detail TEXT NOT NULL        -- JSON
) STRICT;
"""
