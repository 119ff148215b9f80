"""One SMTP connection as a client sees it: bytes out, replies in, nothing hidden.

smtplib mends what it sends; these tests must be able to send what is wrong.
"""

import socket

# So much longer than on a machine with nothing else to do may everything take: a time limit is
# there for what hangs, not for what is slow.
PATIENCE = 3


class Reply:
    """A complete reply: `code`, and `lines` without the code."""

    def __init__(self, code, lines):
        self.code = code
        self.lines = lines

    @property
    def text(self):
        return " ".join(self.lines)

    @property
    def enhanced(self):
        first = self.lines[0].split(" ")[0] if self.lines else ""
        return first if first.count(".") == 2 and first.replace(".", "").isdigit() else None

    def __repr__(self):
        return f"<{self.code} {self.text[:200]}>"


class Closed(Exception):
    """The server closed the connection where a reply was due."""


class Client:
    def __init__(self, port, host="127.0.0.1", source=None, timeout=20, greet=True, tls=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout * PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        self.buffer = b""
        if tls:
            self.secure(tls)
        self.greeting = self.reply() if greet else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(repr(self.buffer))
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        assert line.endswith(b"\r"), f"a reply line without CR: {line!r}"
        return line[:-1].decode("utf-8", "replace")

    def reply(self):
        lines, code = [], None
        while True:
            line = self.line()
            assert line[:3].isdigit() and line[3:4] in ("", " ", "-"), f"not a reply: {line!r}"
            assert code in (None, line[:3]), f"codes disagree: {line!r}"
            code = line[:3]
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(code), lines)

    def command(self, text):
        self.send(text if isinstance(text, bytes) else text.encode() + b"\r\n")
        return self.reply()

    def expect(self, text, code):
        """The reply to a command, which must be `code` (an int or several)."""
        reply = self.command(text)
        codes = code if isinstance(code, tuple) else (code,)
        assert reply.code in codes, f"{text!r}: {reply}, expected {codes}"
        return reply

    def ehlo(self, name="client.test"):
        return self.expect(f"EHLO {name}", 250)

    def closed(self):
        """True if the server closes now (within the time-out) without another byte."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def envelope(self, sender, recipients, parameters=""):
        self.expect(f"MAIL FROM:<{sender}>{parameters}", 250)
        return [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]

    def data(self, message):
        """DATA, the message with its dots stuffed, and the reply to the dot."""
        self.expect("DATA", 354)
        self.send(stuff(message) + b".\r\n")
        return self.reply()

    def submit(self, sender, recipients, message, parameters=""):
        for reply, recipient in zip(self.envelope(sender, recipients, parameters), recipients):
            assert reply.code == 250, f"RCPT {recipient}: {reply}"
        return self.data(message)

    def secure(self, context, name="mx.stafette.test", session=None):
        self.socket = context.wrap_socket(self.socket, server_hostname=name, session=session)

    def starttls(self, context, name="mx.stafette.test", session=None):
        self.expect("STARTTLS", 220)
        assert self.buffer == b"", f"said before the handshake: {self.buffer!r}"
        self.secure(context, name, session)

    def quit(self):
        reply = self.command("QUIT")
        self.close()
        return reply


def stuff(message):
    message = b"." + message if message.startswith(b".") else message
    message = message.replace(b"\r\n.", b"\r\n..")
    return message if message.endswith(b"\r\n") else message + b"\r\n"


def letter(subject="test", body="hello\r\n", sender="s@sender.test", to="r@a.test", size=0):
    """A whole message; filled with lines of text up to `size` bytes."""
    head = (
        f"From: <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n"
        f"Date: Sat, 01 Aug 2026 10:00:00 +0000\r\nMessage-ID: <{subject}@sender.test>\r\n\r\n"
    ).encode()
    text = head + body.encode()
    if len(text) < size:
        line = b"The quick brown fox jumps over the lazy dog, again and again, day by day.\r\n"
        lines, rest = divmod(size - len(text), len(line))
        text += line * lines + (b"x" * (rest - 2) + b"\r\n" if rest >= 2 else b"")
    return text


def submit(port, sender, recipients, message, **options):
    """One message in a session of its own; the reply to its dot."""
    with Client(port, **options) as client:
        client.ehlo()
        reply = client.submit(sender, recipients, message)
        client.quit()
        return reply
