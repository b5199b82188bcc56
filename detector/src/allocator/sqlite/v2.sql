-- Version 2 of the lease database: addresses as bytes, reservations with a deadline, quarantine, exclusions, interfaces.
--
-- domain     a bridge's name, with "/VLAN" after it unless it is untagged; no interface's name has a slash in it
-- address    an IP address as its bytes in network order: 4 for IPv4, 16 for IPv6
-- interface  the name of the owner's interface; empty if none was named
-- *_ns       CLOCK_BOOTTIME, nanoseconds since the boot that is named beside it or in `boot`

DROP TRIGGER lease_is_for_one;
DROP TRIGGER lease_is_not_lost;
DROP INDEX held;
DROP INDEX resting;
DROP INDEX moving;
ALTER TABLE pool RENAME TO pool_1;
ALTER TABLE fresh RENAME TO fresh_1;
ALTER TABLE lease RENAME TO lease_1;
ALTER TABLE journal RENAME TO journal_1;

CREATE TABLE pool (
    domain      TEXT    NOT NULL REFERENCES domain,
    network     BLOB    NOT NULL,
    prefix      INTEGER NOT NULL,
    gateway     BLOB,
    cooldown_ns INTEGER NOT NULL,
    PRIMARY KEY (domain, network),
    CHECK (length(network) IN (4, 16) AND prefix BETWEEN 0 AND 8 * length(network))
) STRICT, WITHOUT ROWID;

-- What a pool does not give.
CREATE TABLE excluded (
    domain  TEXT NOT NULL,
    network BLOB NOT NULL,
    first   BLOB NOT NULL,
    last    BLOB NOT NULL,
    PRIMARY KEY (domain, network, first),
    FOREIGN KEY (domain, network) REFERENCES pool ON DELETE CASCADE,
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- Runs of addresses that nobody ever had. With them the next fresh address is one step away, however large the pool.
CREATE TABLE fresh (
    domain TEXT NOT NULL REFERENCES domain,
    first  BLOB NOT NULL,
    last   BLOB NOT NULL,
    PRIMARY KEY (domain, first),
    CHECK (first <= last AND length(first) = length(last))
) STRICT, WITHOUT ROWID;

-- An address has one row, so it has one holder. A row's owner and generation never change: an address goes to another
-- owner only when the row of the one before is gone, and only one that has rested, or is kept back, is deleted.
CREATE TABLE lease (
    domain     TEXT    NOT NULL REFERENCES domain,
    address    BLOB    NOT NULL CHECK (length(address) IN (4, 16)),
    owner      TEXT    NOT NULL,
    interface  TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('reserved', 'bound', 'draining', 'cooldown', 'quarantined')),
    replaces   BLOB    CHECK (replaces IS NULL OR state = 'reserved'),
    lasts_ns   INTEGER,             -- how long a reservation, a cooldown or a quarantine lasts in all
    until_ns   INTEGER,             -- when it is over
    mac        BLOB,                -- what was seen to use a quarantined address
    reason     TEXT,                -- and how
    since_ns   INTEGER NOT NULL,    -- when it came to its state; 0 if that was before this boot
    changed    INTEGER NOT NULL,    -- the journal entry of its last change
    PRIMARY KEY (domain, address),
    UNIQUE (domain, generation),
    CHECK ((lasts_ns IS NULL) = (until_ns IS NULL)),
    CHECK (CASE state WHEN 'reserved' THEN replaces IS NULL OR until_ns IS NULL
                      WHEN 'cooldown' THEN until_ns IS NOT NULL
                      WHEN 'quarantined' THEN until_ns IS NOT NULL
                      ELSE until_ns IS NULL END),
    CHECK ((state = 'quarantined') = (mac IS NOT NULL) AND (mac IS NULL) = (reason IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX held ON lease (domain, owner, interface) WHERE state IN ('reserved', 'bound');
CREATE INDEX resting ON lease (domain, until_ns, changed) WHERE state IN ('cooldown', 'quarantined');
CREATE INDEX reserving ON lease (until_ns) WHERE state = 'reserved' AND until_ns IS NOT NULL;
CREATE INDEX moving ON lease (domain, address) WHERE replaces IS NOT NULL;
CREATE INDEX drained ON lease (domain, address) WHERE state = 'draining';

CREATE TRIGGER lease_is_for_one BEFORE UPDATE OF domain, address, owner, interface, generation ON lease
BEGIN
    SELECT RAISE(ABORT, 'a lease does not change hands');
END;

CREATE TRIGGER lease_is_not_lost BEFORE DELETE ON lease WHEN OLD.state NOT IN ('cooldown', 'quarantined')
BEGIN
    SELECT RAISE(ABORT, 'a lease that has not rested stays');
END;

-- What was done, and what was asked for and not done because it came too late.
CREATE TABLE journal (
    entry      INTEGER PRIMARY KEY, -- grows, as the newest is never deleted
    wall_ms    INTEGER NOT NULL,    -- Unix time, for people; nothing is reckoned by it
    boot       TEXT    NOT NULL,
    boot_ns    INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    op         TEXT    NOT NULL,
    domain     TEXT,
    address    BLOB,
    owner      TEXT,
    interface  TEXT,
    generation INTEGER,
    from_state TEXT,                -- null: free
    to_state   TEXT,                -- null: nothing was changed
    reason     TEXT    NOT NULL
) STRICT;

CREATE INDEX life ON journal (address, domain);

-- How often each kind of change came too late.
CREATE TABLE fenced (
    op    TEXT    PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO pool
    SELECT domain, unhex(printf('%08x', network)), prefix,
           iif(gateway IS NULL, NULL, unhex(printf('%08x', gateway))), cooldown_ns
    FROM pool_1;
INSERT INTO fresh SELECT domain, unhex(printf('%08x', first)), unhex(printf('%08x', last)) FROM fresh_1;
INSERT INTO journal
    SELECT entry, wall_ms, boot, boot_ns, actor, op, domain,
           iif(address IS NULL, NULL, unhex(printf('%08x', address))),
           owner, NULL, generation, from_state, to_state, reason
    FROM journal_1;
-- Nobody ever wrote a quarantine in version 1, so there is none whose end would have to be made up.
INSERT INTO lease
    SELECT domain, unhex(printf('%08x', address)), owner, '', generation, state,
           iif(replaces IS NULL, NULL, unhex(printf('%08x', replaces))), rest_ns, ready_ns, NULL, NULL, 0, changed
    FROM lease_1;
INSERT INTO fenced SELECT op, count(*) FROM journal_1 WHERE to_state IS NULL AND generation IS NOT NULL GROUP BY op;

DROP TABLE pool_1;
DROP TABLE fresh_1;
DROP TABLE lease_1;
DROP TABLE journal_1;
