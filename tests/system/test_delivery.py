"""Delivery to a scripted peer: transactions, connections, and everything that can go wrong."""

import random
import socket
import threading
import time

from harness import limit, wait_for
from ledger import Ledger
from peer import EXTENSIONS, Drop, Raw, Slow, Then
from wire import letter

STALL_SECONDS = 5  # that a busy machine may hold a step up
CHUNKING = EXTENSIONS + ("CHUNKING",)


def test_one_transaction(t):
    """Recipients at one domain share a transaction; domains are never mixed in one"""
    daemon, peer = t.simple(("a.test", "b.test"))
    daemon.submit(
        "s@sender.test", ["1@a.test", "1@b.test", "2@a.test", "2@b.test", "3@a.test"], letter()
    )
    got = peer.wait(2)
    assert sorted(sorted(m.recipients) for m in got) == [
        ["1@a.test", "2@a.test", "3@a.test"],
        ["1@b.test", "2@b.test"],
    ]
    daemon.wait_empty()
    for event in daemon.wait_log("delivered", 5):
        assert event["sender"] == "s@sender.test" and event["id"], event


def test_thousand_recipients(t):
    """1,000 recipients at three domains each get one copy"""
    daemon, peer = t.simple(("a.test", "b.test", "c.test"), recipients_max=1000)
    wanted = [f"r{n}@{'abc'[n % 3]}.test" for n in range(1000)]
    daemon.submit("s@sender.test", wanted, letter())
    wait_for("all copies", lambda: len(peer.recipients()) >= 1000)
    daemon.wait_empty()
    assert sorted(peer.recipients()) == sorted(wanted)
    assert len(peer.accepted) < 60, f"{len(peer.accepted)} transactions for three domains"


def test_dialects(t):
    """Peers with every mix of extensions, and with HELO alone, get the same bytes"""
    message = letter("dialect") + b".\r\n..dots\r\n.\r\n"
    mixes = [
        (),
        ("PIPELINING",),
        ("CHUNKING",),
        ("PIPELINING", "CHUNKING"),
        ("SIZE",),
        ("PIPELINING", "8BITMIME", "SIZE 1000000", "CHUNKING", "DSN", "X-UNKNOWN with words"),
    ]
    peers = [t.peer(f"127.0.0.{n + 2}", extensions=mix) for n, mix in enumerate(mixes)]
    peers.append(t.peer("127.0.0.20", ehlo="502 5.5.1 what?", extensions=()))
    t.dns({f"d{n}.test": peer.host for n, peer in enumerate(peers)})
    daemon = t.daemon()
    for n in range(len(peers)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], message)
    for peer in peers:
        got = peer.wait(1)[0]
        assert got.body.endswith(message), (peer.extensions, got.body[-200:])
        assert got.chunked == (
            "CHUNKING" in peer.extensions and "PIPELINING" in peer.extensions
        ) or got.chunked == ("CHUNKING" in peer.extensions), peer.extensions
    assert any(c.startswith("HELO ") for s in peers[-1].sessions for c in s.commands)


def test_no_final_line_end(t):
    """A body that ends without CRLF goes on exactly by BDAT, and with one CRLF added by DATA"""
    plain = t.peer("127.0.0.2")
    chunked = t.peer("127.0.0.3", extensions=CHUNKING)
    t.dns({"plain.test": "127.0.0.2", "chunked.test": "127.0.0.3"})
    daemon = t.daemon()
    message = letter("open end") + b"no end"
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@plain.test", "r@chunked.test"])
        client.send(b"BDAT %d LAST\r\n%s" % (len(message), message))
        assert client.reply().code == 250
    assert plain.wait(1)[0].body.endswith(b"no end\r\n")
    assert chunked.wait(1)[0].body.endswith((b"no end", b"no end\r\n"))


@limit(60)
def test_streaming(t):
    """With CHUNKING and PIPELINING 300 messages go over few connections, in streams"""
    daemon, peer = t.simple(peer={"extensions": CHUNKING})
    peer.set(dot=lambda session, message: Slow(0.02))
    ledger = Ledger()
    with daemon.client() as client:
        client.ehlo()
        for n in range(300):
            ledger.promise(f"r{n}@a.test")
            client.submit("s@sender.test", [f"r{n}@a.test"], letter(f"m{n}"))
    peer.wait(300, 40)
    daemon.wait_empty()
    ledger.check(daemon, [peer])
    assert len(peer.sessions) <= 50, len(peer.sessions)
    assert all(m.chunked for m in peer.accepted)


def test_connections_are_reused(t):
    """Connections carry several messages up to their limit, idle out, and end with QUIT"""
    daemon, peer = t.simple(connections_max=1, connection_messages_max=10, connection_idle="5s")
    for n in range(25):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    peer.wait(25)
    assert len(peer.sessions) in (3, 4), len(peer.sessions)
    assert peer.open_max <= 2
    wait_for("the idle connection to end", lambda: peer.open == 0)
    for session in peer.sessions:
        mails = sum(c.startswith("MAIL") for c in session.commands)
        assert mails <= 10 and session.commands[-1] == "QUIT", session.commands[-3:]


def test_no_connection_is_kept(t):
    """With connection_idle = 0s a connection ends with its last message"""
    daemon, peer = t.simple(connection_idle="0s")
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)
    wait_for("the connection to end", lambda: peer.open == 0)
    assert peer.sessions[0].commands[-1] == "QUIT"


def test_connection_limit(t):
    """No more connections to a site than configured, whatever waits"""
    daemon, peer = t.simple(connections_max=3)
    peer.set(dot=Slow(0.1))
    for n in range(60):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    peer.wait(60)
    assert peer.open_max <= 3, peer.open_max


def test_workers_share_a_slow_site(t):
    """What a worker leaves to another one it does not take back: no connection is opened in vain"""
    daemon, peer = t.simple(workers=2, connections_max=3, connection_messages_max=5)
    peer.set(connect=Slow(0.2), ehlo=Slow(0.2), dot=Slow(0.02))
    for n in range(200):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    peer.wait(200)
    assert peer.open_max <= 3, peer.open_max
    assert len(peer.sessions) <= 60, len(peer.sessions)


LATE = {"probe": "1m", "retry_first": "1m", "retry_cap": "1m"}  # what is put off once


def from_all_workers(daemon, domain, count):
    """Submits `count` messages over as many connections as reach every worker."""
    clients = [daemon.client() for _ in range(12)]
    for client in clients:
        client.ehlo()
    for n in range(count):
        clients[n % 12].submit("s@sender.test", [f"r{n}@{domain}"], letter())
    for client in clients:
        client.close()


@limit(120)
def test_fewer_connections_than_workers(t):
    """A host that takes one connection at a time gets the mail of all workers, none of it late"""
    peer = t.peer()
    t.dns(["a.test. MX 10 mx.test.", "b.test. MX 10 mx.test.", f"mx.test. A {peer.host}"])
    daemon = t.daemon(workers=3, connection_idle="8s", **LATE)
    daemon.submit("s@sender.test", ["first@a.test"], letter())
    peer.wait(1)
    refused = Then("421 4.7.0 one at a time", Drop())
    peer.set(connect=lambda session, _: refused if peer.open > 1 else Slow(0.1), dot=Slow(0.02))
    from_all_workers(daemon, "a.test", 600)
    from_all_workers(daemon, "b.test", 24)
    peer.wait(625, 30)
    daemon.wait_empty()
    last = max(n for n, to in enumerate(peer.recipients()) if to.endswith("@b.test"))
    assert last < 550, f"the last one of b.test came behind {last} others"
    turned_away = sum(not session.commands for session in peer.sessions)
    assert turned_away < 20, f"{turned_away} of {len(peer.sessions)} connections in vain"
    for n in range(6):
        daemon.submit("s@sender.test", [f"later{n}@a.test"], letter())
        peer.wait(626 + n, 5)


@limit(120)
def test_no_new_connections(t):
    """A host that takes no new connections for a while keeps those that work"""
    daemon, peer = t.simple(
        workers=3, connections_start=4, connections_max=8, connection_idle="1m", **LATE
    )
    peer.set(dot=Slow(0.1))
    with daemon.client() as client:
        client.ehlo()
        for n in range(1200):
            client.submit("s@sender.test", [f"first{n}@a.test"], letter())
    before = len(peer.sessions)
    peer.set(connect=Then("421 4.7.0 not so often", Drop()))
    from_all_workers(daemon, "a.test", 600)
    time.sleep(20)
    turned_away = len(peer.sessions) - before
    assert turned_away <= 15, f"{turned_away} connections in vain"
    peer.set(connect=None)
    lost = sum(session.left for session in peer.sessions[:before])
    assert lost <= 5, f"{lost} of {before} connections given up"


def test_every_refusal(t):
    """4xx at any step is retried until it works, 5xx at MAIL, RCPT and dot bounces at once"""
    cases = [
        # step, reply, what becomes of it
        ("connect", "421 4.3.2 busy", "later"),
        ("connect", "450 4.3.2 busy", "later"),
        ("ehlo", "421 4.3.2 closing", "later"),
        ("ehlo", "451 4.3.0 not now", "later"),
        ("mail", "421 4.7.0 slow down", "later"),
        ("mail", "451 4.3.0 not now", "later"),
        ("mail", "452 4.3.1 no room", "later"),
        ("mail", "550 5.7.1 not you", "bounced"),
        ("mail", "554 no", "bounced"),
        ("rcpt", "421 4.7.0 slow down", "later"),
        ("rcpt", "450 4.2.0 locked", "later"),
        ("rcpt", "451 4.7.1 greylisted", "later"),
        ("rcpt", "452 4.2.2 full", "later"),
        ("rcpt", "550 5.1.1 unknown", "bounced"),
        ("rcpt", "551 not local", "bounced"),
        ("rcpt", "553 5.1.3 bad name", "bounced"),
        ("rcpt", "556 5.1.10 null", "bounced"),
        ("data", "421 4.3.2 closing", "later"),
        ("data", "451 4.3.0 not now", "later"),
        ("data", "554 5.7.1 no", "bounced"),
        ("dot", "421 4.3.2 closing", "later"),
        ("dot", "451 4.3.0 not now", "later"),
        ("dot", "452 4.3.1 full", "later"),
        ("dot", "550 5.7.1 spam", "bounced"),
        ("dot", "554 5.6.0 bad", "bounced"),
    ]
    peers = []
    for n, (step, reply, _) in enumerate(cases):
        peers.append(t.peer(f"127.0.1.{n + 1}", **{step: [reply, None]}))
    sender = t.peer("127.0.2.1")
    world = {f"d{n}.test": peer.host for n, peer in enumerate(peers)}
    t.dns({**world, "sender.test": sender.host})
    daemon = t.daemon()
    for n in range(len(cases)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], letter(f"case-{n}"))
    bounces = sum(case[2] == "bounced" for case in cases)
    sender.wait(bounces, 30)
    wrong = []

    def settled():
        return not daemon.queued()

    try:
        wait_for("an empty queue", settled)
    except AssertionError:
        wrong.append(f"still queued: {daemon.queued()}")
    bounced = {e["recipient"] for e in daemon.log("bounced")}
    for n, ((step, reply, fate), peer) in enumerate(zip(cases, peers)):
        delivered = len(peer.accepted)
        deferred = daemon.log("deferred", recipient=f"r@d{n}.test")
        if fate == "later" and (delivered != 1 or f"r@d{n}.test" in bounced):
            wrong.append(f"{step} {reply}: delivered {delivered}, deferred {len(deferred)}")
        if fate == "bounced" and (delivered or f"r@d{n}.test" not in bounced or deferred):
            wrong.append(f"{step} {reply}: delivered {delivered}, deferred {len(deferred)}")
    assert not wrong, "\n".join(wrong)
    assert len(sender.accepted) == bounces


def test_partial_outcomes(t):
    """Of five recipients two are delivered, one is refused, two are retried, each exactly once"""
    fates = {"no": "550 5.1.1 unknown", "later1": "450 4.2.0 later", "later2": "451 4.2.1 later"}

    def rcpt(session, address):
        fate = fates.get(address.split("@")[0])
        return fate

    peer = t.peer(rcpt=rcpt)
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    daemon.submit(
        "s@sender.test",
        [f"{n}@a.test" for n in ("yes1", "no", "later1", "yes2", "later2")],
        letter(),
    )
    assert sorted(peer.wait(1)[0].recipients) == ["yes1@a.test", "yes2@a.test"]
    sender.wait(1)
    wait_for("two to wait", lambda: sorted(daemon.queued()) == ["later1@a.test", "later2@a.test"])
    fates.pop("later1")
    wait_for("the third", lambda: "later1@a.test" in peer.recipients())
    fates.pop("later2")
    daemon.wait_empty()
    assert sorted(peer.recipients()) == sorted(
        f"{n}@a.test" for n in ("yes1", "yes2", "later1", "later2")
    )
    assert len(sender.accepted) == 1


def test_too_many_recipients(t):
    """452 after ten recipients: those go, the rest follows at once and not as a retry"""

    def rcpt(session, address):
        return (
            "452 4.5.3 too many"
            if session.message and len(session.message.recipients) >= 10
            else None
        )

    daemon, peer = t.simple(peer={"rcpt": rcpt}, retry_first="1h", retry_base="1h", retry_cap="1h")
    wanted = [f"r{n}@a.test" for n in range(45)]
    daemon.submit("s@sender.test", wanted, letter())
    wait_for("all", lambda: len(peer.recipients()) >= 45, 15)
    assert sorted(peer.recipients()) == sorted(wanted)
    daemon.wait_empty()
    assert all(len(m.recipients) <= 10 for m in peer.accepted)


def test_lost_connections(t):
    """A connection lost at any step is retried; only after the dot is it a possible duplicate"""
    cases = [
        ("connect", Drop()),
        ("connect", Drop(reset=True)),
        ("ehlo", Drop()),
        ("mail", Drop()),
        ("rcpt", Drop()),
        ("rcpt", Drop(reset=True)),
        ("data", Drop()),
        ("data", Then("354 go on", Drop())),
        ("data", Then("354 go on", Drop(reset=True))),
        ("rset", Drop()),
        ("quit", Drop()),
    ]
    peers = [t.peer(f"127.0.1.{n + 1}", **{s: [r, None]}) for n, (s, r) in enumerate(cases)]
    t.dns({f"d{n}.test": peer.host for n, peer in enumerate(peers)})
    daemon = t.daemon()
    for n in range(len(cases)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], letter(f"case-{n}"))
    for n, peer in enumerate(peers):
        try:
            peer.wait(1, 25)
        except AssertionError:
            raise AssertionError(f"not delivered after {cases[n]}")
    daemon.wait_empty()
    assert not daemon.log("bounced")
    assert all(len(peer.accepted) == 1 for peer in peers)
    # after a 354 the message may have left whole before the loss was seen
    for event in daemon.log("possible-duplicate"):
        assert event["recipient"] in ("r@d7.test", "r@d8.test"), event


def test_lost_after_the_dot(t):
    """No reply to the dot: sent again, never bounced, and reported as a possible duplicate"""
    for_dot = t.peer("127.0.0.2", dot=[Drop(), None])
    for_bdat = t.peer("127.0.0.3", dot=[Drop(reset=True), None], extensions=CHUNKING)
    t.dns({"dot.test": "127.0.0.2", "bdat.test": "127.0.0.3"})
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@dot.test"], letter())
    daemon.submit("s@sender.test", ["r@bdat.test"], letter())
    for_dot.wait(1)
    for_bdat.wait(1)
    daemon.wait_empty()
    for recipient in ("r@dot.test", "r@bdat.test"):
        assert daemon.log("possible-duplicate", recipient=recipient), recipient
        assert len(daemon.log("delivered", recipient=recipient)) == 1
    assert not daemon.log("bounced")


def test_poison(t):
    """A message at which the peer hangs up has two connections an attempt, and no other waits"""
    tries = []

    def mail(session, sender):
        if sender != "poison@sender.test":
            return None
        tries.append(session.number)
        return Drop()

    daemon, peer = t.simple(peer={"mail": mail}, retry_first="1h", retry_base="1h", retry_cap="1h")
    with daemon.client() as client:
        client.ehlo()
        for n in range(1000):
            client.submit("s@sender.test", [f"r{n}@a.test"], letter())
            if n == 100:
                client.submit("poison@sender.test", ["r@a.test"], letter())
    peer.wait(1000)
    assert daemon.wait_log("deferred")[0]["recipient"] == "r@a.test"
    assert len(daemon.log("deferred")) == 1 and not daemon.log("domain-deferred")
    assert len(tries) == 2, tries
    assert [job["attempts"] for job in daemon.queue()] == [1]


def test_one_message_a_connection(t):
    """A peer that closes after every message, without a word, puts none of them off"""
    daemon, peer = t.simple(
        peer={"dot": Then("250 2.0.0 taken", Drop())},
        retry_first="1h",
        retry_base="1h",
        retry_cap="1h",
    )
    with daemon.client() as client:
        client.ehlo()
        for n in range(500):
            client.submit("s@sender.test", [f"r{n}@a.test"], letter())
    peer.wait(500)
    daemon.wait_empty()
    assert not daemon.log("deferred") and not daemon.log("domain-deferred")


def test_slow_within_limits(t):
    """Slow replies at every step are waited for"""
    steps = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
    peers = [t.peer(f"127.0.1.{n + 1}", **{step: Slow(2)}) for n, step in enumerate(steps)]
    t.dns({f"d{n}.test": peer.host for n, peer in enumerate(peers)})
    daemon = t.daemon()
    for n in range(len(steps)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], letter())
    for peer in peers:
        peer.wait(1)
    daemon.wait_empty()
    assert not daemon.log("deferred")


def test_slow_beyond_limits(t):
    """A peer that is too slow at any step loses the connection, and the message is retried"""
    steps = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
    peers = [
        t.peer(f"127.0.1.{n + 1}", **{step: [Slow(600), None]}) for n, step in enumerate(steps)
    ]
    t.dns({f"d{n}.test": peer.host for n, peer in enumerate(peers)})
    daemon = t.daemon(
        greeting_timeout="1s",
        hello_timeout="1s",
        mail_timeout="1s",
        rcpt_timeout="1s",
        data_timeout="1s",
        final_timeout="1s",
    )
    for n in range(len(steps)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], letter())
    for n, peer in enumerate(peers):
        wait_for(f"delivery after a slow {steps[n]}", lambda: len(peer.accepted) >= 1, 15)
    wait_for("doubt", lambda: daemon.log("possible-duplicate", recipient="r@d5.test"), 5)
    daemon.wait_empty()
    assert not daemon.log("bounced")


def test_stalled_reader(t):
    """A peer that stops reading holds up nobody else, and is given up on"""
    stalled = t.peer("127.0.0.2", data=[Then("354 go on", Slow(600, Drop())), None])
    lively = t.peer("127.0.0.3")
    t.dns({"stalled.test": stalled.host, "lively.test": lively.host})
    daemon = t.daemon(block_timeout="12s", final_timeout="5s")
    daemon.submit("s@sender.test", ["r@stalled.test"], letter(size=12 << 20))
    wait_for("the stalled session", lambda: stalled.sessions)
    for n in range(50):
        daemon.submit("s@sender.test", [f"r{n}@lively.test"], letter())
    lively.wait(50)
    assert len(stalled.sessions) == 1, "the others had to wait until it was given up on"
    stalled.wait(1, 40)
    daemon.wait_empty()


def test_nonsense_replies(t):
    """Replies that are none are a reason to defer: nothing is lost, bounced or believed"""
    nonsense = [
        Raw(b"hello\r\n"),
        Raw(b"\r\n"),
        Raw(b"999 what\r\n"),
        Raw(b"100 early\r\n"),
        Raw(b"250 ok\n"),
        Raw(b"25\r\n"),
        Raw(b"\0\0\0\0\r\n"),
        Raw(b"2500 long\r\n"),
        Raw(b"250-" + b"x" * 100000 + b"\r\n"),
        Raw(b"250-more\r\n" * 5000),
        Raw(b"\xff\xfe\xfd" * 50 + b"\r\n"),
        Raw(b"354 go on\r\n"),
    ]
    steps = ("connect", "ehlo", "rcpt", "dot")
    peers = [
        (step, bad, t.peer(f"127.0.{s + 1}.{n + 1}", **{step: [Then(bad, Drop()), None]}))
        for s, step in enumerate(steps)
        for n, bad in enumerate(nonsense)
    ]
    t.dns({f"d{n}.test": peer.host for n, (_, _, peer) in enumerate(peers)})
    daemon = t.daemon()
    with daemon.client() as client:
        client.ehlo()
        for n in range(len(peers)):
            client.submit("s@sender.test", [f"r@d{n}.test"], letter(f"case-{n}"))
    wrong = []
    for n, (step, bad, peer) in enumerate(peers):
        try:
            wait_for("delivery", lambda: len(peer.accepted) >= 1, 15)
        except AssertionError:
            wrong.append(f"{step} {bad.data[:30]!r}: not delivered")
        if step not in ("connect", "ehlo") and not daemon.log("deferred", recipient=f"r@d{n}.test"):
            # "250 ok\n" may be waited for, and its lost connection is then the reason
            wrong.append(f"{step} {bad.data[:30]!r}: believed")
    assert not wrong, "\n".join(wrong)
    assert not daemon.log("bounced")
    daemon.wait_empty()


def test_lines_of_two_minds(t):
    """Of a reply whose lines have different codes the last one counts, and the log says so"""
    daemon, peer = t.simple(
        peer={"rcpt": lambda s, a: Raw(b"450-4.2.0 later\r\n550 never\r\n") if a[0] == "x" else None}
    )
    daemon.submit("s@sender.test", ["x@a.test", "y@a.test"], letter())
    bounced = daemon.wait_log("bounced", recipient="x@a.test")[0]
    assert bounced["code"] == 550 and bounced["codes_differ"] == 1, bounced
    assert "codes_differ" not in daemon.wait_log("delivered", recipient="y@a.test")[0]


def test_endless_nonsense(t):
    """A peer that answers nonsense or hangs up at one step, always, is not hammered"""
    cases = [
        (step, bad)
        for step in ("connect", "ehlo", "mail", "rcpt", "data", "dot")
        for bad in (Then(Raw(b"what?\r\n"), Drop()), Drop())
    ]
    peers = [t.peer(f"127.0.1.{n + 1}", **{step: bad}) for n, (step, bad) in enumerate(cases)]
    t.dns({f"d{n}.test": peer.host for n, peer in enumerate(peers)})
    daemon = t.daemon()
    for n in range(len(cases)):
        daemon.submit("s@sender.test", [f"r@d{n}.test"], letter())
    wait_for("a connection to each", lambda: all(peer.sessions for peer in peers))
    time.sleep(5)
    for (step, bad), peer in zip(cases, peers):
        assert (
            1 <= len(peer.sessions) <= 30
        ), f"{step} {bad}: {len(peer.sessions)} connections in 5 s"
    assert sorted(daemon.queued()) == sorted(f"r@d{n}.test" for n in range(len(cases)))
    assert not daemon.log("bounced")


def test_careless_peer(t):
    """A 354 and 250 after all recipients were refused is not believed"""
    peer = t.peer(rcpt="550 5.1.1 unknown", careless=True, extensions=("PIPELINING",))
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    sender.wait(1)
    daemon.wait_empty()
    daemon.wait_log("bounced", recipient="r@a.test")
    assert not daemon.log("delivered", recipient="r@a.test")


def test_unannounced_chunk_failure(t):
    """BDAT whose recipients were all refused ends as their refusal says"""
    peer = t.peer(rcpt="550 5.1.1 unknown", extensions=CHUNKING)
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    sender.wait(20)
    daemon.wait_empty()
    daemon.wait_log("bounced", 20)


def test_greylisting(t):
    """A greylisted recipient is delivered by the quick first retry"""
    seen = {}

    def rcpt(session, address):
        first = seen.setdefault(address, time.monotonic())
        return "451 4.7.1 greylisted, try again" if time.monotonic() - first < 0.5 else None

    daemon, peer = t.simple(peer={"rcpt": rcpt}, retry_first="2s", retry_base="1h", retry_cap="1h")
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    wait_for("all", lambda: len(set(peer.recipients())) == 20, 15)
    daemon.wait_empty()
    assert len(peer.recipients()) == 20


def test_backoff(t):
    """Retries of a refused message spread out between half and one and a half of the schedule"""
    daemon, peer = t.simple(
        peer={"rcpt": "450 4.2.0 never"}, retry_first="1s", retry_base="2s", retry_cap="4s"
    )
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    wait_for("five attempts", lambda: len(peer.attempts) >= 5, 40)
    times = [when for when, _, _ in peer.attempts]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert 0.4 <= gaps[0] <= 1.7 + STALL_SECONDS, gaps
    assert all(0.9 <= gap <= 6 + STALL_SECONDS for gap in gaps[1:]), gaps
    wait_for("the fifth in the list", lambda: daemon.queue()[0]["attempts"] >= 5)


def test_site_down(t):
    """While a site is down it gets single probes, and everything when it comes back"""
    daemon, peer = t.simple(peer={"connect": "421 4.3.2 down"})
    for n in range(200):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    time.sleep(4)
    assert len(peer.sessions) < 60, f"{len(peer.sessions)} connections to a site that is down"
    peer.set(connect=None)
    peer.wait(200, 25)
    daemon.wait_empty()
    assert len(peer.recipients()) == 200


def test_nobody_listens(t):
    """A destination that refuses connections keeps its mail, and others are not held up"""
    peer = t.peer("127.0.0.2")
    t.dns({"dead.test": "127.0.0.9", "live.test": peer.host})
    daemon = t.daemon()
    for n in range(50):
        daemon.submit("s@sender.test", [f"r{n}@dead.test"], letter())
        daemon.submit("s@sender.test", [f"r{n}@live.test"], letter())
    peer.wait(50, 10)
    wait_for("fifty to wait", lambda: len(daemon.queued()) == 50)
    late = t.peer("127.0.0.9")
    late.wait(50, 25)
    daemon.wait_empty()


def test_slower_and_slower(t):
    """A site that answers ever slower gets fewer connections, and more again when it recovers"""
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": "127.0.0.2"})
    daemon = t.daemon(workers=1, connections_max=16, connection_idle="1s")
    for n in range(64):
        daemon.submit("s@sender.test", [f"quick{n}@a.test"], letter())
    daemon.wait_empty()
    peer.set(dot=Slow(1.5))
    for n in range(160):
        daemon.submit("s@sender.test", [f"slow{n}@a.test"], letter())
    most = wait_for("many connections", lambda: peer.open >= 8 and peer.open)
    wait_for("few connections", lambda: peer.open <= most // 4, 30)
    peer.set(dot="250 2.0.0 taken")
    daemon.wait_empty(60)
    assert len(set(peer.recipients())) == 224


def test_slow_tenant(t):
    """A domain with a slow peer does not slow another domain down"""
    slow = t.peer("127.0.0.2", dot=Slow(2))
    fast = t.peer("127.0.0.3")
    t.dns({"slow.test": slow.host, "fast.test": fast.host})
    daemon = t.daemon(connections_max=2)
    for n in range(30):
        daemon.submit("s@sender.test", [f"r{n}@slow.test"], letter())
    for n in range(100):
        daemon.submit("s@sender.test", [f"r{n}@fast.test"], letter())
    fast.wait(100)
    assert len(slow.accepted) < 30, "both took the same time"


def test_8bit_to_a_7bit_peer(t):
    """An 8-bit message never reaches a peer without 8BITMIME as it is: converted or refused"""
    peer = t.peer(extensions=("PIPELINING",))
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"], " BODY=8BITMIME")
        assert client.data(letter() + b"\xe4\xf6\xfc\r\n").code == 250
    wait_for("an outcome", lambda: peer.accepted or sender.accepted)
    if peer.accepted:
        assert max(peer.accepted[0].body) < 128
    else:
        assert b"5.6." in sender.accepted[0].body


def test_utf8_to_an_old_peer(t):
    """An internationalised address is never given to a peer without SMTPUTF8: 5.6.7"""
    peer = t.peer(extensions=("PIPELINING", "8BITMIME"))
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["grün@a.test"], " SMTPUTF8")
        assert client.data(letter()).code == 250
    report = sender.wait(1)[0]
    assert b"5.6.7" in report.body and not peer.messages
    daemon.wait_empty()


def test_too_large_for_a_peer(t):
    """A message above the SIZE of a peer fails with 5.3.4 without being sent"""
    peer = t.peer(extensions=("PIPELINING", "SIZE 5000"))
    sender = t.peer("127.0.0.3")
    t.dns({"a.test": peer.host, "sender.test": sender.host})
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@a.test"], letter(size=20000))
    assert b"5.3.4" in sender.wait(1)[0].body
    assert not peer.messages


@limit(90)
def test_hostile_many(t):
    """A thousand messages to a peer that fails at random all arrive, and none is lost"""
    dice = random.Random(7)

    def mishap(session, argument):
        n = dice.random()
        if n < 0.02:
            return Drop()
        if n < 0.07:
            return "451 4.3.0 mishap"
        if n < 0.08:
            return "421 4.3.2 mishap"
        return None

    daemon, peer = t.simple(peer={"mail": mishap, "rcpt": mishap, "dot": mishap}, retry_base="1s")
    ledger = Ledger()
    threads = []

    def send(part):
        with daemon.client() as client:
            client.ehlo()
            for n in range(250):
                client.submit("s@sender.test", [f"r{part}-{n}@a.test"], letter())
                ledger.promise(f"r{part}-{n}@a.test")

    for part in range(4):
        threads.append(threading.Thread(target=send, args=(part,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    wait_for("all", lambda: len(set(peer.recipients())) == 1000, 40)
    daemon.wait_empty(30)
    ledger.check(daemon, [peer])


def test_half_open_peer(t):
    """A peer that accepts connections in the kernel and never speaks is timed out"""
    with socket.socket() as silent:
        port = t.port()
        silent.bind(("127.0.0.2", port))
        silent.listen(100)
        t.peer_port = port
        t.dns({"a.test": "127.0.0.2"})
        daemon = t.daemon(greeting_timeout="1s")
        daemon.submit("s@sender.test", ["r@a.test"], letter())
        daemon.wait_log("deferred", recipient="r@a.test")
    peer = t.peer("127.0.0.2")
    peer.wait(1)


@limit(90)
def test_thousand_domains(t):
    """One message to a thousand domains: a thousand copies"""
    domains = [f"d{n}.test" for n in range(1000)]
    peer = t.peer()
    t.dns([f"{domain}. A {peer.host}" for domain in domains])
    daemon = t.daemon()
    daemon.submit("s@sender.test", [f"r@{domain}" for domain in domains], letter())
    wait_for("all copies", lambda: len(peer.recipients()) >= 1000, 40)
    daemon.wait_empty()
    assert sorted(peer.recipients()) == sorted(f"r@{domain}" for domain in domains)


def test_repeated_recipient(t):
    """A recipient that is named twice in a message is no reason to lose or bounce anything"""
    daemon, peer = t.simple()
    daemon.submit("s@sender.test", ["r@a.test", "r@a.test", "q@a.test"], letter())
    peer.wait(1)
    daemon.wait_empty()
    assert set(peer.recipients()) == {"r@a.test", "q@a.test"}
    assert not daemon.log("bounced")


def test_client_gone_after_the_dot(t):
    """A client that leaves without reading its 250: the message is delivered once, or not at all"""
    daemon, peer = t.simple()
    for n in range(20):
        client = daemon.client()
        client.ehlo()
        client.envelope("s@sender.test", [f"r{n}@a.test"])
        client.expect("DATA", 354)
        client.send(letter() + b".\r\n")
        client.close()
    daemon.submit("s@sender.test", ["last@a.test"], letter())
    wait_for("the last", lambda: "last@a.test" in peer.recipients())
    daemon.wait_empty()
    assert len(peer.recipients()) == len(set(peer.recipients()))


def test_odd_messages(t):
    """An empty message, headers alone, a body alone and a 100 KB header line arrive as they are"""
    daemon, peer = t.simple()
    messages = {
        "empty": b"",
        "head": b"Subject: head\r\n",
        "body": b"\r\nbody\r\n",
        "long": b"X-Long: " + b"y" * 100000 + b"\r\n\r\nx\r\n",
        "folded": b"X-Folded: a\r\n" + b" b\r\n" * 5000 + b"\r\nx\r\n",
    }
    taken = {}
    for name, message in messages.items():
        with daemon.client() as client:
            client.ehlo()
            client.envelope("s@sender.test", [f"{name}@a.test"])
            client.send(b"BDAT %d LAST\r\n%s" % (len(message), message))
            reply = client.reply()
            assert reply.code in (250, 500, 552, 554), (name, reply)
            taken[name] = reply.code == 250
    assert taken["empty"] and taken["head"] and taken["body"] and taken["folded"]
    for got in peer.wait(sum(taken.values())):
        name = got.recipients[0].split("@")[0]
        assert got.body.endswith(messages[name]), name
        assert got.body.startswith(b"Received: ")
