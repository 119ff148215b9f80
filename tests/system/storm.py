"""Load on a daemon that is stopped in the middle of it, again and again; then the ledger."""

import collections
import itertools
import random
import threading
import time

from ledger import Ledger
from load import Load
from peer import Slow

LATER = "450 4.2.0 later"


LINES_LOST_SECONDS = 10  # about a kill, on a machine that stalls
LINES_SPLIT_SECONDS = 0.2

numbers = itertools.count()


def numbered(session, message):
    """A peer's `dot`: a reply to each copy that no other has, by which the log tells of it."""
    message.reply = f"2.0.0 taken as {next(numbers)}"
    return "250 " + message.reply


def duplicates(daemon, peer, kills):
    """Recipients that got more than one copy and may: all but the first were reported. Nothing of
    the log is promised to outlive a kill, but what is lost is a worker's last lines, and the report
    of a copy stands behind its own line: so a copy without either came at about the time of a kill,
    and one with the first line alone at the very moment."""
    reported, delivered = (
        {(e["recipient"], e["reply"]) for e in daemon.log(event)}
        for event in ("possible-duplicate", "delivered")
    )

    def excused(recipient, message):
        away = min((abs(kill - message.time) for kill in kills), default=LINES_LOST_SECONDS)
        copy = recipient, message.reply
        told = copy in delivered
        return copy in reported or away < (LINES_SPLIT_SECONDS if told else LINES_LOST_SECONDS)

    copies = collections.defaultdict(list)
    for message in sorted(peer.accepted, key=lambda message: message.time):
        for recipient in message.recipients:
            copies[recipient].append(message)
    return {
        recipient
        for recipient, messages in copies.items()
        if all(excused(recipient, message) for message in messages[1:])
    }


class Storm:
    """Some recipients are refused, some deferred at random, and (`pinned`: every so many) some
    deferred for as long as it lasts."""

    def __init__(self, t, sizes=(0,), threads=4, pinned=0, seed=3, **settings):
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
        self.load = Load(self.daemon, self.ledger, self.recipients, threads, sizes, pause=0.005)

    # ── the script of the peer, from threads of its own ──

    def rcpt(self, session, address):
        if address.startswith("refuse"):
            return "550 5.1.1 unknown"
        if self.calm.is_set():
            return None
        return LATER if address.startswith("pinned") or random.random() < 0.05 else None

    def dot(self, session, message):
        reply = numbered(session, message)
        return Slow(0.05, reply) if not self.calm.is_set() and random.random() < 0.1 else reply

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
        self.daemon.kill()
        self.kills.append(time.monotonic())

    def kill_and_start(self, n):
        """Each third time killed once more, in the middle of starting."""
        self.kill()
        if n % 3 == 2:
            self.daemon.start(ready=False)
            self.blow(0, 0.2)
            self.kill()
        self.daemon.start()

    def drain(self, seconds=90):
        """No more load, and nothing left in the queue."""
        self.load.stop()
        self.calm.set()
        self.daemon.wait_empty(seconds)

    def end(self, seconds=90):
        """Lets the queue drain, checks the ledger, and tells the sums."""
        self.drain(seconds)
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
