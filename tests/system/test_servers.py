"""Real servers on both sides: mail to and from Postfix and OpenSMTPD."""

import glob
import os
import pwd
import shutil

from harness import alone, limit, wait_for
from ledger import Ledger
from mta import OpenSmtpd, Postfix
from wire import letter, submit


def maildir(path):
    """The messages of a maildir, CRLF again."""
    texts = []
    for name in glob.glob(os.path.join(path, "new", "*")):
        with open(name, "rb") as file:
            texts.append(file.read().replace(b"\n", b"\r\n"))
    return texts


@alone
@limit(90)
def test_to_postfix(t):
    """300 messages to Postfix mailboxes: all there, intact; unknown users bounce"""
    boxes = os.path.join(t.folder, "boxes")
    os.makedirs(boxes)
    shutil.chown(boxes, "postfix")
    users = os.path.join(t.folder, "users")
    with open(users, "w") as file:
        file.writelines(f"u{n}@pf.test u{n}/\n" for n in range(30))
    port = t.port()
    uid = pwd.getpwnam("postfix").pw_uid
    postfix = t.keep(
        Postfix(
            os.path.join(t.folder, "postfix"),
            port,
            {
                "virtual_mailbox_domains": "pf.test",
                "virtual_mailbox_base": boxes,
                "virtual_mailbox_maps": f"texthash:{users}",
                "virtual_minimum_uid": "1",
                "virtual_uid_maps": f"static:{uid}",
                "virtual_gid_maps": f"static:{uid}",
                "smtpd_client_connection_count_limit": "0",
            },
        ),
        Postfix.stop,
    )
    t.peer_port = port
    sender = t.peer("127.0.0.2")
    t.dns({"pf.test": postfix.host, "sender.test": sender.host})
    daemon = t.daemon()
    tail = b".\r\n..\r\n.dot\r\n" + "grüße\r\n".encode()
    with daemon.client() as client:
        client.ehlo()
        for n in range(300):
            client.envelope("s@sender.test", [f"u{n % 30}@pf.test"], " BODY=8BITMIME")
            assert client.data(letter(f"m{n}") + tail).code == 250
    daemon.submit("s@sender.test", ["nobody@pf.test", "u1@pf.test"], letter("half") + tail)
    daemon.wait_empty(40)
    wait_for(
        "301 messages in mailboxes",
        lambda: sum(len(maildir(os.path.join(boxes, f"u{n}"))) for n in range(30)) >= 301,
        30,
    )
    for n in range(30):
        for text in maildir(os.path.join(boxes, f"u{n}")):
            assert text.endswith(tail), text[-200:]
    assert b"nobody@pf.test" in sender.wait(1)[0].body and len(sender.accepted) == 1
    daemon.stop()
    assert len(daemon.log("delivered")) == 302  # and the report
    assert "improper command pipelining" not in postfix.logged()


@alone
@limit(90)
def test_from_postfix(t):
    """Postfix relays 200 messages through us; each arrives once"""
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": peer.host})
    daemon = t.daemon()
    postfix = t.keep(
        Postfix(
            os.path.join(t.folder, "postfix"),
            t.port(),
            {"relayhost": f"[127.0.0.1]:{daemon.port}", "disable_dns_lookups": "yes"},
        ),
        Postfix.stop,
    )
    ledger = Ledger()
    for n in range(200):
        submit(postfix.port, "s@sender.test", [f"r{n}@a.test"], letter(f"m{n}"), host=postfix.host)
        ledger.promise(f"r{n}@a.test")
    wait_for("200 messages", lambda: len(peer.accepted) >= 200, 40)
    daemon.wait_empty()
    ledger.check(daemon, [peer])
    wait_for("Postfix to know it", lambda: postfix.queued() == 0)


@alone
@limit(90)
def test_through_opensmtpd(t):
    """200 messages through OpenSMTPD to the end: intact, each once"""
    end = t.peer("127.0.0.2", port=t.port())
    port = t.port()
    server = t.keep(
        OpenSmtpd(os.path.join(t.folder, "opensmtpd"), port, (end.host, end.port)), OpenSmtpd.stop
    )
    t.peer_port = port
    t.dns({"os.test": server.host})
    daemon = t.daemon(connections_max=5)
    ledger = Ledger()
    tail = b".\r\n..\r\n.dot\r\n"
    with daemon.client() as client:
        client.ehlo()
        for n in range(200):
            client.submit("s@sender.test", [f"r{n}@os.test"], letter(f"m{n}") + tail)
            ledger.promise(f"r{n}@os.test")
    daemon.wait_empty(40)
    wait_for("200 messages", lambda: len(end.accepted) >= 200, 40)
    assert all(m.body.endswith(tail) for m in end.accepted)
    ledger.check(daemon, [end])


@alone
@limit(60)
def test_from_opensmtpd(t):
    """OpenSMTPD relays 50 messages through us; each arrives once"""
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": peer.host})
    daemon = t.daemon()
    server = t.keep(
        OpenSmtpd(os.path.join(t.folder, "opensmtpd"), t.port(), ("127.0.0.1", daemon.port)),
        OpenSmtpd.stop,
    )
    for n in range(50):
        submit(server.port, "s@sender.test", [f"r{n}@a.test"], letter(f"m{n}"), host=server.host)
    wait_for("50 messages", lambda: len(peer.accepted) >= 50, 30)
    daemon.wait_empty()
    assert sorted(peer.recipients()) == sorted(f"r{n}@a.test" for n in range(50))
