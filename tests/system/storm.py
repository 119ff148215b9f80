"""Load on a daemon that is stopped in the middle of it, again and again; then the ledger."""

import collections
import random
import threading
import time

from ledger import Ledger
from load import Load
from peer import Slow

LATER = "450 4.2.0 later"


def duplicates(daemon, peer, kills):
    """Recipients that may have got more than one copy: reported so, or delivered in the second
    before a kill, when the report may have died with the daemon."""
    allowed = {e["recipient"] for e in daemon.log("possible-duplicate")}
    for message in peer.accepted:
        if any(0 <= kill - message.time < 1.5 for kill in kills):
            allowed.update(message.recipients)
    return allowed


class Storm:
    """Some recipients are refused, some deferred at random, and (`pinned`: every so many) some
    deferred for as long as it lasts."""

    def __init__(self, t, sizes=(0,), threads=4, pinned=0, seed=3, unsure=(), **settings):
        self.dice = random.Random(seed)
        self.calm = threading.Event()
        self.pinned = pinned
        self.kills = []
        self.peer = t.peer(rcpt=self.rcpt, dot=self.dot, keep_bodies=False)
        self.reports = t.peer("127.0.0.3")
        t.dns(
            {"a.test": self.peer.host, "b.test": self.peer.host, "sender.test": self.reports.host}
        )
        self.daemon = t.daemon(**settings)
        self.ledger = Ledger()
        # as much as a peer in Python takes
        self.load = Load(
            self.daemon, self.ledger, self.recipients, threads, sizes, pause=0.005, unsure=unsure
        )

    # ── the script of the peer, from threads of its own ──

    def rcpt(self, session, address):
        if address.startswith("refuse"):
            return "550 5.1.1 unknown"
        if self.calm.is_set():
            return None
        return LATER if address.startswith("pinned") or random.random() < 0.05 else None

    def dot(self, session, message):
        return Slow(0.05) if not self.calm.is_set() and random.random() < 0.1 else None

    def recipients(self, part, n):
        if n % 10 == 9:
            return [f"refuse{part}-{n}@a.test", f"ok{part}-{n}@a.test", f"ok{part}-{n}@b.test"]
        if self.pinned and n % self.pinned == 0:
            return [f"pinned{part}-{n}@a.test"]
        return [f"r{part}-{n}@{'ab'[n % 2]}.test"]

    # ── what happens ──

    def blow(self, least=0.3, most=2.0):
        time.sleep(self.dice.uniform(least, most))

    def kill(self):
        self.kills.append(time.monotonic())
        self.daemon.kill()

    def kill_and_start(self, n):
        """Each third time killed once more, in the middle of starting."""
        self.kill()
        if n % 3 == 2:
            self.daemon.start(ready=False)
            self.blow(0, 0.2)
            self.kill()
        self.daemon.start()

    def end(self, seconds=90):
        """Lets the queue drain, checks the ledger, and tells the sums."""
        self.load.stop()
        self.calm.set()
        self.daemon.wait_empty(seconds)
        time.sleep(0.5)  # the log's last lines
        delivered, bounced, _ = self.ledger.check(
            self.daemon,
            [self.peer],
            duplicates(self.daemon, self.peer, self.kills),
            reports=self.reports,
        )
        copies = collections.Counter(self.peer.recipients())
        twice = sum(n > 1 for n in copies.values())
        promised = len(self.ledger.promised)
        print(f"{promised} promised, {delivered} delivered, {bounced} bounced, {twice} twice")
        return promised
