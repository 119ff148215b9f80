"""Delivery by LMTP: an outcome for each recipient after the dot, to Dovecot and to a script."""

import glob
import os
import time

from harness import wait_for
from mailstore import MailStore
from peer import Drop, Then
from test_reports import parse
from wire import letter

CHUNKING = ("PIPELINING", "CHUNKING", "8BITMIME", "ENHANCEDSTATUSCODES")
CLASSIC = ("8BITMIME", "ENHANCEDSTATUSCODES")


def route(*hosts, **more):
    return {"store.test": {"lmtp": True, "accept": True, "hosts": list(hosts), **more}}


def store(t, *users):
    return t.keep(MailStore(os.path.join(t.folder, "dovecot"), t.port(), users), MailStore.stop)


def senders(t):
    """Where reports go, and its name server."""
    sender = t.peer("127.0.0.3")
    t.dns({"sender.test": sender.host})
    return sender


def submit(daemon, recipients, message, notify=""):
    """To several recipients, with the same NOTIFY parameter for each."""
    with daemon.client() as client:
        client.ehlo()
        client.expect("MAIL FROM:<s@sender.test> RET=HDRS ENVID=letter+2B1", 250)
        for recipient in recipients:
            client.expect(f"RCPT TO:<{recipient}>{notify}", 250)
        assert client.data(message).code == 250


def actions(report):
    """{recipient: (Action, Status)} of a report."""
    _, _, recipients, _ = parse(report)
    return {
        fields["Final-Recipient"].split(";")[1].strip(): (fields["Action"], fields["Status"])
        for fields in recipients
    }


def saved(dovecot, address, message):
    """Whether the mailbox has this message once, whole, below trace lines."""
    mails = dovecot.mail(address)
    return len(mails) == 1 and mails[0].endswith(message)


# ── Dovecot ──


def test_dovecot_by_tcp(t):
    """Several recipients in one transaction: two mailboxes, one over quota, one unknown"""
    dovecot = store(t, "ann@store.test", "bob@store.test", ("full@store.test", 1000))
    sender = senders(t)
    daemon = t.daemon(routes=route(f"{dovecot.host}:{dovecot.port}"))
    message = letter("to several", ".dots\r\n..\r\n" + "long " * 100 + "\r\n" * 40, size=3000)
    names = ("ann@store.test", "nobody@store.test", "bob@store.test", "full@store.test")
    daemon.submit("s@sender.test", names, message)
    report = sender.wait(1)[0]
    assert actions(report) == {
        "nobody@store.test": ("failed", "5.1.1"),
        "full@store.test": ("failed", "5.2.2"),
    }
    for address in ("ann@store.test", "bob@store.test"):
        assert saved(dovecot, address, message), dovecot.logged()
    assert dovecot.mail("full@store.test") == []
    daemon.wait_empty()
    daemon.stop()
    assert {e["recipient"] for e in daemon.log("delivered", site="store.test")} == {
        "ann@store.test",
        "bob@store.test",
    }
    assert not daemon.log("possible-duplicate")


def test_dovecot_by_socket(t):
    """Through a UNIX socket: 200 messages, 8-bit text and a big one, each in its mailbox once"""
    dovecot = store(t, "ann@store.test", "bob@store.test")
    daemon = t.daemon(routes=route(dovecot.socket), tls="encrypt", source6="::1")
    big = letter("big", size=2 << 20)
    daemon.submit("s@sender.test", ["ann@store.test", "bob@store.test"], big)
    with daemon.client() as client:
        client.ehlo()
        for number in range(200):
            text = letter(f"n{number}", f"number {number} für ann\r\n")
            assert client.submit("s@sender.test", ["ann@store.test"], text).code == 250
    daemon.wait_empty()
    assert saved(dovecot, "bob@store.test", big)
    mails = dovecot.mail("ann@store.test")
    assert len(mails) == 201, len(mails)
    for number in range(200):
        text = letter(f"n{number}", f"number {number} für ann\r\n")
        assert sum(mail.endswith(text) for mail in mails) == 1, number
    assert daemon.wait_log("delivered")[0]["address"] == dovecot.socket


def test_dovecot_is_away(t):
    """A store that is down, or whose socket is missing, is tried again; nothing is lost"""
    dovecot = store(t, "ann@store.test")
    daemon = t.daemon(routes=route(dovecot.socket))
    dovecot.stop()
    daemon.submit("s@sender.test", ["ann@store.test"], letter("patient"))
    event = daemon.wait_log("deferred", recipient="ann@store.test")[0]
    assert dovecot.socket in event["reply"] and "connect" in event["reply"], event
    dovecot.start()
    wait_for("the mail", lambda: saved(dovecot, "ann@store.test", letter("patient")))
    daemon.wait_empty()


def test_dovecot_success_report(t):
    """NOTIFY=SUCCESS: the mailbox has it, and the report says `delivered`, not `relayed`"""
    dovecot = store(t, "ann@store.test")
    sender = senders(t)
    daemon = t.daemon(routes=route(dovecot.socket))
    submit(daemon, ["ann@store.test"], letter(), " NOTIFY=SUCCESS")
    report = sender.wait(1)[0]
    assert actions(report) == {"ann@store.test": ("delivered", "2.0.0")}
    _, whole, recipients, returned = parse(report)
    assert whole["Original-Envelope-Id"] == "letter+1"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert recipients[0]["Remote-MTA"] is None  # a socket has no name that means anything elsewhere


# ── a script ──


def verdicts(by_name):
    """A script for the end of the data: the reply to each recipient by its local part."""

    def dot(session, message):
        replies = [by_name[name.partition("@")[0]] for name in message.recipients]
        return Then(*replies)

    return dot


def scripted(t, extensions, **steps):
    peer = t.peer("127.0.0.2", port=t.port(), extensions=extensions, **steps)
    return peer, f"{peer.host}:{peer.port}"


MIXED = {
    "ok": "250 2.1.5 saved",
    "bad": "550 5.2.1 mailbox is closed",
    "late": "452 4.2.2 mailbox is full",
}


def check_mixed(t, extensions):
    """ok is delivered once, bad reported once, late tried until it is delivered."""
    replies = dict(MIXED)
    peer, host = scripted(t, extensions, dot=verdicts(replies))
    sender = senders(t)
    daemon = t.daemon(routes=route(host))
    daemon.submit(
        "s@sender.test", ["late@store.test", "bad@store.test", "ok@store.test"], letter("mixed")
    )
    assert actions(sender.wait(1)[0]) == {"bad@store.test": ("failed", "5.2.1")}
    daemon.wait_log("deferred", recipient="late@store.test")
    daemon.wait_queued("late@store.test")
    replies["late"] = MIXED["ok"]
    daemon.wait_log("delivered", recipient="late@store.test")
    daemon.wait_empty()
    daemon.stop()
    assert all(m.recipients == ["late@store.test"] for m in peer.messages[1:])
    assert len(daemon.log("delivered", site="store.test")) == 2
    assert len(daemon.log("bounced")) == 1 and not daemon.log("possible-duplicate")
    assert peer.sessions[0].commands[0] == "LHLO mx.stafette.test"


def test_mixed_verdicts_by_data(t):
    """Delivered, failed and deferred in one transaction, DATA, no pipelining"""
    check_mixed(t, CLASSIC)


def test_mixed_verdicts_by_bdat(t):
    """Delivered, failed and deferred in one transaction, one flight with BDAT"""
    check_mixed(t, CHUNKING)


def test_lost_between_replies(t):
    """A connection that dies among the replies leaves only those without one unknown"""
    calls = []

    def dot(session, message):
        calls.append(message.recipients)
        if len(calls) == 1:  # a, b: their replies are given; c, d: not
            return Then(MIXED["ok"], MIXED["bad"], Drop(reset=False))
        return Then(*[MIXED["ok"]] * len(message.recipients))

    peer, host = scripted(t, CHUNKING, dot=dot)
    sender = senders(t)
    daemon = t.daemon(routes=route(host))
    names = [f"{name}@store.test" for name in "abcd"]
    daemon.submit("s@sender.test", names, letter("lost"))
    daemon.wait_empty()
    daemon.stop()
    assert calls[0] == names and sorted(calls[1]) == names[2:] and len(calls) == 2, calls
    assert actions(sender.wait(1)[0]) == {"b@store.test": ("failed", "5.2.1")}
    twice = {event["recipient"] for event in daemon.log("possible-duplicate")}
    assert twice == {"c@store.test", "d@store.test"}


def in_journal(daemon, text):
    """Whether a reply stands in the journal: a name, written with the outcome that has it."""
    for path in glob.glob(os.path.join(daemon.spool, "jnl", "*")):
        with open(path, "rb") as file:
            if text.encode() in file.read():
                return True
    return False


def test_mixed_verdicts_survive_a_crash(t):
    """After kill -9 the delivered stay delivered, the failed reported, the deferred queued"""
    replies = dict(MIXED)
    peer, host = scripted(t, CHUNKING, dot=verdicts(replies))
    sender = senders(t)
    hour = {"retry_first": "1h", "retry_base": "1h", "retry_cap": "1h"}
    daemon = t.daemon(routes=route(host), workers=1, **hour)
    names = ["bad@store.test", "late@store.test", "ok@store.test"]
    daemon.submit("s@sender.test", names, letter("crash"))
    sender.wait(1)
    daemon.wait_queued("late@store.test")
    # One worker's outcomes reach its journal in order: with this one the others are durable.
    replies["last"] = "452 4.2.2 the last outcome of all"
    daemon.submit("s@sender.test", ["last@store.test"], letter("last"))
    wait_for("the last outcome on the disk", lambda: in_journal(daemon, replies["last"][10:]))
    daemon.kill()
    daemon.start()
    waiting = daemon.queue()
    assert sorted(r["address"] for entry in waiting for r in entry["recipients"]) == [
        "last@store.test",
        "late@store.test",
    ]
    assert all(entry["next_attempt"] > time.time() + 600 for entry in waiting), waiting
    assert len(peer.messages) == 2 and len(sender.accepted) == 1


def test_the_same_recipient_twice(t):
    """Two RCPTs for one mailbox get two replies, and each its outcome"""
    peer, host = scripted(t, CHUNKING, dot=lambda s, m: Then(*[MIXED["ok"]] * len(m.recipients)))
    daemon = t.daemon(routes=route(host))
    daemon.submit("s@sender.test", ["a@store.test", "a@store.test"], letter("twice"))
    daemon.submit("s@sender.test", ["b@store.test"], letter("after"))
    daemon.wait_empty()
    daemon.stop()
    assert sorted(peer.recipients())[-1] == "b@store.test"
    assert not daemon.log("deferred") and not daemon.log("possible-duplicate")


def test_no_hello_of_another_kind(t):
    """A server that refuses LHLO is never spoken to in SMTP"""
    peer, host = scripted(t, CHUNKING, ehlo="500 5.5.1 what is LHLO?")
    daemon = t.daemon(routes=route(host))
    daemon.submit("s@sender.test", ["a@store.test"], letter())
    daemon.wait_log("deferred", recipient="a@store.test")
    commands = {command for session in peer.sessions for command in session.commands}
    assert commands == {"LHLO mx.stafette.test"}, commands
