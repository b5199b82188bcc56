-- Version 1 of the lease database.
--
-- domain   a bridge's name, with "/VLAN" after it unless it is untagged; no interface's name has a slash in it
-- address  an IPv4 address as a number, in host byte order
-- *_ns     CLOCK_BOOTTIME, nanoseconds since the boot that is named beside it or in `boot`

-- The boot that the deadlines in `lease` count from.
CREATE TABLE boot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
) STRICT;

CREATE TABLE domain (
    domain     TEXT PRIMARY KEY,
    generation INTEGER NOT NULL     -- the last one given; it only ever grows
) STRICT, WITHOUT ROWID;

CREATE TABLE pool (
    domain      TEXT    NOT NULL REFERENCES domain,
    network     INTEGER NOT NULL,
    prefix      INTEGER NOT NULL CHECK (prefix BETWEEN 0 AND 32),
    gateway     INTEGER,
    cooldown_ns INTEGER NOT NULL,
    PRIMARY KEY (domain, network)
) STRICT, WITHOUT ROWID;

-- Runs of addresses that nobody ever had. With them the next fresh address is one step away, however large the pool.
CREATE TABLE fresh (
    domain TEXT    NOT NULL REFERENCES domain,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    PRIMARY KEY (domain, first),
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- An address has one row, so it has one holder. A row's owner and generation never change: an address goes to another
-- owner only when the row of the one before is gone, and only a rested one is deleted.
CREATE TABLE lease (
    domain     TEXT    NOT NULL REFERENCES domain,
    address    INTEGER NOT NULL,
    owner      TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('reserved', 'bound', 'draining', 'cooldown', 'quarantined')),
    replaces   INTEGER CHECK (replaces IS NULL OR state = 'reserved'),
    rest_ns    INTEGER,             -- how long it rests in all
    ready_ns   INTEGER,             -- when it has rested
    changed    INTEGER NOT NULL,    -- the journal entry of its last change
    PRIMARY KEY (domain, address),
    UNIQUE (domain, generation),
    CHECK ((state = 'cooldown') = (ready_ns IS NOT NULL) AND (rest_ns IS NULL) = (ready_ns IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX held ON lease (domain, owner) WHERE state IN ('reserved', 'bound');
CREATE INDEX resting ON lease (domain, ready_ns, changed) WHERE state = 'cooldown';
CREATE INDEX moving ON lease (domain, address) WHERE replaces IS NOT NULL;

CREATE TRIGGER lease_is_for_one BEFORE UPDATE OF domain, address, owner, generation ON lease
BEGIN
    SELECT RAISE(ABORT, 'a lease does not change hands');
END;

CREATE TRIGGER lease_is_not_lost BEFORE DELETE ON lease WHEN OLD.state <> 'cooldown'
BEGIN
    SELECT RAISE(ABORT, 'a lease that has not rested stays');
END;

CREATE TRIGGER generation_grows BEFORE UPDATE ON domain WHEN NEW.generation <= OLD.generation
BEGIN
    SELECT RAISE(ABORT, 'a generation does not come again');
END;

-- What was done, and what was asked for and not done because it came too late.
CREATE TABLE journal (
    entry      INTEGER PRIMARY KEY AUTOINCREMENT,
    wall_ms    INTEGER NOT NULL,    -- Unix time, for people; nothing is reckoned by it
    boot       TEXT    NOT NULL,
    boot_ns    INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    op         TEXT    NOT NULL,
    domain     TEXT,
    address    INTEGER,
    owner      TEXT,
    generation INTEGER,
    from_state TEXT,                -- null: free
    to_state   TEXT,                -- null: nothing was changed
    reason     TEXT    NOT NULL
) STRICT;
