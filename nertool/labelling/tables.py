"""The tables of a project's database."""

from __future__ import annotations

from nertool.formats.project import APPLICATION, VERSION

TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE types (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, removed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE documents (id INTEGER PRIMARY KEY, source TEXT NOT NULL, name TEXT, context INTEGER NOT NULL);
CREATE TABLE sentences (
    id INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents,
    text TEXT NOT NULL,
    offsets TEXT NOT NULL,     -- [[start, end], ...] of each token, in characters of the text
    spaced INTEGER NOT NULL,   -- whether the text is the original one; else its tokens, with spaces between them
    gap TEXT NOT NULL,         -- what stood before it in its document
    columns TEXT NOT NULL,
    role TEXT NOT NULL,        -- pool; test: kept apart; copy: of an earlier sentence, never asked about
    draw REAL NOT NULL,        -- a random number
    proposal TEXT,             -- that was read from a file: [[first token, token after the last, type], ...]
    skipped INTEGER NOT NULL DEFAULT 0,    -- the answer that skipped it last
    validation INTEGER NOT NULL DEFAULT 0, -- whether it judges trainings
    answer INTEGER REFERENCES answers      -- the one in force
);
CREATE INDEX open_sentences ON sentences (role, draw) WHERE answer IS NULL;
CREATE INDEX answered_sentences ON sentences (answer) WHERE answer IS NOT NULL;
CREATE INDEX sentences_of_documents ON sentences (document);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,           -- of the request, which may come twice
    sentence INTEGER NOT NULL REFERENCES sentences,
    annotator TEXT NOT NULL,
    time REAL NOT NULL,        -- seconds since 1970
    seconds REAL,              -- from when the sentence was shown
    action TEXT NOT NULL,      -- accept, reject, skip, undo
    spans TEXT NOT NULL,       -- [[first token, token after the last, type], ...]
    outside TEXT NOT NULL,     -- [[first token, token after the last], ...] known to be no entity, if partial
    partial INTEGER NOT NULL,  -- whether nothing is known of the other tokens
    proposal TEXT,             -- of the model, whether it was shown or not
    model INTEGER,             -- its number
    correct INTEGER, proposed INTEGER, marked INTEGER, -- entities, to score the model with
    before INTEGER,            -- the answer that was in force
    state TEXT NOT NULL        -- used; late: another answer came first; undone
);
CREATE INDEX answers_of_annotators ON answers (annotator, id);
CREATE TABLE leases (
    sentence INTEGER PRIMARY KEY REFERENCES sentences,
    session TEXT NOT NULL UNIQUE,
    annotator TEXT NOT NULL,
    expires REAL NOT NULL,
    proposal TEXT,
    model INTEGER
);
CREATE TABLE ranking (place INTEGER PRIMARY KEY, sentence INTEGER NOT NULL UNIQUE, reason TEXT NOT NULL);
CREATE TABLE models (
    number INTEGER PRIMARY KEY,
    folder TEXT NOT NULL,
    time REAL NOT NULL,
    answers INTEGER NOT NULL,    -- the last one that there was when its training began
    sentences INTEGER NOT NULL,  -- that it learnt from
    seconds REAL NOT NULL,
    types TEXT NOT NULL,         -- the number of each type by the name that it had
    test TEXT NOT NULL           -- [correct, proposed, marked] entities of the test set, and its sentences
);
"""
