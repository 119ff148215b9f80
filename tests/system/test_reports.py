"""Bounces and delay reports, read by programs that are not ours."""

import email
import email.policy
import os
import signal
import subprocess
import threading
import time

from harness import need, wait_for
from peer import Raw
from wire import letter

PYTHON = "/usr/bin/python3"  # Debian's own, which sees Debian's modules


def parse(message):
    """(whole report, [fields of the message], [fields of each recipient], returned part)"""
    report = email.message_from_bytes(message.body, policy=email.policy.SMTP)
    assert report.get_content_type() == "multipart/report", report.get_content_type()
    assert report.get_param("report-type") == "delivery-status"
    parts = list(report.iter_parts())
    assert [p.get_content_type() for p in parts[:2]] == ["text/plain", "message/delivery-status"]
    assert parts[2].get_content_type() in ("message/rfc822", "text/rfc822-headers")
    blocks = parts[1].get_payload()
    return report, blocks[0], blocks[1:], parts[2]


def setting(t, **steps):
    """A failing peer for fail.test, a mailbox for sender.test, a daemon."""
    peer = t.peer("127.0.0.2", **steps)
    sender = t.peer("127.0.0.3")
    t.dns({"fail.test": peer.host, "sender.test": sender.host})
    return peer, sender


def test_form_of_a_bounce(t):
    """A bounce has all that RFC 3464 wants, from the null sender, to the sender alone"""
    peer, sender = setting(t, rcpt="550-5.1.1 no such user\r\n550 5.1.1 ask elsewhere")
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["nobody@fail.test"], letter("lost letter", "secret body\r\n"))
    got = sender.wait(1)[0]
    assert got.sender == "" and got.recipients == ["s@sender.test"]
    report, whole, recipients, returned = parse(got)
    assert report["From"] and "mailer-daemon" in report["From"].lower() and "@" in report["From"]
    assert "s@sender.test" in report["To"]
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["Date"] and report["Message-ID"] and report["Subject"] and report["MIME-Version"]
    assert whole["Reporting-MTA"] == "dns; mx.stafette.test" and whole["Arrival-Date"]
    assert len(recipients) == 1
    fields = recipients[0]
    assert fields["Final-Recipient"].replace(" ", "") == "rfc822;nobody@fail.test"
    assert fields["Action"] == "failed" and fields["Status"] == "5.1.1"
    assert fields["Remote-MTA"].startswith("dns;")
    diagnostic = fields["Diagnostic-Code"]
    assert diagnostic.startswith("smtp;") and "550" in diagnostic and "ask elsewhere" in diagnostic
    assert fields["Last-Attempt-Date"]
    assert "lost letter" in returned.as_string()  # whether the body goes back is ours to decide
    readable = list(report.iter_parts())[0].get_content()
    assert "nobody@fail.test" in readable and "no such user" in readable
    assert all(len(line) <= 998 for line in got.body.split(b"\r\n"))
    daemon.wait_empty()
    assert len(sender.accepted) == 1


def test_together(t):
    """Recipients of a message that fail together are in one report, a block for each"""
    replies = {"one": "550 5.1.1 gone", "two": "550 5.2.1 disabled", "three": "554 5.7.1 policy"}
    peer, sender = setting(t, rcpt=lambda session, address: replies.get(address.split("@")[0]))
    daemon = t.daemon()
    daemon.submit(
        "s@sender.test", [f"{n}@fail.test" for n in ("one", "good", "two", "three")], letter()
    )
    _, _, recipients, _ = parse(sender.wait(1)[0])
    assert sorted(r["Status"] for r in recipients) == ["5.1.1", "5.2.1", "5.7.1"]
    daemon.wait_empty()
    assert len(sender.accepted) == 1 and peer.recipients() == ["good@fail.test"]


def test_independent_parsers(t):
    """Sisimai and flufl.bounce read our bounces: addresses, codes and reasons"""
    replies = {
        "unknown": "550 5.1.1 <unknown@fail.test>: user unknown",
        "full": "552 5.2.2 mailbox full",
        "plain": "550 go away",
    }
    peer, sender = setting(t, rcpt=lambda session, address: replies.get(address.split("@")[0]))
    daemon = t.daemon()
    for name in replies:
        daemon.submit("s@sender.test", [f"{name}@fail.test"], letter(name))
    folder = os.path.join(t.folder, "bounces")
    os.makedirs(folder)
    for n, message in enumerate(sender.wait(3)):
        with open(os.path.join(folder, f"{n}.eml"), "wb") as file:
            file.write(b"From MAILER-DAEMON Sat Aug  1 10:00:00 2026\n")
            file.write(message.body.replace(b"\r\n", b"\n"))
    script = (
        "use Sisimai; for my $file (@ARGV) { my $all = Sisimai->make($file) or next;"
        " for my $r (@$all) { print join(' ', $r->recipient->address, $r->deliverystatus,"
        " $r->reason, $r->addresser->address, $r->replycode), qq(\\n); } }"
    )
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    need("perl", "perl")
    done = subprocess.run(
        ["perl", "-e", script, *files], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    read = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert set(read) == {f"{name}@fail.test" for name in replies}, done.stdout + done.stderr
    assert read["unknown@fail.test"][:3] == ["5.1.1", "userunknown", "s@sender.test"], read
    assert read["full@fail.test"][:2] == ["5.2.2", "mailboxfull"], read
    assert all(fields[-1] in ("550", "552") for fields in read.values()), read
    script = (
        "import sys, email\nfrom flufl.bounce import scan_message\n"
        "for name in sys.argv[1:]:\n"
        "    found = scan_message(email.message_from_binary_file(open(name, 'rb')))\n"
        "    print(*sorted(a.decode() for a in found))\n"
    )
    done = subprocess.run(
        [PYTHON, "-c", script, *files], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {f"{name}@fail.test" for name in replies}, done.stdout


def test_expiry(t):
    """At expiry a deferred message fails with the status of its last error"""
    peer, sender = setting(t, rcpt="450 4.2.1 not today")
    daemon = t.daemon(expire="5s")
    started = time.monotonic()
    daemon.submit("s@sender.test", ["r@fail.test"], letter())
    _, whole, recipients, _ = parse(sender.wait(1, 25)[0])
    assert time.monotonic() - started >= 4
    assert recipients[0]["Action"] == "failed" and recipients[0]["Status"] == "4.2.1"
    assert "not today" in recipients[0]["Diagnostic-Code"]
    daemon.wait_log("expired", recipient="r@fail.test")
    daemon.wait_empty()
    assert not peer.accepted and len(sender.accepted) == 1


def test_expiry_while_down(t):
    """Mail for a site that never answered expires too, after a refused probe"""
    _, sender = setting(t)
    t.nameserver.replace(
        [
            "dead.test. MX 10 mx.dead.test.",
            "mx.dead.test. A 127.0.0.77",
            "sender.test. MX 10 mx.sender.test.",
            "mx.sender.test. A 127.0.0.3",
        ]
    )
    daemon = t.daemon(expire="5s")
    for n in range(5):
        daemon.submit("s@sender.test", [f"r{n}@dead.test"], letter())
    for report in sender.wait(5, 25):
        _, _, recipients, _ = parse(report)
        assert recipients[0]["Status"].startswith("4."), recipients[0].as_string()
    daemon.wait_empty()


def test_delay_warning(t):
    """A delayed message is reported once, with what will happen, and delivered later"""
    peer, sender = setting(t, rcpt="450 4.2.1 wait")
    daemon = t.daemon(warn="2s")
    daemon.submit("s@sender.test", ["r@fail.test"], letter())
    _, _, recipients, returned = parse(sender.wait(1, 20)[0])
    assert recipients[0]["Action"] == "delayed" and recipients[0]["Status"] == "4.2.1"
    assert recipients[0]["Will-Retry-Until"]
    assert returned.get_content_type() == "text/rfc822-headers"
    attempts = len(peer.attempts)
    wait_for("two more attempts", lambda: len(peer.attempts) >= attempts + 2)
    peer.set(rcpt=None)
    peer.wait(1)
    daemon.wait_empty()
    assert len(sender.accepted) == 1, "warned more than once"


def test_no_bounce_of_a_bounce(t):
    """From <> no report is made; it is logged, and goes to the postmaster where one is set"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    daemon.submit("", ["r@fail.test"], letter("orphan"))
    daemon.wait_log("bounced", recipient="r@fail.test")
    daemon.wait_empty()
    other = t.daemon(name="other", postmaster="pm@sender.test")
    other.submit("", ["r@fail.test"], letter("orphan"))
    got = sender.wait(1)
    assert got[0].recipients == ["pm@sender.test"] and got[0].sender == ""
    other.wait_empty()
    assert len(sender.accepted) == 1
    # and a report that cannot be delivered itself ends there
    sender.set(rcpt="550 5.1.1 gone too")
    daemon.submit("s@sender.test", ["r@fail.test"], letter())
    daemon.wait_log("bounced", recipient="s@sender.test")
    daemon.wait_empty()


def test_postmaster_comes_and_goes(t):
    """A reload that takes postmaster away while its reports are being made: they arrive, or are none"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon(postmaster="pm@sender.test")
    count, message = 120, letter("orphan", size=1_500_000)

    def reload(**settings):
        daemon.configure(**settings)
        daemon.signal(signal.SIGHUP)

    done = threading.Event()

    def toggle():
        while not done.is_set():
            reload(postmaster=None)
            time.sleep(0.01)
            reload(postmaster="pm@sender.test")
            time.sleep(0.01)

    changing = threading.Thread(target=toggle)
    changing.start()
    try:
        for _ in range(count):
            daemon.submit("", ["r@fail.test"], message)
        daemon.wait_log("bounced", count)
    finally:
        done.set()
        changing.join()
    daemon.wait_empty()
    assert {tuple(m.recipients) for m in sender.accepted} <= {("pm@sender.test",)}


def test_notify(t):
    """NOTIFY, RET, ENVID and ORCPT are honoured in the reports"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()

    def send(subject, mail, rcpt):
        with daemon.client() as client:
            client.ehlo()
            client.expect(f"MAIL FROM:<s@sender.test>{mail}", 250)
            client.expect(f"RCPT TO:<{subject}@fail.test>{rcpt}", 250)
            assert client.data(letter(subject, "the body\r\n")).code == 250

    send("never", "", " NOTIFY=NEVER")
    send("delayonly", "", " NOTIFY=DELAY")
    send("headers", " RET=HDRS ENVID=QQ+2B314", " NOTIFY=FAILURE ORCPT=rfc822;orig+2Binal@x.test")
    send("full", " RET=FULL", " NOTIFY=FAILURE,DELAY")
    reports = sender.wait(2)
    daemon.wait_empty()
    assert len(sender.accepted) == 2
    for report in reports:
        _, whole, recipients, returned = parse(report)
        if "headers@" in recipients[0]["Final-Recipient"]:
            assert whole["Original-Envelope-Id"] == "QQ+314"
            assert recipients[0]["Original-Recipient"].replace(" ", "") == "rfc822;orig+inal@x.test"
            assert returned.get_content_type() == "text/rfc822-headers"
            assert b"the body" not in report.body
        else:
            assert b"the body" in report.body


def test_bad_notify(t):
    """NEVER stands alone; bad values of the DSN parameters are 501 5.5.4"""
    daemon = t.daemon()
    with daemon.client() as client:
        assert "DSN" in client.ehlo().lines
        for mail in (" RET=ALL", " ENVID=" + "x" * 101):
            reply = client.command(f"MAIL FROM:<s@sender.test>{mail}")
            assert (reply.code, reply.enhanced) == (501, "5.5.4"), (mail, reply)
        client.expect("MAIL FROM:<s@sender.test>", 250)
        for rcpt in (" NOTIFY=NEVER,SUCCESS", " NOTIFY=MAYBE", " ORCPT=nothing"):
            reply = client.command(f"RCPT TO:<r@fail.test>{rcpt}")
            assert (reply.code, reply.enhanced) == (501, "5.5.4"), (rcpt, reply)


def test_success_report(t):
    """NOTIFY=SUCCESS towards a peer without DSN is answered with a `relayed` report"""
    peer, sender = setting(t)
    daemon = t.daemon()
    with daemon.client() as client:
        assert "DSN" in client.ehlo().lines
        client.expect("MAIL FROM:<s@sender.test>", 250)
        client.expect("RCPT TO:<r@fail.test> NOTIFY=SUCCESS", 250)
        assert client.data(letter()).code == 250
    _, _, recipients, _ = parse(sender.wait(1)[0])
    assert recipients[0]["Action"] == "relayed" and recipients[0]["Status"].startswith("2.")


def test_hostile_reply_in_a_report(t):
    """A reply full of control characters and markup breaks neither the report nor the log"""
    evil = b'550 5.1.1 "\\x \x01\x1b[31m\xff\xfe {"event":"delivered"} ' + b"y" * 400 + b"\r\n"
    peer, sender = setting(t, rcpt=Raw(evil))
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@fail.test"], letter())
    got = sender.wait(1)[0]
    _, _, recipients, _ = parse(got)
    status = got.body.split(b"message/delivery-status")[1]
    assert not any(byte in status for byte in b"\x01\x1b\xff"), "raw bytes of a peer in a report"
    assert recipients[0]["Status"] == "5.1.1" and len(recipients) == 1
    daemon.stop()
    assert len(daemon.log("bounced")) == 1  # log() reads every line as JSON


def test_bounce_of_a_large_message(t):
    """The report of a 20 MiB message is made without holding it in memory whole"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@fail.test"], letter("large", size=20 << 20))
    report = sender.wait(1, 30)[0]
    assert len(report.body) < 25 << 20
    parse(report)
    daemon.wait_empty()
