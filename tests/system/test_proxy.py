"""Who speaks for others: PROXY headers, XCLIENT; and limits that are told on both sides."""

import os
import re
import socket
import ssl
import subprocess
import time

from certificates import Authority, section
from harness import need, wait_for
from wire import Client, Closed, letter

V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOREIGN = "PROXY TCP4 192.0.2.77 198.51.100.1 4711 25\r\n"
TRUSTED = "PROXY TCP4 127.9.9.9 198.51.100.1 4711 25\r\n"


def for_proxies(port, **options):
    """The setting of a listener for proxies on 127.0.0.1."""
    listener = {"proxy_protocol": True, "proxy_networks": ["127.0.0.1/32"], **options}
    return {f'listener "127.0.0.1:{port}"': listener}


def proxied(t, *certificates, **options):
    """A daemon and the port of such a listener."""
    port = t.port()
    settings = for_proxies(port, **options)
    if certificates:
        settings["certificate"] = [section(*one) for one in certificates]
    return t.daemon(**settings), port


def connect(port, header, **options):
    """A client behind a proxy that says `header`."""
    client = Client(port, greet=False, **options)
    client.send(header)
    client.greeting = client.reply()
    return client


def relayed(client, recipient="r@a.test"):
    """Whether the client may send to anywhere."""
    client.ehlo()
    client.expect("MAIL FROM:<s@sender.test>", 250)
    return client.command(f"RCPT TO:<{recipient}>").code == 250


# ── PROXY headers ──


def test_header(t):
    """The address in the header counts for permission, in Received: and in the log"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon, port = proxied(t)
    for header in (
        FOREIGN,
        V2 + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 77, 198, 51, 100, 1]) + b"\x12\x67\x00\x19",
        "PROXY TCP6 2001:db8::7 ::1 4711 25\r\n",
        "PROXY UNKNOWN\r\n",  # the proxy's own address is trusted, its nameless clients are not
    ):
        with connect(port, header) as client:
            assert client.greeting.code == 220
            assert not relayed(client), header
    with connect(port, TRUSTED) as client:
        client.ehlo()
        client.submit("s@sender.test", ["r@a.test"], letter("m"))
    assert "[127.9.9.9]" in peer.wait(1)[0].header
    assert daemon.wait_log("received")[0]["client"] == "127.9.9.9"
    with connect(port, V2 + b"\x20\x00\x00\x00") as client:  # LOCAL: the proxy itself
        assert relayed(client)


def test_header_in_pieces(t):
    """A header may come octet by octet, and with the client's commands right behind it"""
    _, port = proxied(t)
    with Client(port, greet=False) as client:
        for octet in FOREIGN:
            client.send(octet)
            time.sleep(0.002)
        assert client.reply().code == 220
    with Client(port, greet=False) as client:
        client.send(FOREIGN + "EHLO client.test\r\nNOOP\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(4)] == [220, 250, 250, 221]


def test_header_missing(t):
    """Who is no proxy is refused at once; what is no header, or comes too late, is the end"""
    port, hasty = t.port(), t.port()
    listeners = {**for_proxies(port, proxy_header="60s"), **for_proxies(hasty, proxy_header="300ms")}
    daemon = t.daemon(workers=1, **listeners)
    with Client(port, source="127.0.0.3") as client:
        assert (client.greeting.code, client.greeting.enhanced) == (554, "5.7.1")
        assert client.closed()
    assert daemon.wait_complaint("not one of proxy_networks")[0]["client"] == "127.0.0.3"
    with Client(port, greet=False) as client:
        client.send("EHLO client.test\r\n")
        assert client.closed()
    daemon.wait_complaint("not a PROXY header (no PROXY header)")
    with Client(port, greet=False) as client:
        client.send(V2 + b"\x21\x11\x00\x04abcd")
        assert client.closed()
    daemon.wait_complaint("too short for its addresses")
    with Client(hasty, greet=False) as client:
        try:
            client.send("PROXY TCP4 192.0.2.77")
        except OSError:  # too late even for that
            pass
        assert client.closed()
    daemon.wait_complaint("was not there in time")
    with Client(port, greet=False) as client:  # a proxy's health check by connecting
        pass
    with connect(port, FOREIGN) as client:  # the one worker has seen that by now
        assert client.greeting.code == 220
    daemon.stop()
    assert len(daemon.log("complaint")) == 4


def test_header_limits(t):
    """Sessions are counted by the address in the header, not by the proxy's"""
    port = t.port()
    listener = {"proxy_protocol": True, "proxy_networks": ["127.0.0.1"]}
    settings = {f'listener "127.0.0.1:{port}"': listener}
    t.daemon(sessions_per_address_max=2, **settings)
    with connect(port, FOREIGN) as one, connect(port, FOREIGN) as two:
        assert one.greeting.code == two.greeting.code == 220
        with connect(port, FOREIGN) as three:
            assert three.greeting.code == 421
        with connect(port, FOREIGN.replace(".77", ".78")) as other:
            assert other.greeting.code == 220

    def again():
        with connect(port, FOREIGN) as one, connect(port, FOREIGN) as two:
            return one.greeting.code == two.greeting.code == 220

    wait_for("the sessions to be over", again)


def test_header_before_tls(t):
    """The header comes before TLS, where TLS comes first and where STARTTLS begins it"""
    authority = Authority(t.folder)
    certificate = authority.make("mx.stafette.test")
    peer = t.peer()
    t.dns({"a.test": peer.host})
    _, port = proxied(t, certificate, tls="implicit")
    with Client(port, greet=False) as client:
        client.send(TRUSTED)
        client.secure(authority.client())
        assert client.reply().code == 220
        client.ehlo()
        client.submit("s@sender.test", ["r@a.test"], letter("m"))
    header = peer.wait(1)[0].header
    assert "[127.9.9.9]" in header and "with ESMTPS" in header
    first_flight(port, authority)


def first_flight(port, authority):
    """The header and the first bytes of TLS in one segment."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="mx.stafette.test")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        early = FOREIGN.encode()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(early + outgoing.read())
                early = b""
                incoming.write(connection.recv(65536))
        connection.sendall(outgoing.read())
        while True:
            try:
                assert tls.read(100).startswith(b"220 ")
                return
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))


def haproxy(t, listener, option):
    """HAProxy in front of that port; the port on which it takes clients."""
    program = need("haproxy", "haproxy")
    port = t.port()
    path = os.path.join(t.folder, f"haproxy-{port}.cfg")
    with open(path, "w") as file:
        file.write(
            "defaults\n mode tcp\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
            f"listen smtp\n bind 127.0.0.1:{port}\n"
            f" server stafette 127.0.0.1:{listener} {option}\n"
        )
    process = subprocess.Popen([program, "-q", "-db", "-f", path])

    def end(process):
        process.kill()
        process.wait()

    t.keep(process, end)

    def ready():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for("haproxy to listen", ready)
    return port


def test_haproxy(t):
    """HAProxy's headers of both versions, its checks, and TLS that passes through it"""
    authority = Authority(t.folder)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon, port = proxied(t, authority.make("mx.stafette.test"))
    options = (
        "send-proxy",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
        "send-proxy-v2 check inter 100ms fall 10000",  # however slow the answers are
    )
    for number, option in enumerate(options):
        front = haproxy(t, port, option)
        with Client(front, source="127.0.0.55") as client:
            client.ehlo()
            client.submit("s@sender.test", ["r@a.test"], letter(f"m{number}"))
            client.starttls(authority.client())
            client.ehlo()
            client.submit("s@sender.test", ["r@a.test"], letter(f"s{number}"))
            client.quit()
    messages = peer.wait(2 * len(options))
    assert all("[127.0.0.55]" in message.header for message in messages)
    received = daemon.wait_log("received", 2 * len(options))
    assert {entry["client"] for entry in received} == {"127.0.0.55"}
    daemon.stop()
    assert not daemon.log("complaint")


# ── XCLIENT ──


def xclient(t, **settings):
    port = t.port()
    listener = {"xclient_networks": ["127.0.0.5/32"]}
    return t.daemon(**{f'listener "127.0.0.1:{port}"': listener}, **settings), port


def test_xclient(t):
    """Only who may is offered XCLIENT; after it another client stands at the greeting"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon, port = xclient(t)
    with Client(port) as client:
        assert "XCLIENT" not in client.ehlo().text
        assert client.expect("XCLIENT ADDR=192.0.2.1", 550).enhanced == "5.7.0"
    with Client(port, source="127.0.0.5") as client:
        assert any(line.startswith("XCLIENT NAME ADDR PORT") for line in client.ehlo().lines)
        client.expect("XCLIENT ADDR=192.0.2.1 PORT=4711 NAME=[UNAVAILABLE]", 220)
        client.expect("MAIL FROM:<s@sender.test>", 503)
        assert not relayed(client)
        client.expect("XCLIENT ADDR=127.0.0.1", 503)
        client.expect("RSET", 250)
        client.expect("XCLIENT ADDR=localhost", 501)
        client.expect("XCLIENT ADDR=[UNAVAILABLE]", 220)
        assert not relayed(client)
        client.expect("RSET", 250)
        client.expect("XCLIENT ADDR=192.0.2.1 LOGIN=ann+40x.test HELO=h.test PROTO=ESMTP", 220)
        client.submit("s@sender.test", ["r@a.test"], letter("login"))  # HELO is known
        client.expect("XCLIENT ADDR=192.0.2.1", 220)
        assert not relayed(client)  # nobody is logged in any more
        client.expect("RSET", 250)
        client.expect("XCLIENT ADDR=127.3.3.3", 220)
        client.ehlo()
        client.submit("s@sender.test", ["r@a.test"], letter("address"))
    first, second = sorted(peer.wait(2), key=lambda m: m.subject != "login")
    assert re.match(r"Received: from h.test \(\[192.0.2.1\]\)\s+by \S+ \(stafette\) with ESMTP",
                    first.header)  # fmt: skip
    assert "([127.3.3.3])" in second.header
    received = daemon.wait_log("received", 2)
    assert [entry["client"] for entry in received] == ["192.0.2.1", "127.3.3.3"]
    assert received[0]["user"] == "ann@x.test"


def test_xclient_limits(t):
    """Sessions are counted by the address that XCLIENT gives, and given back"""
    _, port = xclient(t, sessions_per_address_max=1)
    with Client(port, source="127.0.0.5") as one:
        one.expect("XCLIENT ADDR=192.0.2.1", 220)
        with Client(port, source="127.0.0.5") as two:  # 127.0.0.5 is free again
            two.expect("XCLIENT ADDR=192.0.2.1", 421)
            assert two.closed()
        one.expect("XCLIENT ADDR=192.0.2.2", 220)

        def free():
            with Client(port, source="127.0.0.5") as two:
                greeted = two.greeting.code == 220
                return greeted and two.command("XCLIENT ADDR=192.0.2.1").code == 220

        wait_for("192.0.2.1 to be free", free)


def test_xclient_swaks(t):
    """swaks speaks for another client"""
    swaks = need("swaks", "swaks")
    peer = t.peer()
    t.dns({"a.test": peer.host})
    _, port = xclient(t)
    done = subprocess.run(
        [swaks, "--server", "127.0.0.1", "--port", str(port), "--local-interface", "127.0.0.5",
         "--from", "s@sender.test", "--to", "r@a.test", "--ehlo", "c.test",
         "--xclient-addr", "127.4.4.4", "--xclient-name", "c.test",
         "--xclient-proto", "ESMTP", "--body", "hi"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "([127.4.4.4])" in peer.wait(1)[0].header


def test_xclient_behind_proxy(t):
    """With both, the address in the PROXY header decides who may use XCLIENT"""
    _, port = proxied(t, xclient_networks=["127.9.9.9"])
    with connect(port, FOREIGN) as client:
        assert "XCLIENT" not in client.ehlo().text
        client.expect("XCLIENT ADDR=127.0.0.1", 550)
    with connect(port, TRUSTED) as client:
        client.expect("XCLIENT ADDR=192.0.2.1", 220)
        assert not relayed(client)


# ── limits ──


def test_limits_told(t):
    """The listener tells its limits, and keeps to what it tells"""
    daemon = t.daemon(recipients_max=100, session_messages_max=2)
    t.dns({})
    with daemon.client() as client:
        assert "LIMITS RCPTMAX=100 MAILMAX=2" in client.ehlo().lines
        for _ in range(2):
            client.expect("MAIL FROM:<s@sender.test>", 250)
            client.expect("RSET", 250)
        client.expect("MAIL FROM:<s@sender.test>", 421)
        assert client.closed()
    other = t.daemon(name="other", recipients_max=100)
    with other.client() as client:
        assert "LIMITS RCPTMAX=100" in client.ehlo().lines
        replies = client.envelope("s@sender.test", [f"r{i}@a.test" for i in range(101)])
        assert [reply.code for reply in replies] == [250] * 100 + [452]


def test_recipients_limit(t):
    """A peer that takes 3 recipients at once never hears of a fourth, and all get the message"""
    most = []

    def count(session, _):
        most.append(len(session.message.recipients) + 1)

    extensions = ("PIPELINING", "CHUNKING", "LIMITS RCPTMAX=3 RCPTDOMAINMAX=1 FUTURE=x")
    peer = t.peer(extensions=extensions, rcpt=count)
    t.dns({"a.test": peer.host})
    daemon = t.daemon()
    recipients = [f"r{i}@a.test" for i in range(10)]
    daemon.submit("s@sender.test", recipients, letter("m"))
    daemon.wait_log("delivered", 10)
    messages = peer.wait(4)
    assert sorted(r for m in messages for r in m.recipients) == sorted(recipients)
    daemon.wait_empty()
    daemon.stop()
    assert max(most) <= 3
    assert not daemon.log("deferred") and not daemon.log("bounced")


def test_recipients_limit_with_refusals(t):
    """One recipient that is deferred for long does not keep back those behind it"""

    def rcpt(_, argument):
        return "452 4.2.2 full" if "r0@" in argument else None

    peer = t.peer(extensions=("PIPELINING", "LIMITS RCPTMAX=1"), rcpt=rcpt)
    t.dns({"a.test": peer.host})
    daemon = t.daemon()
    daemon.submit("s@sender.test", [f"r{i}@a.test" for i in range(3)], letter("m"))
    daemon.wait_log("delivered", 2, seconds=30)
    wait_for("the one that is full", lambda: daemon.queued() == ["r0@a.test"])


def test_messages_limit(t):
    """A peer that takes 5 messages in a session never has to say so"""
    refused = []

    def mail(session, _):
        if sum(line.upper().startswith("MAIL") for line in session.commands) > 5:
            refused.append(session.number)
            return "421 4.7.0 too many"

    peer = t.peer(extensions=("PIPELINING", "CHUNKING", "LIMITS MAILMAX=5"), mail=mail)
    t.dns({"a.test": peer.host})
    daemon = t.daemon(connections_max=1, connections_start=1)
    with daemon.client() as client:
        client.ehlo()
        for number in range(23):
            client.submit("s@sender.test", ["r@a.test"], letter(f"m{number}"))
    daemon.wait_log("delivered", 23)
    daemon.stop()
    assert not refused and not daemon.log("deferred")
    assert len(peer.sessions) >= 5


# ── the small verbs ──


def test_small_verbs(t):
    """VRFY, EXPN, HELP and ETRN are answered as of a relay that holds no mail for others"""
    daemon = t.daemon()
    with daemon.client() as client:
        assert "ETRN" not in client.ehlo().text and "VRFY" not in client.greeting.text
        client.expect("VRFY root", 252)
        client.expect("EXPN staff", 502)
        client.expect("ETRN a.test", 502)
        assert "MAIL RCPT" in client.expect("HELP", 214).text
        try:
            client.expect("QUIT", 221)
            client.expect("NOOP", 250)
            raise AssertionError("a session after QUIT")
        except (Closed, OSError):
            pass
