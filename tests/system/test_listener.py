"""The listener as a client meets it: order, limits, line ends, end of data, relaying."""

import os
import random
import re
import socket
import threading
import time

from harness import alone, limit, wait_for
from wire import Closed, letter, stuff, submit


def test_greeting_and_extensions(t):
    """EHLO offers what the design promises, HELO offers nothing"""
    daemon = t.daemon()
    with daemon.client() as client:
        assert client.greeting.code == 220 and client.greeting.text.startswith("mx.stafette.test")
        offered = client.ehlo().lines
        for word in ("PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"):
            assert word in offered, f"{word} not in {offered}"
        assert any(re.fullmatch(r"SIZE \d+", line) for line in offered), offered
        assert len(client.expect("HELO client.test", 250).lines) == 1
        client.quit()


def test_commands_and_codes(t):
    """Every command in every wrong place gets the code that RFC 5321 and 5248 name"""
    daemon = t.daemon(message_bytes_max=100000)
    long_local = "l" * 300
    table = [
        # commands before it, the command, code, enhanced code
        ((), "MAIL FROM:<a@b.test>", 503, "5.5.1"),
        ((), "RCPT TO:<a@b.test>", 503, "5.5.1"),
        ((), "DATA", 503, "5.5.1"),
        ((), "NOOP", 250, "2.0.0"),
        ((), "RSET", 250, "2.0.0"),
        ((), "VRFY someone", 252, None),
        ((), "HELP", 214, None),
        ((), "EXPN list", 502, "5.5.1"),
        ((), "TURN", 502, "5.5.1"),
        ((), "WHAT is this", 500, "5.5.1"),
        ((), "EHLO", 501, "5.5.4"),
        (("EHLO c.test",), "RCPT TO:<a@b.test>", 503, "5.5.1"),
        (("EHLO c.test",), "DATA", 503, "5.5.1"),
        (("EHLO c.test",), "BDAT 0 LAST", 503, "5.5.1"),
        (("EHLO c.test",), "mail from:<a@b.test>", 250, "2.1.0"),
        (("EHLO c.test",), "MAIL FROM:<>", 250, "2.1.0"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> SIZE=10", 250, "2.1.0"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> SIZE=100001", 552, "5.3.4"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> SIZE=ten", 501, "5.5.4"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> BODY=8BITMIME", 250, "2.1.0"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> BODY=9BITMIME", 501, "5.5.4"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> BODY=7BIT BODY=7BIT", 501, "5.5.4"),
        (("EHLO c.test",), "MAIL FROM:<a@b.test> COLOUR=RED", 555, "5.5.4"),
        (("EHLO c.test",), "MAIL FROM:a@b.test>", 501, None),
        (("EHLO c.test",), "MAIL a@b.test", 501, None),
        (("EHLO c.test",), f"MAIL FROM:<{long_local}@b.test>", 501, "5.1.7"),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), "MAIL FROM:<a@b.test>", 503, "5.5.1"),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), "DATA", (503, 554), "5.5.1"),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), "RCPT TO:<>", 501, None),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), f"RCPT TO:<{long_local}@b.test>", 501, "5.1.3"),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), "RCPT TO:<a@b.test> COLOUR=RED", 555, "5.5.4"),
        (
            ("EHLO c.test", "MAIL FROM:<a@b.test>"),
            "RCPT TO:<@x.test,@y.test:a@b.test>",
            250,
            "2.1.5",
        ),
        (("EHLO c.test", "MAIL FROM:<a@b.test>"), 'RCPT TO:<"a b"@b.test>', 250, "2.1.5"),
        (
            ("EHLO c.test", "MAIL FROM:<a@b.test>", "EHLO c.test"),
            "RCPT TO:<a@b.test>",
            503,
            "5.5.1",
        ),
        (("EHLO c.test", "MAIL FROM:<a@b.test>", "RSET"), "RCPT TO:<a@b.test>", 503, "5.5.1"),
        (("EHLO c.test",), "NOOP " + "x" * 5000, 500, "5.5.2"),
    ]
    wrong = []
    for before, command, codes, enhanced in table:
        with daemon.client() as client:
            for one in before:
                client.expect(one, 250)
            reply = client.command(command)
            codes = codes if isinstance(codes, tuple) else (codes,)
            if reply.code not in codes or (enhanced and reply.enhanced != enhanced):
                wrong.append(f"{before} {command[:60]!r}: {reply}, expected {codes} {enhanced}")
    assert not wrong, "\n".join(wrong)


def test_no_smuggling(t):
    """Only CRLF.CRLF ends a message; every other likeness is refused with all that follows"""
    daemon, peer = t.simple()
    smuggled = (
        b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<victim@a.test>\r\nDATA\r\n"
        b"Subject: smuggled\r\n\r\nx\r\n"
    )
    ends = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\n.\r",
        b"\r\n\0.\r\n",
    ]
    wrong = []
    for end in ends:
        with daemon.client() as client:
            client.ehlo()
            client.envelope("s@sender.test", ["r@a.test"])
            client.expect("DATA", 354)
            client.send(letter() + b"last line" + end + smuggled + b".\r\n")
            reply = client.reply()
            refused = (reply.code, reply.enhanced) == (550, "5.6.0") or end == b"\r\n\0.\r\n"
            if not refused:
                wrong.append(f"{end!r}: {reply}")
            client.expect("NOOP", 250)  # one reply to all of it
    assert not wrong, wrong
    daemon.submit("s@sender.test", ["r@a.test"], letter("marker"))
    wait_for("the marker", lambda: any(m.subject == "marker" for m in peer.accepted))
    daemon.wait_empty()
    assert not [m for m in peer.accepted if m.sender != "s@sender.test"], "a message was smuggled"


def test_bare_line_ends_in_commands(t):
    """A bare LF or CR does not end a command"""
    daemon = t.daemon()
    for data in (b"NOOP\nNOOP\r\n", b"NOOP\rNOOP\r\n", b"EHLO x\nMAIL FROM:<a@b.test>\r\n"):
        with daemon.client() as client:
            client.send(data)
            reply = client.reply()
            assert 500 <= reply.code < 600, f"{data!r}: {reply}"
            client.expect("NOOP", 250)


def test_bare_line_ends_in_chunks(t):
    """BDAT is no way round it: bare LF or CR in a chunk is refused with 550 5.6.0"""
    daemon = t.daemon()
    for body in (b"one\ntwo\r\n", b"one\rtwo\r\n", b"one\r\n\n", b"one\r\ntwo\r"):
        with daemon.client() as client:
            client.ehlo()
            client.envelope("s@sender.test", ["r@a.test"])
            data = letter() + body
            client.send(b"BDAT %d LAST\r\n%s" % (len(data), data))
            reply = client.reply()
            assert (reply.code, reply.enhanced) == (550, "5.6.0"), (body, reply)
            client.expect("MAIL FROM:<s@sender.test>", 250)


def test_normalise(t):
    """With `normalise` bare line ends of trusted clients become CRLF, before dots are looked at"""
    daemon, peer = t.simple(normalise=True)
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        client.expect("DATA", 354)
        client.send(b"Subject: n\r\n\r\none\ntwo\rthree\r\n.\r\n")
        reply = client.reply()
        assert reply.code == 250, reply
    body = peer.wait(1)[0].body
    assert body.endswith(b"\r\n\r\none\r\ntwo\r\nthree\r\n"), body


def test_dots_and_bytes(t):
    """Dots, long lines and 8-bit bytes arrive as they were sent, whatever the write boundaries"""
    daemon, peer = t.simple()
    body = b".\r\n..\r\n.x\r\n\r\n...\r\nplain\r\n" + b"y" * 900 + b"\r\n\xc3\xa4\xff\r\n.end\r\n"
    message = letter("dots") + body
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"], " BODY=8BITMIME")
        client.expect("DATA", 354)
        for byte in stuff(message) + b".\r\n":
            client.socket.send(bytes([byte]))
        assert client.reply().code == 250
    got = peer.wait(1)[0].body
    assert got.endswith(message), (got[-300:], message[-300:])
    head = got[: -len(message)].decode()
    assert head.startswith("Received: ") and head.endswith("\r\n"), head
    assert all(line[:1] in (" ", "\t") for line in head.split("\r\n")[1:-1]), head


def test_received_line(t):
    """One Received: line is added on top, with protocol, id, and `for` only for one recipient"""
    daemon, peer = t.simple()
    with daemon.client() as client:
        client.ehlo("fancy.client.test")
        reply = client.submit("s@sender.test", ["r@a.test"], letter("single"))
        client.submit("s@sender.test", ["q@a.test", "p@a.test"], letter("double"))
        client.expect("HELO old.client.test", 250)
        client.submit("s@sender.test", ["r@a.test"], letter("helo"))
    peer.wait(3)
    by_subject = {m.subject: re.sub(r"\r\n[ \t]+", " ", m.header) for m in peer.accepted}
    single = by_subject["single"].split("\r\n")[0]
    assert by_subject["single"].count("Received:") == 1
    assert (
        "fancy.client.test" in single
        and "[127.0.0.1]" in single
        and "by mx.stafette.test" in single
    )
    assert re.search(r"with ESMTP\b", single) and "for <r@a.test>" in single, single
    identity = re.search(r"\bid ([0-9A-Z]{13})\b", single)
    assert identity and identity.group(1) in reply.text, (single, reply)
    assert " for " not in by_subject["double"].split("\r\n")[0]
    assert re.search(r"with SMTP\b", by_subject["helo"].split("\r\n")[0])


def test_pipelining(t):
    """Pipelined commands are answered in their order, DATA's 354 included"""
    daemon, peer = t.simple()
    with daemon.client() as client:
        client.send(
            b"EHLO c.test\r\nMAIL FROM:<s@sender.test>\r\nRCPT TO:<one@a.test>\r\nRCPT TO:<>\r\n"
            b"RCPT TO:<two@a.test>\r\nDATA\r\n"
        )
        assert [client.reply().code for _ in range(6)] == [250, 250, 250, 501, 250, 354]
        client.send(stuff(letter()) + b".\r\nNOOP\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 221]
        assert client.closed()
    assert sorted(peer.wait(1)[0].recipients) == ["one@a.test", "two@a.test"]


def test_messages_ahead(t):
    """Forty whole BDAT messages sent in one write are all accepted, replies in order"""
    daemon, peer = t.simple()
    flight = b""
    for n in range(40):
        message = letter(f"ahead-{n}")
        flight += (
            f"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r{n}@a.test>\r\nBDAT {len(message)} LAST\r\n"
        ).encode() + message
    with daemon.client() as client:
        client.ehlo()
        client.send(flight)
        codes = [client.reply().code for _ in range(120)]
        assert codes == [250] * 120, codes
    assert len({m.subject for m in peer.wait(40)}) == 40


def test_burst_and_slow_reader(t):
    """Forty thousand commands in one go, a message among them, are answered in order and wholly"""
    daemon, peer = t.simple()
    count, message = 20_000, letter("burst")
    noise = b"NOOP\r\nVRFY x\r\n" * count
    mail = (
        f"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\nBDAT {len(message)} LAST\r\n"
    ).encode() + message
    with daemon.client() as client:
        client.ehlo()
        writer = threading.Thread(target=client.send, args=(noise + mail + noise + b"QUIT\r\n",))
        writer.start()
        time.sleep(1)  # the daemon has to wait for us
        codes = [client.reply().code for _ in range(4 * count + 4)]
        writer.join()
        assert codes == [250, 252] * count + [250] * 3 + [250, 252] * count + [221]
        assert client.closed()
    assert [m.subject for m in peer.wait(1)] == ["burst"]


def test_half_closed(t):
    """Behind a FIN every message that came whole has its reply; one that is cut off has none"""
    daemon, peer = t.simple()
    flight = b""
    for n in range(12):
        message = letter(f"before-{n}")
        flight += b"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\nBDAT %d LAST\r\n%s" % (
            len(message),
            message,
        )
    cut_off = b"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\n"
    for rest, codes in (
        (b"QUIT\r\n", [221]),
        (cut_off + b"BDAT 5000 LAST\r\nSubject: cut off\r\n\r\n", [250, 250]),
        (cut_off + b"DATA\r\nSubject: cut off\r\n\r\n", [250, 250, 354]),
    ):
        with daemon.client() as client:
            client.ehlo()
            client.send(flight + rest)
            client.socket.shutdown(socket.SHUT_WR)
            said = [client.reply().code for _ in range(36 + len(codes))]
            assert said == [250] * 36 + codes, said
            assert client.closed()
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        client.expect("DATA", 354)
        client.send(stuff(letter("dotted")) + b".\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.reply().code == 250
        assert client.closed()
    subjects = [message.subject for message in peer.wait(37)]
    assert "dotted" in subjects and "cut off" not in subjects, subjects
    daemon.wait_empty()
    assert len(peer.wait(37)) == 37


def test_bdat(t):
    """BDAT: split anywhere, empty chunks, dots not special, exact bytes"""
    daemon, peer = t.simple()
    message = letter("chunks") + b".\r\n..\r\n.\r\nend\r\n"
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        for byte in message[:40]:
            client.send(b"BDAT 1\r\n" + bytes([byte]))
            assert client.reply().code == 250
        client.expect("BDAT 0", 250)
        rest = message[40:]
        for piece in (rest[:50], rest[50:]):
            client.send(b"BDAT %d\r\n%s" % (len(piece), piece))
            assert client.reply().code == 250
        client.expect("BDAT 0 LAST", 250)
    assert peer.wait(1)[0].body.endswith(message)


def test_bdat_errors(t):
    """BDAT: unusable size closes, DATA after BDAT is refused, chunks after a failure are eaten"""
    daemon = t.daemon(message_bytes_max=100000)
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        client.expect("BDAT many", 501)
        assert client.closed()
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        client.send(b"BDAT 4\r\nab\r\n")
        assert client.reply().code == 250
        client.expect("DATA", 503)
        client.expect("RSET", 250)
        client.expect("MAIL FROM:<s@sender.test>", 250)
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        client.send(b"BDAT 60000\r\n" + b"x" * 60000)
        assert client.reply().code == 250
        client.send(b"BDAT 60000\r\n" + b"x" * 60000)
        reply = client.reply()
        assert (reply.code, reply.enhanced) == (552, "5.3.4"), reply
        client.send(b"BDAT 10 LAST\r\n" + b"x" * 10)
        assert client.reply().code == 503
        client.expect("RSET", 250)
        client.expect("MAIL FROM:<s@sender.test>", 250)


def test_limits(t):
    """Too many recipients, too much data: the right code, and those before stay accepted"""
    daemon, peer = t.simple(message_bytes_max=100000, recipients_max=100)
    with daemon.client() as client:
        client.ehlo()
        replies = client.envelope("s@sender.test", [f"r{n}@a.test" for n in range(103)])
        assert [r.code for r in replies] == [250] * 100 + [452] * 3
        assert replies[-1].enhanced == "4.5.3"
        assert client.data(letter("many")).code == 250
        client.envelope("s@sender.test", ["r@a.test"])
        reply = client.data(letter("fat", size=150000))
        assert (reply.code, reply.enhanced) == (552, "5.3.4"), reply
        assert client.submit("s@sender.test", ["after@a.test"], letter("after")).code == 250
    arrived = wait_for("101 recipients", lambda: len(peer.recipients()) >= 101 and peer.accepted)
    assert {m.subject for m in arrived} == {"many", "after"}


def test_text_line_too_long(t):
    """A line of text over the limit is either refused or delivered whole, never cut"""
    daemon, peer = t.simple()
    message = letter("long") + b"z" * 50000 + b"\r\nend\r\n"
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        reply = client.data(message)
        assert reply.code in (250, 500, 550, 554), reply
    if reply.code == 250:
        assert peer.wait(1)[0].body.endswith(message)


def test_relaying(t):
    """Strangers may send to our routed domains alone, by no trick of addressing elsewhere"""
    peer = t.peer()
    t.dns({"ours.test": peer.host, "other.test": peer.host})
    daemon = t.daemon(routes={"ours.test": {"accept": True}}, trusted=["127.0.0.1/32"])
    with daemon.client(source="127.0.0.1") as client:
        client.ehlo()
        client.submit("s@sender.test", ["trusted@other.test"], letter())
    with daemon.client(source="127.0.0.9") as client:
        client.ehlo()
        client.expect("MAIL FROM:<s@sender.test>", 250)
        client.expect("RCPT TO:<r@ours.test>", 250)
        client.expect("RCPT TO:<r@OURS.test>", 250)
        for outside in (
            "r@other.test",
            "r@sub.ours.test",
            "r@ours.test.other.test",
            "@ours.test:r@other.test",
            '"r@ours.test"@other.test',
            "r%ours.test@other.test",
        ):
            reply = client.command(f"RCPT TO:<{outside}>")
            assert reply.code in (550, 554) and reply.enhanced == "5.7.1", f"{outside}: {reply}"
        for inside in (
            "user%other.test@ours.test",
            '"user@other.test"@ours.test',
            "@other.test:r@ours.test",
        ):
            client.command(f"RCPT TO:<{inside}>")
        assert client.data(letter("in")).code == 250
    peer.wait(2)
    daemon.wait_empty()
    strangers = [r for m in peer.accepted if m.subject == "in" for r in m.recipients]
    assert all(r.lower().endswith("@ours.test") for r in strangers), strangers


def test_loop_by_received(t):
    """A message with too many Received: lines is refused with 554 5.4.6"""
    daemon = t.daemon(received_max=20)
    trace = b"Received: from a by b; Sat, 01 Aug 2026 10:00:00 +0000\r\n"
    with daemon.client() as client:
        client.ehlo()
        client.envelope("s@sender.test", ["r@a.test"])
        assert client.data(trace * 15 + letter()).code == 250
        client.envelope("s@sender.test", ["r@a.test"])
        reply = client.data(trace * 25 + letter())
        assert (reply.code, reply.enhanced) == (554, "5.4.6"), reply
        client.envelope("s@sender.test", ["r@a.test"])
        assert client.data(letter() + trace * 25).code == 250, "Received: in a body is only text"


def admitted(daemon, source):
    """A session, once there is room: one that was refused counts until it is quite gone."""

    def come():
        client = daemon.client(source=source)
        if client.greeting.code == 220:
            return client
        client.close()

    return wait_for(f"room for {source}", come)


def test_too_many_sessions(t):
    """421 for sessions above the limit, in all and per address; room is given back"""
    daemon = t.daemon(sessions_max=6, sessions_per_address_max=4, trusted=["127.0.0.1/32"])
    held = [daemon.client(source="127.0.0.5") for _ in range(4)]
    assert [c.greeting.code for c in held] == [220] * 4
    refused = daemon.client(source="127.0.0.5")
    assert refused.greeting.code == 421, refused.greeting
    assert refused.closed()
    held += [admitted(daemon, "127.0.0.6") for _ in range(2)]
    assert daemon.client(source="127.0.0.7").greeting.code == 421
    for client in held:
        client.close()
    admitted(daemon, "127.0.0.5")


def test_too_many_errors(t):
    """A client that only makes errors is shown the door with 421"""
    daemon = t.daemon(session_errors_max=5)
    with daemon.client() as client:
        client.ehlo()
        codes = []
        try:
            for _ in range(10):
                codes.append(client.command("NONSENSE").code)
        except (Closed, ConnectionError):
            pass
        assert codes[:4] == [500] * 4 and codes[-1] == 421 and len(codes) <= 7, codes


def test_refused_recipients_are_errors(t):
    """A stranger who goes on asking for recipients elsewhere hears 421; a trusted client may err"""
    daemon = t.daemon(
        routes={"gone.test": {"fail": "5.7.1 gone"}},
        session_errors_max=5,
        trusted=["127.0.0.1/32"],
    )
    for source, codes in (("127.0.0.9", [550] * 5 + [421]), ("127.0.0.1", [550] * 9)):
        with daemon.client(source=source) as client:
            client.ehlo()
            client.expect("MAIL FROM:<s@sender.test>", 250)
            client.send("".join(f"RCPT TO:<r{n}@gone.test>\r\n" for n in range(9)))
            assert [client.reply().code for _ in codes] == codes


def test_idle_timeout(t):
    """A silent client gets 421 4.4.2: between commands and in the middle of data"""
    daemon = t.daemon(session_idle="6s", session_block="6s")  # far more than the steps take
    with daemon.client() as client, daemon.client() as other:
        client.ehlo()
        other.ehlo()
        other.envelope("s@sender.test", ["r@a.test"])
        other.expect("DATA", 354)
        other.send(b"Subject: never\r\n")
        for one in (client, other):
            reply = one.reply()
            assert (reply.code, reply.enhanced) == (421, "4.4.2"), reply
            assert one.closed()
    assert daemon.count() == 0


def test_internationalised(t):
    """SMTPUTF8 addresses need the parameter, and go to a peer that takes them"""
    daemon, peer = t.simple()
    with daemon.client() as client:
        client.ehlo()
        reply = client.command("MAIL FROM:<jörg@sender.test>")
        assert (reply.code, reply.enhanced) == (553, "5.6.7"), reply
        client.expect("MAIL FROM:<jörg@sender.test> SMTPUTF8", 250)
        client.expect("RCPT TO:<grün@a.test>", 250)
        assert client.data(letter() + "grün\r\n".encode()).code == 250
    message = peer.wait(1)[0]
    assert message.recipients == ["grün@a.test"] and message.sender == "jörg@sender.test"
    assert "SMTPUTF8" in message.parameters
    assert re.search(r"with UTF8SMTP\b", message.header), message.header


def test_quoted_local_parts(t):
    """Quoted local parts arrive quoted, and a local part keeps its case"""
    daemon, peer = t.simple()
    wanted = ['"a b"@a.test', '"a@b"@a.test', '"a\\"b"@a.test', "MiXed@a.test"]
    daemon.submit("s@sender.test", wanted, letter())
    peer.wait(1)
    wait_for("all recipients", lambda: sorted(peer.recipients()) == sorted(wanted))


@limit(40)
def test_garbage_is_survived(t):
    """Random bytes, endless lines and half-closed sessions cost errors, not memory or the daemon"""
    daemon, peer = t.simple()
    dice = random.Random(1)
    for n in range(60):
        with daemon.client() as client:
            try:
                client.send(
                    dice.choice([b"", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<a@b.test>\r\n"])
                )
                client.send(dice.randbytes(dice.randrange(1, 3000)))
                if n % 3 == 0:
                    client.send(b"A" * 300000)
                if n % 2 == 0:
                    client.socket.shutdown(1)
                    while client.socket.recv(65536):
                        pass
            except OSError:
                pass
    before = daemon.status("VmRSS")
    with daemon.client() as client:
        try:
            for _ in range(300):
                client.send(b"B" * 100000)
        except OSError:
            pass
    assert daemon.status("VmRSS") < before + 8192, "an endless line was kept in memory"
    daemon.submit("s@sender.test", ["r@a.test"], letter("alive"))
    peer.wait(1)


@alone
@limit(60)
def test_500_sessions(t):
    """500 sessions at once are served, all in order"""
    daemon, peer = t.simple(sessions_max=1000, sessions_per_address_max=1000)
    clients = [daemon.client() for _ in range(500)]
    for client in clients:
        client.send("EHLO c.test\r\n")
    for client in clients:
        assert client.reply().code == 250
    for n, client in enumerate(clients):
        client.send(f"MAIL FROM:<s@sender.test>\r\nRCPT TO:<r{n}@a.test>\r\nDATA\r\n")
    for client in clients:
        assert [client.reply().code for _ in range(3)] == [250, 250, 354]
        client.send(letter() + b".\r\n")
    for client in clients:
        assert client.reply().code == 250
        client.close()
    peer.wait(500, 30)
    daemon.wait_empty()
    assert len(set(peer.recipients())) == len(peer.recipients()) == 500


def test_several_listeners(t):
    """It listens on several addresses at once, IPv4, IPv6 and a UNIX socket among them"""
    daemon, peer = t.simple(start=False)
    path = os.path.join(t.folder, "smtp.sock")
    other = t.port()
    daemon.configure(listen=[f"127.0.0.1:{daemon.port}", f"[::1]:{other}", path])
    daemon.start()
    submit(daemon.port, "s@sender.test", ["four@a.test"], letter())
    submit(other, "s@sender.test", ["six@a.test"], letter(), host="::1")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        assert connection.recv(1000).startswith(b"220 ")
    peer.wait(2)


def test_not_offered(t):
    """What is not offered is refused as such, and strange domains in addresses as malformed"""
    daemon = t.daemon()
    with daemon.client() as client:
        client.ehlo()
        client.expect("STARTTLS", 502)
        client.expect("AUTH PLAIN AGEAYg==", 502)
        client.expect("MAIL FROM:<s@sender.test>", 250)
        for address in (
            "r@a.test.",
            "r@a..test",
            "r@-",
            "r@",
            "@a.test",
            "r@a test",
            "r@[300.1.1.1]",
        ):
            reply = client.command(f"RCPT TO:<{address}>")
            assert 500 <= reply.code < 560 and reply.code != 554, (address, reply)
