-- Version 3 of the lease database: incidents, and what is set while the agent runs.
--
-- domain   a bridge's name, with "/VLAN" after it unless it is untagged; no interface's name has a slash in it
-- address  an IP address as its bytes in network order: 4 for IPv4, 16 for IPv6
-- *_ms     Unix time in milliseconds, for people and for how long a record is kept

-- A number never comes again, even if its incident was let go: SQLite keeps the highest in `sqlite_sequence`.
CREATE TABLE incident (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    boot       TEXT    NOT NULL,    -- the boot that the record's times count from
    domain     TEXT    NOT NULL,
    address    BLOB    NOT NULL CHECK (length(address) IN (4, 16)),
    open       INTEGER NOT NULL CHECK (open IN (0, 1)),
    opened_ms  INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    record     TEXT    NOT NULL     -- JSON, as the room `evidence` writes it
) STRICT;

CREATE INDEX unfinished ON incident (number) WHERE open = 1;
CREATE INDEX finished ON incident (number) WHERE open = 0;
CREATE INDEX aging ON incident (updated_ms) WHERE open = 0;

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
