"""RFC 3461 and 6533: what a sender asks for is passed on, or done by us; read by other programs."""

import email
import email.policy
import os
import subprocess
import time

from harness import wait_for
from peer import EXTENSIONS, Then
from test_reports import PYTHON, parse, setting
from wire import letter

DSN = (*EXTENSIONS, "DSN")


def send(daemon, recipients, mail="", message=None, sender="s@sender.test"):
    """One message; `recipients` is {address: parameters}."""
    with daemon.client() as client:
        client.ehlo()
        client.expect(f"MAIL FROM:<{sender}>{mail}", 250)
        for address, parameters in recipients.items():
            client.expect(f"RCPT TO:<{address}>{parameters}", 250)
        assert client.data(message or letter()).code == 250


def blocks(message):
    """{local part: fields} of a report's recipients."""
    _, _, recipients, _ = parse(message)
    return {fields["Final-Recipient"].split("; ")[1].split("@")[0]: fields for fields in recipients}


def by_name(replies):
    return lambda session, address: replies.get(address.split("@")[0])


# ── passed on ──


def test_passed_on(t):
    """To a peer with DSN go RET, ENVID, NOTIFY and ORCPT as they came, and nothing that was not
    said; the success report is then its affair"""
    peer, sender = setting(t, extensions=DSN)
    daemon = t.daemon()
    send(
        daemon,
        {
            "a@fail.test": " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;orig+2Binal@x.test",
            "b@fail.test": "",
            "c@fail.test": " NOTIFY=NEVER",
            "d@fail.test": " NOTIFY=FAILURE ORCPT=utf-8;\\x{FC}@x.test",
        },
        " RET=HDRS ENVID=id+2B7",
    )
    peer.wait(1)
    daemon.wait_empty()
    commands = [c for session in peer.sessions for c in session.commands]
    mail = [c for c in commands if c.startswith("MAIL")]
    assert len(mail) == 1 and mail[0].endswith(" RET=HDRS ENVID=id+2B7"), mail
    assert [c for c in commands if c.startswith("RCPT")] == [
        "RCPT TO:<a@fail.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;orig+2Binal@x.test",
        "RCPT TO:<b@fail.test>",
        "RCPT TO:<c@fail.test> NOTIFY=NEVER",
        "RCPT TO:<d@fail.test> NOTIFY=FAILURE ORCPT=utf-8;\\x{FC}@x.test",
    ]
    assert sender.accepted == []  # a report would have been in the queue before its cause left


def test_peer_without_dsn(t):
    """A peer without DSN hears none of it, and we tell the sender of the successes asked for"""
    peer, sender = setting(t)
    daemon = t.daemon()
    send(
        daemon,
        {
            "yes@fail.test": " NOTIFY=SUCCESS ORCPT=rfc822;first@x.test",
            "no@fail.test": "",
            "failure@fail.test": " NOTIFY=FAILURE,DELAY",
            "never@fail.test": " NOTIFY=NEVER",
        },
        " RET=FULL ENVID=QQ7",
    )
    got = sender.wait(1)[0]
    daemon.wait_empty()
    commands = [c for session in peer.sessions for c in session.commands]
    assert not any(word in c for c in commands for word in ("RET=", "ENVID", "NOTIFY", "ORCPT"))
    _, whole, recipients, returned = parse(got)
    assert whole["Original-Envelope-Id"] == "QQ7" and len(recipients) == 1
    assert recipients[0]["Action"] == "relayed"
    assert recipients[0]["Original-Recipient"] == "rfc822;first@x.test"
    assert returned.get_content_type() == "text/rfc822-headers"  # FULL is for failures
    assert len(sender.accepted) == 1


def test_a_failure_after_dsn(t):
    """A peer with DSN that refuses leaves the report of the failure to us"""
    peer, sender = setting(t, extensions=DSN, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    send(daemon, {"r@fail.test": " NOTIFY=SUCCESS,FAILURE"})
    assert blocks(sender.wait(1)[0])["r"]["Action"] == "failed"


# ── one transaction, several ends ──

MIXED = {"bad": "550 5.1.1 gone", "late": "451 4.2.1 later"}


def test_success_and_failure_in_one_report(t):
    """Some succeed and are to be told of, some fail: one attempt, one report, an action each"""
    peer, sender = setting(t, rcpt=by_name(MIXED))
    daemon = t.daemon()
    wanted = " NOTIFY=SUCCESS,FAILURE"
    send(
        daemon,
        {f"{name}@fail.test": wanted for name in ("good", "bad", "fine")} | {"quiet@fail.test": ""},
        " RET=FULL",
        letter("mixed", "the body\r\n"),
    )
    got = sender.wait(1)[0]
    daemon.wait_empty()
    actions = {name: fields["Action"] for name, fields in blocks(got).items()}
    assert actions == {"good": "relayed", "fine": "relayed", "bad": "failed"}
    assert b"the body" in got.body  # RET=FULL, and one has failed
    assert [address for _, address, _ in peer.attempts].count("bad@fail.test") == 1
    assert len(sender.accepted) == 1


def test_all_actions_survive_a_crash(t):
    """Delivered, failed and delayed in one report; after kill -9 nothing of it is done again"""
    peer, sender = setting(t, rcpt=by_name(MIXED))
    daemon = t.daemon(warn="1ms", retry_first="1h", retry_base="1h", retry_cap="1h")
    wanted = " NOTIFY=SUCCESS,FAILURE,DELAY"
    send(daemon, {f"{name}@fail.test": wanted for name in ("good", "bad", "late")})
    fields = blocks(sender.wait(1)[0])
    actions = {name: block["Action"] for name, block in fields.items()}
    assert actions == {"good": "relayed", "bad": "failed", "late": "delayed"}
    assert fields["late"]["Will-Retry-Until"] and not fields["bad"]["Will-Retry-Until"]
    daemon.wait_queued("late@fail.test")
    daemon.outcomes_written()
    daemon.kill()
    daemon.start()
    assert daemon.queued() == ["late@fail.test"]
    time.sleep(1)
    assert len(peer.attempts) == 3 and len(sender.accepted) == 1


def test_delay_only_for_who_asked(t):
    """A warning names those with NOTIFY=DELAY or no NOTIFY, once"""
    peer, sender = setting(t, rcpt="451 4.2.1 later")
    daemon = t.daemon(warn="1s")
    send(
        daemon,
        {
            "asked@fail.test": " NOTIFY=DELAY",
            "default@fail.test": "",
            "failure@fail.test": " NOTIFY=FAILURE",
            "never@fail.test": " NOTIFY=NEVER",
        },
    )
    assert set(blocks(sender.wait(1)[0])) == {"asked", "default"}
    count = len(peer.attempts)
    wait_for("more attempts", lambda: len(peer.attempts) > count + 4)
    assert len(sender.accepted) == 1


def test_delay_of_who_was_not_sent(t):
    """A host that takes one recipient at a time, and that one not yet: a warning names them all"""

    def rcpt(session, address):
        return "452 4.5.3 too many" if session.message.recipients else None

    _, sender = setting(t, rcpt=rcpt, dot="451 4.2.1 later")
    daemon = t.daemon(warn="1s")
    send(daemon, {f"r{n}@fail.test": "" for n in range(4)})
    assert set(blocks(sender.wait(1)[0])) == {f"r{n}" for n in range(4)}


# ── internationalised reports ──


def international(message):
    """(report, recipient blocks, returned part) of a report after RFC 6533."""
    report = email.message_from_bytes(message.body, policy=email.policy.SMTPUTF8)
    parts = list(report.iter_parts())
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert parts[1].get_content_type() == "message/global-delivery-status"
    assert parts[1]["Content-Transfer-Encoding"] == "8bit"
    assert parts[0].get_content_charset() == "utf-8"
    text = parts[1].get_payload(decode=True)
    if text is None:  # Python takes it for a message
        text = parts[1].get_payload(0).as_bytes(policy=email.policy.SMTPUTF8)
    groups = text.decode("utf-8").strip().split("\r\n\r\n")
    fields = [dict(line.split(": ", 1) for line in g.split("\r\n")) for g in groups[1:]]
    return report, fields, parts[2]


def mail_command(peer):
    return [c for s in peer.sessions for c in s.commands if c.startswith("MAIL")][-1]


INTERNATIONAL = (
    "From: <s@sender.test>\r\nTo: <jürgen@fail.test>\r\nSubject: Grüße\r\n\r\nHallo Welt\r\n"
).encode()


def test_international_recipient(t):
    """The report about jürgen: UTF-8 in its second part, headers as message/global-headers; its
    own header is ASCII, so it needs 8BITMIME and no SMTPUTF8"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    orcpt = " ORCPT=utf-8;J\\x{FC}rgen@fail.test"
    send(daemon, {"jürgen@fail.test": orcpt}, " SMTPUTF8 RET=HDRS", INTERNATIONAL)
    got = sender.wait(1)[0]
    report, fields, returned = international(got)
    assert fields[0]["Final-Recipient"] == "utf-8; jürgen@fail.test"
    assert fields[0]["Original-Recipient"] == "utf-8;Jürgen@fail.test"
    assert fields[0]["Action"] == "failed" and fields[0]["Status"] == "5.1.1"
    assert returned.get_content_type() == "message/global-headers"
    assert "Grüße".encode() in got.body and b"Hallo" not in got.body
    mail = mail_command(sender)
    assert "SMTPUTF8" not in mail and "BODY=8BITMIME" in mail, mail


def test_international_sender(t):
    """To a sender with UTF-8 in the address the report goes with SMTPUTF8; RET=FULL returns
    message/global"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    send(
        daemon,
        {"jürgen@fail.test": ""},
        " SMTPUTF8 RET=FULL",
        INTERNATIONAL,
        sender="müller@sender.test",
    )
    got = sender.wait(1)[0]
    report, fields, returned = international(got)
    assert got.recipients == ["müller@sender.test"] and "SMTPUTF8" in mail_command(sender)
    assert str(report["To"]) == "müller@sender.test", report["To"]
    assert returned.get_content_type() == "message/global"
    assert INTERNATIONAL in got.body


def test_ascii_report_of_an_international_message(t):
    """ASCII addresses keep the plain types, whatever the message's headers are"""
    peer, sender = setting(t, rcpt="550 5.1.1 gone")
    daemon = t.daemon()
    orcpt = " ORCPT=utf-8;J\\x{FC}rgen@fail.test"
    send(daemon, {"r@fail.test": orcpt}, " SMTPUTF8 RET=HDRS", INTERNATIONAL)
    got = sender.wait(1)[0]
    report = email.message_from_bytes(got.body, policy=email.policy.SMTP)
    parts = list(report.iter_parts())
    assert parts[1].get_content_type() == "message/delivery-status"
    assert parts[1].get_payload()[1]["Original-Recipient"] == "utf-8;J\\x{FC}rgen@fail.test"
    assert parts[2].get_content_type() == "message/global-headers"


def test_peer_without_smtputf8(t):
    """A peer without SMTPUTF8 gets no message to jürgen: 5.6.7, told in a report"""
    plain = tuple(word for word in EXTENSIONS if word != "SMTPUTF8")
    peer, sender = setting(t, extensions=plain)
    daemon = t.daemon()
    send(daemon, {"jürgen@fail.test": ""}, " SMTPUTF8", INTERNATIONAL)
    _, fields, _ = international(sender.wait(1)[0])
    assert fields[0]["Status"] == "5.6.7" and peer.messages == []


# ── other people's parsers ──

SISIMAI = """
use Sisimai;
for my $file (@ARGV) {
    my $all = Sisimai->make($file, 'delivered' => 1) or next;
    for my $r (@$all) {
        print join(' ', $r->recipient->address, $r->action, $r->deliverystatus, $r->reason), qq(\\n);
    }
}
"""
FLUFL = """
import sys, email
from flufl.bounce import all_failures
for name in sys.argv[1:]:
    temporary, permanent = all_failures(email.message_from_binary_file(open(name, 'rb')))
    for kind, found in (("temporary", temporary), ("permanent", permanent)):
        for address in sorted(found):
            print(address.decode("utf-8"), kind)
"""


def lines_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


def test_other_parsers_read_all_kinds(t):
    """Sisimai and flufl.bounce read delays, mixed reports and those of LMTP deliveries"""
    replies = {"bad": "550 5.1.1 user unknown", "late": "451 4.2.1 mailbox busy"}
    peer, sender = setting(t, rcpt=by_name(replies))
    store = t.peer(
        "127.0.0.4",
        port=t.port(),
        dot=lambda s, m: Then(
            *["552 5.2.2 mailbox full" if "full" in r else "250 2.0.0 saved" for r in m.recipients]
        ),
    )
    routes = {"store.test": {"lmtp": True, "hosts": [f"{store.host}:{store.port}"]}}
    daemon = t.daemon(routes=routes, warn="1ms", retry_first="1h", retry_base="1h", retry_cap="1h")
    wanted = " NOTIFY=SUCCESS,FAILURE,DELAY"
    send(daemon, {f"{name}@fail.test": wanted for name in ("bad", "good", "late")})
    send(daemon, {f"{name}@store.test": wanted for name in ("kept", "full")})
    folder = os.path.join(t.folder, "reports")
    os.makedirs(folder)
    for n, message in enumerate(sender.wait(2)):
        with open(os.path.join(folder, f"{n}.eml"), "wb") as file:
            file.write(b"From MAILER-DAEMON Sat Aug  1 10:00:00 2026\n")
            file.write(message.body.replace(b"\r\n", b"\n"))
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    read = lines_of(PYTHON, "-c", FLUFL, *files)
    assert read == {
        "late@fail.test": ["temporary"],
        "bad@fail.test": ["permanent"],
        "full@store.test": ["permanent"],
    }, read
    read = lines_of("perl", "-e", SISIMAI, *files)
    assert read["bad@fail.test"] == ["failed", "5.1.1", "userunknown"], read
    assert read["full@store.test"] == ["failed", "5.2.2", "mailboxfull"], read
    assert read["late@fail.test"][:2] == ["delayed", "4.2.1"], read
    for name in ("good@fail.test", "kept@store.test"):
        assert name not in read or read[name][2] == "delivered", read
