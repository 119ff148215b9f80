"""Signatures of DKIM, verified by programs that are not ours: dkimpy and OpenDKIM."""

import os
import re
import signal
import subprocess

from harness import need, wait_for

PYTHON = "/usr/bin/python3"  # Debian's own, which sees Debian's modules

# Reads a message, and "NAME TXT" lines of records; prints a verdict for each signature.
VERIFY = """
import sys, dkim
records = dict(line.rstrip("\\n").split(" ", 1) for line in open(sys.argv[2]))
message = open(sys.argv[1], "rb").read()
def txt(name, timeout=5):
    return records.get(name.decode().rstrip("."), "").encode()
count = sum(line.lower().startswith(b"dkim-signature:") for line in message.split(b"\\r\\n"))
for index in range(count):
    d = dkim.DKIM(message)
    print(d.verify(idx=index, dnsfunc=txt), d.signature_fields[b"a"].decode())
"""

MESSAGES = {
    "ordinary": b"From: a@sign.test\r\nTo: b@a.test\r\nSubject: hello\r\n\r\nHello.\r\n",
    "empty body": b"From: a@sign.test\r\nSubject: x\r\n\r\n",
    "no final line end": b"From: a@sign.test\r\n\r\nno end",
    "white space": b"From: a@sign.test\r\n\r\n a  b \t\r\n\t c \r\n \r\n\r\n\r\n",
    "8-bit header": b"From: \xe4\xf6 <a@sign.test>\r\nSubject: \xfc  \xdf\r\n\r\n\xe4\r\n",
    "long lines": b"From: a@sign.test\r\nX: " + b"x" * 900 + b"\r\n\r\n" + b"y" * 998 + b"\r\n",
    "dots": b"From: a@sign.test\r\n\r\n.\r\n..\r\n.x\r\n",
    "folded and repeated": b'FROM:\r\n\t"A, B"\r\n <a@sign.test> (c)\r\nTo: x\r\nTo:  y\r\n'
    b"Subject: a\r\n b\r\n\tc\r\nCc:\r\ncc: z\r\n\r\nbody\r\n",
    "nested multipart": b"From: a@sign.test\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="o"\r\n\r\n--o\r\n'
    b'Content-Type: multipart/alternative; boundary="i"\r\n\r\n--i\r\n\r\none\r\n--i\r\n'
    b"Content-Type: text/html\r\n\r\n<p>two  </p>\r\n--i--\r\n\r\n--o--\r\nend",
    "one click": b"From: a@sign.test\r\nList-Unsubscribe: <https://a.test>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nx\r\n",
    "big": b"From: a@sign.test\r\n\r\n" + b"many  words \r\n\r\n" * 100000,
}


class Keys:
    """Made by our own tool, in the test's folder; records as the tool says."""

    def __init__(self, t):
        self.folder, self.records = t.folder, {}

    def make(self, daemon, kind, domain, selector):
        path = os.path.join(self.folder, f"{selector}.{domain}.pem")
        text = daemon.tool(
            "dkim-key", "--type", kind, "--domain", domain, "--selector", selector, path
        ).stdout
        line = next(line for line in text.splitlines() if " TXT " in line)
        name, value = line.split(" TXT ", 1)
        self.records[name.rstrip(".")] = value
        return path

    def zone(self):
        return [f"{name}. TXT {value}" for name, value in self.records.items()]

    def save(self):
        """For dkimpy: one string each."""
        path = os.path.join(self.folder, "records")
        with open(path, "w", encoding="ascii") as file:
            for name, value in self.records.items():
                file.write(f"{name} {value.replace(chr(34) + ' ' + chr(34), '').strip(chr(34))}\n")
        return path


def setting(t, **options):
    """A daemon that signs for sign.test with RSA and Ed25519: (daemon, peer, keys)."""
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": peer.host})
    keys = Keys(t)
    maker = t.daemon(start=False, name="maker")
    domain = {
        'key "r1"': {"file": keys.make(maker, "rsa", "sign.test", "r1")},
        'key "e1"': {"file": keys.make(maker, "ed25519", "sign.test", "e1")},
        **options.pop("domain", {}),
    }
    dkim = {'domain "sign.test"': domain, **options.pop("dkim", {})}
    t.nameserver.write(["a.test. MX 10 mx.a.test.", f"mx.a.test. A {peer.host}", *keys.zone()])
    t.nameserver.stop()
    t.nameserver.start()
    return t.daemon(dkim=dkim, **options), peer, keys


def verify(t, keys, body, name="message"):
    """What dkimpy says of each signature: ["True rsa-sha256", ...]."""
    path = os.path.join(t.folder, name)
    with open(path, "wb") as file:
        file.write(body)
    run = subprocess.run(
        [PYTHON, "-c", VERIFY, path, keys.save()], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n")[:-1]


BOTH = ["True rsa-sha256", "True ed25519-sha256"]


def deliver_all(t, daemon, peer, keys):
    for name, message in MESSAGES.items():
        before = len(peer.accepted)
        daemon.submit("s@sign.test", ["b@a.test"], message)
        got = peer.wait(before + 1, seconds=30)[-1]
        assert got.body.startswith(b"DKIM-Signature: v=1;"), (name, got.body[:100])
        verdicts = verify(t, keys, got.body)
        assert verdicts == BOTH, (name, verdicts, got.body[:3000])


def test_relaxed(t):
    """dkimpy verifies both signatures of odd messages, relaxed and relaxed"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t)
    deliver_all(t, daemon, peer, keys)
    entry = daemon.wait_log("received", len(MESSAGES))[0]
    assert entry["dkim"] == "sign.test r1 e1", entry


def test_simple(t):
    """dkimpy verifies both signatures of odd messages, simple and simple"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t, domain={"header": "simple", "body": "simple"})
    deliver_all(t, daemon, peer, keys)


def test_classic(t):
    """The same where the peer has neither CHUNKING nor PIPELINING"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t, chunking=False, pipelining=False)
    deliver_all(t, daemon, peer, keys)


def test_opendkim(t):
    """OpenDKIM verifies both signatures of odd messages"""
    tool = need("opendkim", "opendkim")
    daemon, peer, keys = setting(t)
    config = os.path.join(t.folder, "opendkim.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"Mode v\nSyslog no\nTestPublicKeys {keys.save()}\n")
    path = os.path.join(t.folder, "message")
    for number, (name, message) in enumerate(MESSAGES.items(), 1):
        daemon.submit("s@sign.test", ["b@a.test"], message)
        with open(path, "wb") as file:
            file.write(peer.wait(number, seconds=30)[-1].body)
        run = subprocess.run(
            [tool, "-x", config, "-vv", "-t", path], capture_output=True, text=True, timeout=60
        )
        for algorithm in ("rsa-sha256", "ed25519-sha256"):
            found = [line for line in run.stdout.split("dkim=") if f"header.a={algorithm}" in line]
            assert len(found) == 1 and found[0].startswith("pass "), (name, run.stdout, run.stderr)


def test_not_signed(t):
    """What cannot be signed is delivered as it came, and the log says why, once"""
    daemon, peer, _ = setting(t)
    cases = {
        "none: no From:": b"Subject: x\r\n\r\nx\r\n",
        "none: several From:": b"From: a@sign.test\r\nFrom: b@sign.test\r\n\r\nx\r\n",
        "none: no key for the domain of From:": b"From: a@else.test\r\n\r\nx\r\n",
        "none: malformed header": b"From: a@sign.test\r\nnonsense\r\n\r\nx\r\n",
    }
    for number, (why, message) in enumerate(cases.items(), 1):
        daemon.submit("s@sign.test", ["b@a.test"], message)
        got = peer.wait(number)[-1]
        assert got.body.startswith(b"Received:"), got.body
        assert daemon.wait_log("received", number)[-1]["dkim"] == why


def test_strangers(t):
    """Mail from clients that are not trusted is not signed, unless the operator says so"""
    routes = {"a.test": {"accept": True}}
    daemon, peer, _ = setting(t, routes=routes, trusted=["192.0.2.0/24"])
    daemon.submit("s@sign.test", ["b@a.test"], MESSAGES["ordinary"])
    assert peer.wait(1)[0].body.startswith(b"Received:")
    assert daemon.wait_log("received")[0]["dkim"] == "none: not from a trusted client"
    daemon.configure(dkim={**daemon.settings["dkim"], "sign_relayed": True})
    daemon.restart()
    daemon.submit("s@sign.test", ["b@a.test"], MESSAGES["ordinary"])
    assert peer.wait(2)[1].body.startswith(b"DKIM-Signature:")


def test_report(t):
    """Our own reports are signed, where there is a key for our name; and quote no signature"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t, hostname="mx.sign.test", domain={"subdomains": True})
    peer.set(rcpt=lambda session, address: "550 5.1.1 gone" if "nobody" in address else None)
    daemon.submit("s@a.test", ["nobody@a.test"], MESSAGES["ordinary"])
    report = peer.wait(1)[0]
    assert report.sender == "" and b"multipart/report" in report.body
    assert verify(t, keys, report.body) == BOTH
    assert report.body.count(b"DKIM-Signature:") == 2


def test_after_a_restart(t):
    """A message that waits keeps its signatures through kill -9, and `stafette show` has them"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t)
    peer.set(rcpt="451 4.3.0 later")
    daemon.submit("s@sign.test", ["b@a.test"], MESSAGES["ordinary"])
    identity = daemon.wait_log("deferred")[0]["id"]
    daemon.kill()
    daemon.start()
    shown = daemon.tool("show", "-c", daemon.config_path, identity, "--content").stdout
    assert shown.startswith("DKIM-Signature: v=1;") and "\nHello." in shown, shown
    peer.set(rcpt=None)
    assert verify(t, keys, peer.wait(1, seconds=40)[0].body) == BOTH


def test_reload(t):
    """HUP reads the keys again; one that cannot be read or is open leaves the old ones in use"""
    need(PYTHON, "python3-dkim")
    daemon, peer, keys = setting(t)
    path = os.path.join(t.folder, "e1.sign.test.pem")
    os.chmod(path, 0o644)
    daemon.signal(signal.SIGHUP)
    daemon.wait_errors(re.escape(f"{path} is open to others"))
    said = daemon.tool("check-config", daemon.config_path, status=78).stderr
    assert f"{path} is open to others" in said, said
    daemon.submit("s@sign.test", ["b@a.test"], MESSAGES["ordinary"])
    assert verify(t, keys, peer.wait(1)[0].body) == BOTH
    os.unlink(path)
    keys.make(daemon, "ed25519", "sign.test", "e1")  # another key under the old name
    lines = daemon.errors().count("\n")
    daemon.signal(signal.SIGHUP)
    wait_for("the reload", lambda: daemon.errors().count("\n") > lines)
    daemon.submit("s@sign.test", ["b@a.test"], MESSAGES["ordinary"])
    assert verify(t, keys, peer.wait(2)[1].body) == BOTH


def test_check_dkim(t):
    """check-dkim compares keys and name server, and says what to publish"""
    daemon, _, keys = setting(t)
    config = daemon.config_path
    good = daemon.tool("check-dkim", "-c", config, "sign.test").stdout
    assert good.count(": good") == 2, good
    records = keys.zone()
    swapped = records[1].replace("p=", "p=AAAA")
    t.nameserver.write([swapped])
    t.nameserver.stop()
    t.nameserver.start()
    bad = daemon.tool("check-dkim", "-c", config, "sign.test", status=65).stdout
    assert "r1._domainkey.sign.test: there is no record" in bad, bad
    assert "e1._domainkey.sign.test: it has another key" in bad, bad
    for line in records:
        assert line in bad, (line, bad)
    one = daemon.tool("check-dkim", "-c", config, "sign.test", "--selector", "e1", status=65).stdout
    assert "r1._domainkey" not in one
