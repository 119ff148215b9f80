"""Mail beyond ASCII, on its way to servers that take less: converted, or returned with the reason."""

import email
import email.policy
import os
import random
import subprocess

from harness import need
from mta import Postfix
from wire import letter

SEVEN = ("PIPELINING", "SIZE 104857600", "ENHANCEDSTATUSCODES")
CHUNKING = (*SEVEN, "CHUNKING")
EIGHT = (*SEVEN, "8BITMIME")

TEXT = "Grüße aus Köln = schön. \r\n.\r\n..Punkt\t\r\n" + "ü" * 200 + "\r\nEnde"
NESTED = (
    b"Subject: parts\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    b'Content-Type: multipart/mixed; boundary="=_outer"\r\n\r\npreamble\r\n--=_outer\r\n'
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + TEXT.encode()
    + b"\r\n--=_outer\r\nContent-Type: image/png\r\n\r\n"
    + bytes(b for b in range(256) if b not in (0, 10, 13)) * 3
    + b"\r\n--=_outer\r\nContent-Type: text/plain\r\n\r\nseven =20 \r\n--=_outer\r\n"
    b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Subject: inner\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n<p>sch\xf6n</p>\r\n--=_outer--\r\nepilogue\r\n"
)


class Scene:
    """A sender with its own server, one at a.test that offers `extensions`, one at b.test."""

    def __init__(self, t, extensions, others=CHUNKING, **settings):
        self.peer = t.peer(extensions=extensions)
        self.other = t.peer("127.0.0.5", extensions=others)
        self.sender = t.peer("127.0.0.3")
        t.dns(
            {
                "a.test": self.peer.host,
                "b.test": self.other.host,
                "sender.test": self.sender.host,
                "xn--bcher-kva.test": self.peer.host,
            }
        )
        self.daemon = t.daemon(**settings)

    def send(self, message, recipients=("r@a.test",), words=" BODY=8BITMIME", sender="s"):
        with self.daemon.client() as client:
            client.ehlo()
            client.envelope(f"{sender}@sender.test", list(recipients), words)
            assert client.data(message).code == 250

    def returned(self, *words):
        """The report that the sender gets, which must have these words."""
        report = self.sender.wait(1)[0].body.decode("utf-8", "replace")
        for word in words:
            assert word in " ".join(report.split()), (word, report)
        self.daemon.wait_empty()


def leaves(message):
    """What an independent reader finds: type and decoded octets of each leaf, trace lines aside."""
    parsed = email.message_from_bytes(message, policy=email.policy.SMTP)
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in parsed.walk()
        if not part.is_multipart()
    ]


def is_seven_bit(message):
    return max(message.body) < 128 and "BODY=" not in message.parameters


def same_size(message):
    return f"SIZE={len(message.body)}" in message.parameters.split()


# ── conversion ──


def test_parts_to_a_7bit_server(t):
    """Each leaf arrives as it was, each by its encoding; SIZE is that of what is sent"""
    scene = Scene(t, SEVEN)
    scene.send(NESTED, ["r@a.test", "r@b.test"])
    for peer in (scene.peer, scene.other):
        message = peer.wait(1)[0]
        assert is_seven_bit(message) and same_size(message), message.parameters
        assert leaves(message.body) == leaves(NESTED)
        assert b"Content-Transfer-Encoding: base64" in message.body
        assert b"\r\n\r\nseven =20 \r\n--=_outer" in message.body
        assert max(len(line) for line in message.body.split(b"\r\n")) < 200


def test_text_without_mime(t):
    """8-bit text that says nothing of itself is labelled unknown-8bit, and decodes to what it was"""
    scene = Scene(t, SEVEN)
    scene.send(b"Subject: x\r\n\r\n" + TEXT.encode() + b"\r\n")
    message = scene.peer.wait(1)[0]
    assert is_seven_bit(message)
    parsed = email.message_from_bytes(message.body)
    assert parsed["MIME-Version"] == "1.0" and parsed.get_param("charset") == "unknown-8bit"
    assert parsed.get_payload(decode=True) == TEXT.encode() + b"\r\n"


def test_8bit_stays_where_it_may(t):
    """A server with 8BITMIME gets every octet as it came"""
    scene = Scene(t, EIGHT)
    scene.send(NESTED)
    message = scene.peer.wait(1)[0]
    assert message.body.endswith(NESTED) and "BODY=8BITMIME" in message.parameters


def test_long_message(t):
    """A message that lies on disk is converted, too, and every octet of it comes back"""
    scene = Scene(t, SEVEN)
    noise = random.Random(6152)
    data = bytes(noise.choice(range(128, 256)) for _ in range(70)) + b"\r\n"
    body = (
        b"Subject: long\r\nMIME-Version: 1.0\r\nContent-Type: application/x-noise\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\n" + data * 40000
    )
    scene.send(body)
    message = scene.peer.wait(1, 40)[0]
    assert is_seven_bit(message) and same_size(message)
    assert leaves(message.body) == leaves(body)
    scene.daemon.wait_empty()


def test_too_long_to_convert(t):
    """What has no room in a share of memory_bytes goes back with 5.6.3"""
    scene = Scene(t, SEVEN, memory_bytes="16M")
    scene.send(letter() + b"\xfc\r\n" * 400000)
    scene.returned("5.6.3", "too long to be converted")
    assert not scene.peer.messages


def test_random_messages(t):
    """Odd bodies of all kinds: an independent reader finds the same leaves before and after"""
    scene = Scene(t, SEVEN)
    noise = random.Random(2045)
    pieces = [b" ", b"\t", b"=", b".", b"\r\n", b"--", b"\xfc", b"\xff\x80", b"a", b"x" * 75, b"=\r\n"]
    types = ["text/plain; charset=utf-8", "text/html", "image/gif", "application/pdf"]
    wanted = {}
    for number in range(40):
        parts = b""
        for _ in range(noise.randrange(1, 5)):
            encoding = noise.choice(["8bit", "binary", None])
            label = f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else ""
            text = b"".join(noise.choice(pieces) for _ in range(noise.randrange(60)))
            parts += b"--B\r\n" + f"Content-Type: {noise.choice(types)}\r\n{label}\r\n".encode()
            parts += text + b"\xf0\r\n"
        head = f"Subject: {number}\r\nMIME-Version: 1.0\r\n"
        head += "Content-Type: multipart/mixed; boundary=B\r\n\r\n"
        wanted[str(number)] = head.encode() + parts + b"--B--\r\n"
        scene.send(wanted[str(number)])
    for message in scene.peer.wait(len(wanted)):
        assert is_seven_bit(message) and same_size(message)
        assert leaves(message.body) == leaves(wanted[message.subject]), wanted[message.subject]


REFUSALS = (
    (b"DKIM-Signature: v=1; d=x.test\r\n\r\n\xfc\r\n", "it is signed"),
    (
        b"Content-Type: multipart/signed; boundary=B\r\n\r\n--B\r\n\r\n\xfc\r\n--B--\r\n",
        "8-bit text is signed or encrypted",
    ),
    (b"Subject: \xfc\r\n\r\nhello\r\n", "a header has 8-bit text"),
)


def test_what_cannot_be_converted(t):
    """Signed mail, and 8-bit text in a header: returned with 5.6.3 and the reason, never altered"""
    scene = Scene(t, SEVEN)
    for message, _ in REFUSALS:
        scene.send(message)
    reports = b"\n".join(message.body for message in scene.sender.wait(len(REFUSALS)))
    reports = b" ".join(reports.split()).decode("utf-8", "replace")
    for _, why in REFUSALS:
        assert why in reports, (why, reports)
    assert reports.count("Status: 5.6.3") == len(REFUSALS)
    assert not scene.peer.messages


# ── binary ──


def test_binary(t):
    """BINARYMIME goes as it is to who has it and BDAT, by base64 to others, even with 8BITMIME"""
    scene = Scene(t, (*EIGHT, "CHUNKING", "BINARYMIME"), others=(*EIGHT, "CHUNKING"))
    data = bytes(range(256)) + b"\r\r\n\n.\r\n"
    body = b"Subject: b\r\nMIME-Version: 1.0\r\nContent-Type: a/b\r\n"
    body += b"Content-Transfer-Encoding: binary\r\n\r\n" + data
    with scene.daemon.client() as client:
        assert "BINARYMIME" in client.command("EHLO c.test").text
        client.envelope("s@sender.test", ["r@a.test", "r@b.test"], " BODY=BINARYMIME")
        client.send(f"BDAT {len(body)} LAST\r\n".encode() + body)
        assert client.reply().code == 250
    as_is, coded = scene.peer.wait(1)[0], scene.other.wait(1)[0]
    assert as_is.body.endswith(body) and "BODY=BINARYMIME" in as_is.parameters
    assert is_seven_bit(coded) and leaves(coded.body) == [("a/b", data)]


# ── SMTPUTF8 ──


def test_smtputf8_only_where_needed(t):
    """A client's SMTPUTF8 is not passed on for plain mail, so an old server takes that"""
    scene = Scene(t, EIGHT)
    scene.send(letter("plain"), words=" SMTPUTF8")
    message = scene.peer.wait(1)[0]
    assert "SMTPUTF8" not in message.parameters


def test_domain_in_a_labels(t):
    """An ASCII local part at a domain beyond ASCII goes to an old server by its A-label"""
    scene = Scene(t, EIGHT)
    scene.send(letter("plain"), ["user@bücher.test"], " SMTPUTF8")
    message = scene.peer.wait(1)[0]
    assert message.recipients == ["user@xn--bcher-kva.test"]
    assert "SMTPUTF8" not in message.parameters


def test_only_the_address_fails(t):
    """Of two recipients at an old server, only the one beyond ASCII is returned, with 5.6.7"""
    scene = Scene(t, EIGHT)
    scene.send(letter("plain"), ["grün@a.test", "r@a.test"], " SMTPUTF8")
    assert scene.peer.wait(1)[0].recipients == ["r@a.test"]
    scene.returned("5.6.7", "the address is internationalised")


def test_header_to_an_old_server(t):
    """A header beyond ASCII is not given to an old server: 5.6.9"""
    scene = Scene(t, EIGHT)
    scene.send("Subject: grün\r\n\r\nhello\r\n".encode(), words=" BODY=8BITMIME SMTPUTF8")
    scene.returned("5.6.9", "the header is internationalised")
    assert not scene.peer.messages


def test_header_to_a_new_server(t):
    """A header beyond ASCII goes as it is to who has SMTPUTF8"""
    scene = Scene(t, (*EIGHT, "SMTPUTF8"))
    scene.send("Subject: grün\r\n\r\nhello\r\n".encode(), words=" BODY=8BITMIME SMTPUTF8")
    message = scene.peer.wait(1)[0]
    assert message.subject == "grün"
    assert {"SMTPUTF8", "BODY=8BITMIME"} <= set(message.parameters.split())


# ── long lines ──


def test_long_lines(t):
    """A line of over 998 octets: sent as it is, or returned with 5.6.0 where the route says so"""
    message = letter("long") + b"x" * 2000 + b"\r\n"
    scene = Scene(t, EIGHT, routes={"b.test": {"long_lines": "refuse"}})
    scene.send(message, ["r@a.test", "r@b.test"])
    assert scene.peer.wait(1)[0].body.endswith(message)
    scene.returned("5.6.0", "longer than 998 octets")
    assert not scene.other.messages


# ── other senders ──


def test_swaks_and_postfix_send_8bit(t):
    """8-bit mail by swaks and by way of Postfix reaches a 7-bit server whole"""
    scene = Scene(t, SEVEN)
    data = "Subject: swaks\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    data += "Content-Transfer-Encoding: 8bit\n\nGrüße\n"
    postfix = t.keep(
        Postfix(
            os.path.join(t.folder, "postfix"),
            t.port(),
            {"relayhost": f"[127.0.0.1]:{scene.daemon.port}", "disable_dns_lookups": "yes"},
        ),
        Postfix.stop,
    )
    for host, port in (("127.0.0.1", scene.daemon.port), (postfix.host, postfix.port)):
        done = subprocess.run(
            [need("swaks", "swaks"), "--server", f"{host}:{port}", "--from", "s@sender.test"]
            + ["--to", "r@a.test", "--data", data],
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout[-1000:]
    for message in scene.peer.wait(2):
        assert is_seven_bit(message)
        text = email.message_from_bytes(message.body).get_payload(decode=True).decode()
        assert text.strip() == "Grüße"
