"""TLS on both sides: what is offered, what is refused, what is proven, what is remembered."""

import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time

from certificates import Authority, section
from harness import alone, limit, need, wait_for
from mta import Postfix
from peer import Drop, Raw, Slow, Then
from wire import Client, Closed, letter

NAME = "mx.stafette.test"


def listener_with(t, *certificates, **settings):
    """A daemon with these certificates: (chain, key) each."""
    return t.daemon(certificate=[section(*one) for one in certificates], **settings)


def implicit_port(t, daemon_settings):
    port = t.port()
    daemon_settings[f'listener "127.0.0.1:{port}"'] = {"tls": "implicit"}
    return port


def tls_of(message):
    """What the trace line says of TLS; None: nothing."""
    found = re.search(r"with (\S+) id \w+\s+\(using (\S+) with cipher (\S+)\)", message.header)
    return found and found.groups()


# ── the listener ──


def test_starttls(t):
    """STARTTLS is offered, resets the session, is not offered again, and is told in the trace"""
    authority = Authority(t.folder)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME))
    with daemon.client() as client:
        assert "STARTTLS" in client.ehlo().lines
        client.expect("MAIL FROM:<s@sender.test>", 250)
        client.expect("STARTTLS now", 501)
        client.starttls(authority.client())
        client.expect("MAIL FROM:<s@sender.test>", 503)  # EHLO is forgotten
        assert "STARTTLS" not in client.ehlo().lines
        client.expect("RCPT TO:<r@a.test>", 503)  # and so is the transaction
        client.expect("STARTTLS", 503)
        assert client.submit("s@sender.test", ["r@a.test"], letter("m")).code == 250
        client.quit()
    message = peer.wait(1)[0]
    word, version, cipher = tls_of(message)
    assert (word, version) == ("ESMTPS", "TLSv1.3") and cipher.startswith("TLS_")
    assert daemon.wait_log("received")[0]["tls"] == f"TLSv1.3 {cipher}"
    with daemon.client() as client:
        client.ehlo()
        client.starttls(authority.client())
        client.ehlo()
        client.submit("s@sender.test", ["ü@a.test".encode().decode()], letter("u"), " SMTPUTF8")
    assert tls_of(peer.wait(2)[1])[0] == "UTF8SMTPS"


def test_not_offered(t):
    """Without a certificate, or where the listener has none, STARTTLS is neither listed nor taken"""
    daemon = t.daemon()
    with daemon.client() as client:
        assert "STARTTLS" not in client.ehlo().lines
        client.expect("STARTTLS", 502)
    authority = Authority(t.folder)
    port = t.port()
    settings = {f'listener "127.0.0.1:{port}"': {"tls": "none"}}
    listener_with(t, authority.make(NAME), name="none", **settings)
    with Client(port) as client:
        assert "STARTTLS" not in client.ehlo().lines
        client.expect("STARTTLS", 502)


def test_required(t):
    """A listener that requires TLS takes nothing else before it, and all after it"""
    authority = Authority(t.folder)
    port = t.port()
    settings = {f'listener "127.0.0.1:{port}"': {"tls": "require"}}
    t.dns({})
    listener_with(t, authority.make(NAME), **settings)
    with Client(port) as client:
        for command, code in (
            ("NOOP", 250),
            ("HELO client.test", 530),
            ("EHLO client.test", 250),
            ("MAIL FROM:<s@sender.test>", 530),
            ("RCPT TO:<r@a.test>", 530),
            ("DATA", 530),
            ("RSET", 530),
            ("VRFY someone", 530),
            ("HELP", 530),
        ):
            reply = client.expect(command, code)
            assert code != 530 or reply.enhanced == "5.7.0", (command, reply)
        client.send("BDAT 14 LAST\r\nMAIL FROM:<>\r\n")  # the chunk is no command
        assert client.reply().code == 503
        client.starttls(authority.client())
        client.ehlo()
        client.expect("MAIL FROM:<s@sender.test>", 250)
        client.quit()


def test_implicit(t):
    """TLS from the first byte on; who speaks in clear there is dropped, and so is TLS elsewhere"""
    authority = Authority(t.folder)
    settings = {}
    port = implicit_port(t, settings)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME), **settings)
    with Client(port, tls=authority.client()) as client:
        assert "STARTTLS" not in client.ehlo().lines
        client.submit("s@sender.test", ["r@a.test"], letter("m"))
        client.quit()
    assert tls_of(peer.wait(1)[0])[0] == "ESMTPS"
    with Client(port, greet=False) as client:
        client.send("EHLO client.test\r\n")
        assert not re.search(rb"250|220", drain(client.socket))
    daemon.wait_complaint("handshake failed")
    with daemon.client() as client:
        try:
            client.secure(authority.client())
            raise AssertionError("a handshake without STARTTLS")
        except OSError:  # ssl.SSLError is one
            pass


def drain(connection):
    """All that comes until the end."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except OSError:
        pass
    return data


def test_injection_into_the_listener(t):
    """Commands slipped in behind STARTTLS are never carried out; the session ends"""
    authority = Authority(t.folder)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME))
    attack = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<r@a.test>\r\n"
    whole = b"EHLO c\r\nMAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\nBDAT 3 LAST\r\nhi\n"
    table = [
        ("a command in the same packet", b"EHLO c\r\nSTARTTLS\r\n" + attack, b""),
        ("half a command in the same packet", b"EHLO c\r\nSTARTTLS\r\nMAIL FR", b""),
        ("a line end only", b"EHLO c\r\nSTARTTLS\r\n\r\n", b""),
        ("a NUL", b"EHLO c\r\nSTARTTLS\r\n\0", b""),
        ("a bare LF ends no STARTTLS", b"EHLO c\r\nSTARTTLS\n" + attack, b""),
        ("a ClientHello's first octet", b"EHLO c\r\nSTARTTLS\r\n\x16", b""),
        ("a command in the next packet", b"EHLO c\r\nSTARTTLS\r\n", attack),
        ("twice STARTTLS", b"EHLO c\r\nSTARTTLS\r\nSTARTTLS\r\n", b""),
        ("behind a message", whole + b"STARTTLS\r\n" + attack, b""),
    ]
    for name, first, second in table:
        with daemon.client() as client:
            client.send(first)
            if second:
                client.reply(), client.reply()
                client.send(second)
            said = drain(client.socket) if "bare LF" not in name else b""
            assert said.count(b"2.1.0") <= (name == "behind a message"), f"{name}: {said!r}"
            if "bare LF" in name:
                client.reply()
                assert client.reply().code == 500, name
    # A client may not carry them over the handshake either.
    with daemon.client() as client:
        client.ehlo()
        client.send(b"STARTTLS\r\nMAIL FROM:<evil@sender.test>\r\n")
        try:
            client.reply()
            client.secure(authority.client())
            raise AssertionError("the handshake went on")
        except (OSError, Closed):
            pass
    daemon.wait_complaint("behind STARTTLS", 6)
    daemon.wait_empty()
    assert not any(m.sender == "evil@sender.test" for m in peer.messages)


def test_verdict_before_tls(t):
    """Messages pipelined ahead of STARTTLS get their verdicts in clear, then TLS begins"""
    authority = Authority(t.folder)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME))
    with daemon.client() as client:
        client.ehlo()
        body = letter("m")
        client.send(
            b"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\n"
            + f"BDAT {len(body)} LAST\r\n".encode()
            + body
            + b"STARTTLS\r\n"
        )
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 220]
        client.secure(authority.client())
        client.ehlo()
        client.submit("s@sender.test", ["r@a.test"], letter("n"))
        client.quit()
    assert {m.subject: tls_of(m) is not None for m in peer.wait(2)} == {"m": False, "n": True}


def fingerprint(port, *arguments, name=NAME):
    """What openssl s_client says of a STARTTLS session."""
    return subprocess.run(
        [need("openssl", "openssl"), "s_client", "-starttls", "smtp", "-connect",
         f"127.0.0.1:{port}", "-servername", name, "-crlf", *arguments],
        input="QUIT\n", capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip


def test_certificates(t):
    """Each name gets its own certificate, an unknown one the first; ECDSA and RSA side by side"""
    authority = Authority(t.folder)
    daemon = listener_with(
        t,
        authority.make(NAME),
        authority.make("other.test", "*.other.test"),
        authority.make(NAME, kind="rsa"),
    )
    for name, subject in (
        (NAME, NAME),
        ("other.test", "other.test"),
        ("sub.other.test", "other.test"),
        ("deep.sub.other.test", NAME),
        ("nobody.test", NAME),
    ):
        assert f"CN = {subject}" in fingerprint(daemon.port, name=name), name
    ecdsa = fingerprint(daemon.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in ecdsa and "id-ecPublicKey" in ecdsa
    rsa = fingerprint(daemon.port, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert "ECDHE-RSA-AES128-GCM-SHA256" in rsa and "rsaEncryption" in rsa
    assert "Cipher is (NONE)" in fingerprint(
        daemon.port, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"
    )


def test_version_min(t):
    """version_min 1.3 refuses TLS 1.2"""
    authority = Authority(t.folder)
    daemon = listener_with(t, authority.make(NAME), tls_version_min="1.3")
    assert "Cipher is (NONE)" in fingerprint(daemon.port, "-tls1_2")
    assert "TLSv1.3, Cipher is TLS_" in fingerprint(daemon.port, "-tls1_3")


def test_tickets(t):
    """A ticket resumes the session, on whichever worker, in TLS 1.3 and 1.2"""
    authority = Authority(t.folder)
    daemon = listener_with(t, authority.make(NAME), workers=2)
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        context = authority.client()
        context.minimum_version = context.maximum_version = version
        session, reused = None, 0
        for _ in range(12):
            with daemon.client() as client:
                client.ehlo()
                client.starttls(context, session=session)
                client.ehlo()
                reused += client.socket.session_reused
                session = client.socket.session
        assert reused == 11, f"{version}: {reused} of 11"


def test_stalled_handshake(t):
    """A client that begins a handshake and falls silent is dropped in time, and no other waits"""
    authority = Authority(t.folder)
    daemon = listener_with(t, authority.make(NAME), tls_handshake="5s")
    with daemon.client() as stalled, daemon.client() as gone:
        for client in (stalled, gone):
            client.ehlo()
            client.expect("STARTTLS", 220)
            client.send(b"\x16\x03\x01")
        gone.close()
        with daemon.client() as client:
            client.ehlo()
            client.starttls(authority.client())
            client.ehlo()
        began = time.monotonic()
        drain(stalled.socket)
        assert time.monotonic() - began < 30  # far less than an idle session has
    daemon.wait_complaint("not finished in time")


def test_big_messages(t):
    """Messages of 3 MB come in and go out through TLS, octet for octet, several at once"""
    authority = Authority(t.folder)
    peer = t.peer(tls=authority.server("127.0.0.2"), extensions=("PIPELINING", "CHUNKING"))
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME))
    bodies = [letter(f"m{n}", size=3_000_000) for n in range(6)]
    clients = [daemon.client() for _ in bodies]
    for client in clients:
        client.ehlo()
        client.starttls(authority.client())
        client.ehlo()
    for n, (client, body) in enumerate(zip(clients, bodies)):
        assert client.submit("s@sender.test", [f"r{n}@a.test"], body).code == 250
        client.close()
    for message in peer.wait(len(bodies)):
        n = int(re.search(r"Subject: m(\d)", message.header).group(1))
        assert message.body.endswith(bodies[n]) and message.session.tls == "TLSv1.3"


def test_slow_reader(t):
    """A client that pipelines and does not read its replies is not read either, under TLS too"""
    authority = Authority(t.folder)
    daemon = listener_with(t, authority.make(NAME))
    with daemon.client() as client:
        client.ehlo()
        client.starttls(authority.client())
        client.ehlo()
        client.socket.settimeout(2)
        sent = 0
        try:
            for _ in range(2000):
                client.send(b"NOOP\r\n" * 1000)
                sent += 1000
        except TimeoutError:
            pass
        assert 0 < sent < 2_000_000, sent
        assert daemon.status("VmRSS") < 400_000


@limit(60)
def test_other_clients(t):
    """swaks, posttls-finger and smtplib speak TLS with the listener"""
    authority = Authority(t.folder)
    settings = {}
    port = implicit_port(t, settings)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = listener_with(
        t, authority.make(NAME), authority.make(NAME, kind="rsa"), **settings
    )
    swaks = [need("swaks", "swaks"), "--to", "r@a.test", "--from", "s@sender.test", "--silent", "2"]
    for how in (["-tls", "--port", str(daemon.port)], ["-tlsc", "--port", str(port)]):
        done = subprocess.run(
            [*swaks, "--server", "127.0.0.1", *how], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with smtplib.SMTP("127.0.0.1", daemon.port) as client:
        client.starttls(context=authority.client(verify=False))
        client.sendmail("s@sender.test", ["r@a.test"], letter("smtplib"))
    with smtplib.SMTP_SSL("127.0.0.1", port, context=authority.client(verify=False)) as client:
        client.sendmail("s@sender.test", ["r@a.test"], letter("smtplib"))
    assert all(tls_of(m)[0] == "ESMTPS" for m in peer.wait(4))
    config = os.path.join(t.folder, "config")
    os.makedirs(config)
    with open(os.path.join(config, "main.cf"), "w") as file:
        file.write("compatibility_level = 3.6\nmaillog_file = /dev/stdout\n")
    done = subprocess.run(
        [need("posttls-finger", "postfix"), "-c", "-l", "secure", "-F", authority.path,
         "-t", "60", f"[127.0.0.1]:{daemon.port}", NAME],
        capture_output=True, text=True, timeout=90, env={**os.environ, "MAIL_CONFIG": config},
    )  # fmt: skip
    assert "Verified TLS connection established" in done.stdout + done.stderr, done


def test_reload(t):
    """HUP reads the certificates again; sessions that are open keep theirs; a bad one changes nothing"""
    authority = Authority(t.folder)
    old, new = authority.make("old.test"), authority.make("new.test")
    used = [os.path.join(t.folder, name) for name in ("used.pem", "used.key")]
    for source, target in zip(old, used):
        shutil.copy(source, target)
    daemon = listener_with(t, used)
    context = authority.client(verify=False)
    with daemon.client() as client:
        client.ehlo()
        client.starttls(context)
        for source, target in zip(new, used):
            shutil.copy(source, target)
        daemon.signal(signal.SIGHUP)
        wait_for("the new one", lambda: "CN = new.test" in fingerprint(daemon.port))
        client.ehlo()
        shutil.copy(old[1], used[1])
        daemon.signal(signal.SIGHUP)
        wait_for("the complaint", lambda: "is not the key of" in daemon.errors())
        assert "CN = new.test" in fingerprint(daemon.port)
        client.quit()


def test_bad_files(t):
    """Keys that are open to others, don't fit, or aren't there are told, by the daemon and check-config"""
    authority = Authority(t.folder)
    chain, key = authority.make(NAME)
    other = authority.make("other.test")
    shared = os.path.join(t.folder, "open.key")
    shutil.copy(key, shared)
    os.chmod(shared, 0o644)
    empty = os.path.join(t.folder, "empty.pem")
    open(empty, "w").close()
    os.chmod(empty, 0o600)
    for name, files, words in (
        ("open", (chain, shared), "is open to everybody (mode 0644)"),
        ("unfit", (chain, other[1]), "is not the key of the certificate"),
        ("absent", (chain, key + "x"), "cannot be read"),
        ("no chain", (empty, key), "holds no certificate"),
        ("no key", (chain, empty), "holds no private key"),
    ):
        daemon = t.daemon(start=False, name=name, certificate=section(*files))
        assert words in daemon.tool("check-config", daemon.config_path, status=78).stderr, name
        daemon.start(ready=False)
        assert daemon.wait() == 78 and words in daemon.errors(), (name, daemon.errors())
    daemon = t.daemon(start=False, name="good", certificate=section(chain, key))
    assert daemon.tool("check-config", daemon.config_path).stderr == ""


def test_expired(t):
    """A certificate of ours that has expired is told, and no reason not to start"""
    files = Authority(t.folder).make(NAME, expired=True)
    daemon = t.daemon(certificate=section(*files))
    words = f"warning: the certificate in {files[0]} has expired"
    assert words in daemon.errors(), daemon.errors()
    assert words in daemon.tool("check-config", daemon.config_path).stderr
    said = daemon.tool("reload", "-c", daemon.config_path).stdout
    assert f"the certificate in {files[0]} has expired" in said, said


# ── delivery ──


def mx_name(domain="a.test"):
    return f"mx.{domain}"


def delivered_by(daemon, event="delivered", count=1, **fields):
    """The last of that event in the log."""
    return daemon.wait_log(event, count, **fields)[-1]


def test_delivery(t):
    """TLS is used where it is offered, with the host's name, and told in the log; EHLO comes again"""
    authority = Authority(t.folder)
    context = authority.server(mx_name())
    names = []
    context.sni_callback = lambda connection, name, _: names.append(name)
    t.dns({"a.test": "127.0.0.2"})
    peer = t.peer(tls=context)
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@a.test"], letter("m"))
    session = peer.wait(1)[0].session
    assert session.tls == "TLSv1.3" and names == [mx_name()]
    verbs = [command.split()[0] for command in session.commands]
    assert verbs[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"], verbs
    entry = delivered_by(daemon)
    assert entry["tls"].startswith("TLSv1.3 TLS_") and entry["tls_peer"] == "unverified"


def test_delivery_in_clear(t):
    """tls = none never asks for it; a host that offers none gets its mail in clear, and no line of TLS"""
    authority = Authority(t.folder)
    t.dns({"a.test": "127.0.0.2", "b.test": "127.0.0.3"})
    able = t.peer("127.0.0.2", tls=authority.server(mx_name()))
    unable = t.peer("127.0.0.3")
    daemon = t.daemon(routes={"a.test": {"tls": "none"}})
    daemon.submit("s@sender.test", ["r@a.test"], letter("m"))
    daemon.submit("s@sender.test", ["r@b.test"], letter("m"))
    for peer in (able, unable):
        session = peer.wait(1)[0].session
        assert session.tls is None and "STARTTLS" not in session.commands
    assert not any("tls" in entry for entry in daemon.wait_log("delivered", 2))


def test_verify(t):
    """verify delivers to a proven host alone: an authority we know, its own name, in its time"""
    authority, stranger = Authority(t.folder), Authority(t.folder, "stranger")
    hosts = {
        "good.test": (authority.server(mx_name("good.test")), None),
        "wild.test": (authority.server("*.wild.test"), None),
        "wrong.test": (authority.server("other.test"), "hostname mismatch"),
        "self.test": (authority.server(mx_name("self.test"), signed=False), "self-signed"),
        "strange.test": (stranger.server(mx_name("strange.test")), "unable to get local issuer"),
        "expired.test": (authority.server(mx_name("expired.test"), expired=True), "has expired"),
        "named.test": (authority.server("smtp.provider.test"), None),
        "clear.test": (None, "does not offer it"),
    }
    peers = {d: t.peer(f"127.0.1.{n}", tls=c) for n, (d, (c, _)) in enumerate(hosts.items(), 1)}
    t.dns({domain: peer.host for domain, peer in peers.items()})
    daemon = t.daemon(
        tls="verify",
        tls_ca_file=authority.path,
        routes={"named.test": {"tls_name": "smtp.provider.test"}},
    )
    for domain in hosts:
        daemon.submit("s@sender.test", [f"r@{domain}"], letter("m"))
    for domain, (_, complaint) in hosts.items():
        event = "deferred" if complaint else "delivered"
        entry = delivered_by(daemon, event, recipient=f"r@{domain}")
        if complaint:
            assert complaint in entry["reply"], (domain, entry)
            assert entry["enhanced"] == ("4.7.4" if domain == "clear.test" else "4.7.5"), entry
            assert not peers[domain].messages and not peers[domain].attempts
        else:
            assert entry["tls_peer"] == "verified", entry


def test_encrypt(t):
    """encrypt takes any certificate, and defers rather than send in clear"""
    authority = Authority(t.folder)
    t.dns({"a.test": "127.0.0.2", "b.test": "127.0.0.3", "c.test": "127.0.0.4"})
    able = t.peer("127.0.0.2", tls=authority.server("what.test", signed=False))
    unable = t.peer("127.0.0.3")
    unwilling = t.peer(
        "127.0.0.4", tls=authority.server(mx_name("c.test")), starttls="454 4.7.0 not now"
    )
    daemon = t.daemon(tls="encrypt")
    for domain in ("a.test", "b.test", "c.test"):
        daemon.submit("s@sender.test", [f"r@{domain}"], letter("m"))
    assert able.wait(1)[0].session.tls
    for domain in ("b.test", "c.test"):
        assert delivered_by(daemon, "deferred", recipient=f"r@{domain}")["enhanced"] == "4.7.4"
    assert not unable.attempts and not unwilling.attempts
    unwilling.set(starttls=None)
    assert unwilling.wait(1)[0].session.tls


def test_starttls_refused(t):
    """A host that refuses STARTTLS gets its mail in clear, in the same session"""
    authority = Authority(t.folder)
    t.dns({"a.test": "127.0.0.2"})
    peer = t.peer(tls=authority.server(mx_name()), starttls="454 4.7.0 not now")
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@a.test"], letter("m"))
    assert peer.wait(1)[0].session.tls is None and len(peer.sessions) == 1


BROKEN = {
    "garbage": Then("220 go on", Raw(b"this is no TLS\r\n" * 4), Slow(20, Drop())),
    "hangs up": Then("220 go on", Drop()),
    "resets": Then("220 go on", Drop(reset=True)),
    "stalls": Then("220 go on", Slow(60, Drop())),
    "no reply": Drop(),
    "injects": Raw(b"220 go on\r\n250-evil.test\r\n250 8BITMIME\r\n"),
    "injects later": Then("220 go on", Slow(0.3, Raw(b"250 evil.test\r\n")), Slow(20, Drop())),
}


def broken_handshake(t, name):
    authority = Authority(t.folder)
    t.dns({"may.test": "127.0.0.2", "must.test": "127.0.0.3"})
    context = authority.server("x.test")
    may = t.peer("127.0.0.2", tls=context, starttls=BROKEN[name])
    must = t.peer("127.0.0.3", tls=context, starttls=BROKEN[name])
    daemon = t.daemon(
        tls_handshake="1s", routes={"must.test": {"tls": "encrypt"}}, connection_idle="100ms"
    )
    daemon.submit("s@sender.test", ["r@must.test"], letter("m"))
    daemon.submit("s@sender.test", ["r@may.test"], letter("m"))
    assert may.wait(1)[0].session.tls is None
    assert may.sessions[0].commands == ["EHLO mx.stafette.test", "STARTTLS"]
    assert "its mail goes unencrypted" in daemon.errors()
    wait_for("the connection's end", lambda: may.messages[0].session.left)
    daemon.submit("s@sender.test", ["r@may.test"], letter("n"))
    may.wait(2)
    asked = sum("STARTTLS" in session.commands for session in may.sessions)
    assert asked <= 2, "forgot that it failed"  # once for each worker
    entry = delivered_by(daemon, "deferred", recipient="r@must.test")
    assert entry["enhanced"] == "4.7.5" and "TLS is required" in entry["reply"], entry
    assert not must.attempts
    daemon.stop()
    assert not daemon.log("deferred", recipient="r@may.test")
    forgive(may, must)


def forgive(*peers):
    """What these took for commands was a ClientHello. They hear nothing any more."""
    for peer in peers:
        peer.stop()
        wait_for("its sessions' end", lambda: peer.open == 0)
        peer.violations.clear()


def test_handshake_of_garbage(t):
    """Garbage for a handshake: in clear where that will do, and never elsewhere"""
    broken_handshake(t, "garbage")


def test_handshake_hangs_up(t):
    """A host that hangs up in the handshake: in clear where that will do, and never elsewhere"""
    broken_handshake(t, "hangs up")


def test_handshake_resets(t):
    """A host that resets in the handshake: in clear where that will do, and never elsewhere"""
    broken_handshake(t, "resets")


def test_handshake_stalls(t):
    """A host that stalls in the handshake: in clear where that will do, and never elsewhere"""
    broken_handshake(t, "stalls")


def test_starttls_without_reply(t):
    """A host that hangs up at STARTTLS: in clear where that will do, and never elsewhere"""
    broken_handshake(t, "no reply")


def test_injection_behind_220(t):
    """Replies slipped in behind the 220 end the connection before the handshake"""
    broken_handshake(t, "injects")


def test_injection_after_220(t):
    """Replies slipped in a moment after the 220 are no handshake"""
    broken_handshake(t, "injects later")


def test_forgets_first_ehlo(t):
    """What a host offered before TLS does not hold under it"""
    authority = Authority(t.folder)
    t.dns({"a.test": "127.0.0.2"})

    def ehlo(session, _):
        if session.tls:
            return "250 peer.test"
        return "250-peer.test\r\n250-CHUNKING\r\n250-SIZE 10\r\n250-DSN\r\n250 STARTTLS"

    peer = t.peer(tls=authority.server(mx_name()), ehlo=ehlo, extensions=())
    daemon = t.daemon()
    with daemon.client() as client:
        client.ehlo()
        client.submit("s@sender.test", ["r@a.test"], letter("m"), " RET=HDRS ENVID=x")
    message = peer.wait(1)[0]
    assert not message.chunked and message.parameters == "" and message.session.tls


@limit(60)
def test_resumption(t):
    """A second connection resumes the first one's session, also after the host broke it off"""
    authority = Authority(t.folder)
    t.dns({"a.test": "127.0.0.2", "b.test": "127.0.0.3"})
    context = authority.server(mx_name(), mx_name("b.test"))
    end = [Then("250 2.0.0 taken", Drop(reset=True)), None]
    peers = [t.peer("127.0.0.2", tls=context), t.peer("127.0.0.3", tls=context, dot=end)]
    daemon = t.daemon(
        workers=1,
        connection_idle="100ms",
        tls_ca_file=authority.path,
        routes={"b.test": {"tls": "verify"}},
    )
    for n in range(4):
        daemon.submit("s@sender.test", ["r@a.test"], letter(f"m{n}"))
        daemon.submit("s@sender.test", ["r@b.test"], letter(f"m{n}"))
        for peer in peers:
            peer.wait(n + 1)
            wait_for("the connection's end", lambda: peer.open == 0)
    for peer in peers:
        assert [s.resumed for s in peer.sessions] == [False, True, True, True]
    entry = delivered_by(daemon, count=4, recipient="r@b.test")
    assert entry["tls_resumed"] == 1 and entry["tls_peer"] == "verified"


def test_smarthost(t):
    """TLS from the first byte on towards a smarthost, proven by the name that the route gives it"""
    authority = Authority(t.folder)
    context = authority.server("smtp.provider.test")
    good = t.peer("127.0.0.2", port=t.port(), tls=context, implicit=True)
    clear = t.peer("127.0.0.3", port=t.port())
    t.dns({})
    route = {"tls": "verify", "tls_implicit": True, "tls_name": "smtp.provider.test"}
    daemon = t.daemon(
        routes={
            "a.test": {"hosts": [f"{good.host}:{good.port}"], **route},
            "b.test": {"hosts": [f"{clear.host}:{clear.port}"], "tls_implicit": True},
        },
        tls_ca_file=authority.path,
        tls_handshake="1s",
    )
    daemon.submit("s@sender.test", ["r@a.test"], letter("m"))
    daemon.submit("s@sender.test", ["r@b.test"], letter("m"))
    session = good.wait(1)[0].session
    assert session.tls and "STARTTLS" not in session.commands
    assert delivered_by(daemon)["tls_peer"] == "verified"
    assert delivered_by(daemon, "deferred", recipient="r@b.test")["enhanced"] == "4.7.5"
    assert not clear.attempts
    daemon.stop()
    forgive(clear)


# ── Postfix on the other side ──


def postfix_with(t, folder, settings):
    return t.keep(
        Postfix(os.path.join(t.folder, folder), t.peer_port or t.port(), settings), Postfix.stop
    )


def all_left(postfix):
    """Whether every client that has come has gone."""
    text = postfix.logged()
    return text.count(": connect from") == text.count(": disconnect from")


@alone
@limit(90)
def test_to_postfix_with_tls(t):
    """Postfix takes our mail with TLS, where it offers and where it requires it"""
    authority = Authority(t.folder)
    chain, key = authority.make(mx_name("pf.test"))
    t.peer_port = t.port()
    postfix = postfix_with(
        t,
        "postfix",
        {
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_cert_file": chain,
            "smtpd_tls_key_file": key,
            "smtpd_tls_received_header": "yes",
            "smtpd_tls_loglevel": "1",
            "smtpd_tls_session_cache_database": "",
            "relay_domains": "pf.test",
            "relay_transport": "discard",
        },
    )
    t.dns({"pf.test": postfix.host})
    daemon = t.daemon(tls="verify", tls_ca_file=authority.path, connection_idle="200ms", workers=1)
    with daemon.client() as client:
        client.ehlo()
        for n in range(50):
            assert client.submit("s@sender.test", ["r@pf.test"], letter(f"m{n}")).code == 250
        client.submit("s@sender.test", ["r@pf.test"], letter("big", size=2_000_000))
    daemon.wait_empty(40)
    assert len(daemon.wait_log("delivered", 51)) == 51
    assert len(daemon.log("delivered", tls_peer="verified")) == 51
    wait_for("TLS", lambda: "TLS connection established from" in postfix.logged())
    wait_for("the connections' end", lambda: all_left(postfix))
    daemon.submit("s@sender.test", ["r@pf.test"], letter("again"))
    assert delivered_by(daemon, count=52)["tls_resumed"] == 1


@alone
@limit(90)
def test_from_postfix_with_tls(t):
    """Postfix relays through us with STARTTLS proven, and by TLS from the first byte on"""
    authority = Authority(t.folder)
    settings = {}
    port = implicit_port(t, settings)
    peer = t.peer("127.0.0.2")
    t.dns({"a.test": peer.host})
    daemon = listener_with(t, authority.make(NAME), authority.make(NAME, kind="rsa"), **settings)
    tls = {
        "disable_dns_lookups": "yes",
        "smtp_tls_CAfile": authority.path,
        "smtp_tls_verify_cert_match": NAME,
        "smtp_tls_secure_cert_match": NAME,
        "smtp_tls_security_level": "secure",
    }
    submitted = 0
    for folder, more in (
        ("starttls", {"relayhost": f"[127.0.0.1]:{daemon.port}"}),
        ("wrapper", {"relayhost": f"[127.0.0.1]:{port}", "smtp_tls_wrappermode": "yes"}),
        ("old", {"relayhost": f"[127.0.0.1]:{daemon.port}", "smtp_tls_mandatory_protocols": "TLSv1.2"}),
    ):
        t.peer_port = None
        postfix = postfix_with(t, folder, {**tls, **more})
        for n in range(20):
            with Client(postfix.port, postfix.host) as client:
                client.ehlo()
                client.submit("s@sender.test", ["r@a.test"], letter(f"m{n}"))
        submitted += 20
        wait_for(f"{submitted} messages", lambda: len(peer.accepted) >= submitted, 40)
        postfix.stop()
    found = [tls_of(message) for message in peer.accepted]
    assert [word for word, *_ in found] == ["ESMTPS"] * submitted
    assert [v for _, v, _ in found].count("TLSv1.2") == 20
