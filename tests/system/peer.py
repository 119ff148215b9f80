"""A scripted SMTP server: does what each test tells it, and writes down what it got.

Each step (connect, ehlo, starttls, mail, rcpt, data, dot, rset, quit) may be given as

  "451 4.7.1 later"        that reply, always
  ["451 ...", None]        one after the other, the last one for good; None: the usual reply
  lambda session, arg: ... any of these, decided now; arg: the command's argument

and a reply may be wrapped: Drop() closes the connection instead, Slow(seconds, reply) waits
first, Raw(bytes) sends bytes as they are, Then(reply, Drop()) replies and then closes.
`dot` answers the end of DATA and BDAT LAST.
"""

import re
import socket
import threading
import time

from wire import PATIENCE

USUAL = {
    "connect": "220 peer.test ESMTP",
    "helo": "250 peer.test",
    "starttls": "220 2.0.0 go on",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "dot": "250 2.0.0 taken",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
    "noop": "250 2.0.0 ok",
}
EXTENSIONS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Drop:
    """Closes the connection; `reset` with an RST."""

    def __init__(self, reset=False):
        self.reset = reset


class Slow:
    def __init__(self, seconds, reply=None):
        self.seconds, self.reply = seconds, reply


class Raw:
    def __init__(self, data):
        self.data = data


class Then:
    """Replies, then acts."""

    def __init__(self, *replies):
        self.replies = replies


# "<address>" and the parameters behind it; a quoted local part may hold blanks and brackets.
PATH = re.compile(r'(?:FROM|TO):<((?:"(?:\\.|[^"\\])*"|[^">])*)>\s*(.*)', re.I)


class Gone(Exception):
    pass


class Message:
    def __init__(self, session, sender, parameters):
        self.session = session
        self.sender = sender
        self.parameters = parameters
        self.recipients = []
        self.body = b""
        self.time = None  # when it was there whole
        self.accepted = False  # our final 2xx was sent, or at least decided
        self.chunked = False

    @property
    def header(self):
        return self.body.split(b"\r\n\r\n", 1)[0].decode("utf-8", "replace")

    @property
    def subject(self):
        for line in self.header.split("\r\n"):
            if line.lower().startswith("subject:"):
                return line[8:].strip()
        return None


class Session:
    def __init__(self, peer, connection, source, number):
        self.peer = peer
        self.socket = connection
        self.number = number
        self.buffer = bytearray()
        self.commands = []
        self.message = None
        self.source = source
        self.tls = None  # the version, once the handshake is done
        self.left = False  # it does not count among the open ones

    # ── bytes ──

    def read(self):
        if self.peer.read_delay:
            time.sleep(self.peer.read_delay)
        data = self.socket.recv(self.peer.read_bytes)
        if not data:
            raise Gone
        self.buffer += data

    def line(self):
        line = self.exactly(self.find(b"\n") + 1)[:-1]
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            self.peer.violations.append(f"line end: {line!r}")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def find(self, mark):
        """Where `mark` begins, once it is there."""
        start = 0
        while True:
            at = self.buffer.find(mark, start)
            if at >= 0:
                return at
            start = max(0, len(self.buffer) - len(mark) + 1)
            self.read()

    def exactly(self, count):
        while len(self.buffer) < count:
            self.read()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def act(self, reply, usual=None, note=None):
        """Does what a script's reply says; returns the code that was sent. `note` hears it
        before the client does."""
        reply = reply or usual
        if isinstance(reply, Slow):
            self.peer.stopping.wait(reply.seconds)
            return self.act(reply.reply, usual, note)
        if isinstance(reply, Drop):
            if reply.reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raise Gone
        if isinstance(reply, Then):
            code = 0
            for one in reply.replies:
                code = self.act(one, note=note) or code
            return code
        raw = isinstance(reply, Raw)
        code = 0 if raw else int(reply[:3])
        if note:
            note(code)
        self.socket.sendall(reply.data if raw else reply.encode() + b"\r\n")
        return code

    def answer(self, step, argument="", usual=None, note=None):
        if self.buffer and step != "connect" and "PIPELINING" not in self.peer.extensions:
            self.peer.violations.append(f"sent ahead of the reply to {step}: {self.buffer[:60]!r}")
        return self.act(self.peer.decide(step, self, argument), usual or USUAL[step], note)

    # ── the protocol ──

    def secure(self):
        """The handshake; what the client said before it must have ended."""
        if self.buffer:
            self.peer.violations.append(f"sent ahead of the handshake: {bytes(self.buffer)!r}")
        self.socket = self.peer.tls.wrap_socket(self.socket, server_side=True)
        self.tls = self.socket.version()
        self.resumed = self.socket.session_reused
        self.message = None

    def run(self):
        if self.peer.implicit:
            self.secure()
        self.answer("connect")
        while True:
            line = self.line()
            self.commands.append(line)
            verb, _, argument = line.partition(" ")
            step = getattr(self, "do_" + verb.lower(), None)
            if step is None:
                self.peer.violations.append(f"unknown command: {line!r}")
                self.act("500 5.5.1 unknown")
            elif step(argument) == "end":
                return

    def do_ehlo(self, argument):
        self.message = None
        lines = ["peer.test", *self.peer.extensions]
        if self.peer.tls and not self.tls:
            lines.append("STARTTLS")
        usual = "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)
        self.answer("ehlo", argument, usual)

    do_lhlo = do_ehlo

    def do_helo(self, argument):
        self.message = None
        self.answer("helo", argument)

    def do_starttls(self, argument):
        if self.answer("starttls", argument) == 220:
            self.secure()

    def do_mail(self, argument):
        address, parameters = PATH.match(argument).groups()
        code = self.answer("mail", address)
        if 200 <= code < 300:
            self.message = Message(self, address, parameters)

    def do_rcpt(self, argument):
        address = PATH.match(argument).group(1)
        if self.message is None:
            self.act("503 5.5.1 no MAIL")
            return
        attempted = self.peer.attempts.append
        code = self.answer(
            "rcpt", address, note=lambda code: attempted((time.monotonic(), address, code))
        )
        if 200 <= code < 300:
            self.message.recipients.append(address)

    def do_data(self, argument):
        if not (self.message and self.message.recipients):
            self.act("503 5.5.1 no recipient" if not self.peer.careless else USUAL["data"])
            if not self.peer.careless:
                return
        elif self.answer("data", argument) != 354:
            return
        while len(self.buffer) < 3:
            self.read()
        if self.buffer.startswith(b".\r\n"):
            body = self.exactly(3)[3:]
        else:
            body = self.exactly(self.find(b"\r\n.\r\n") + 5)[:-3]
        body = body[1:] if body.startswith(b".") else body
        body = body.replace(b"\r\n.", b"\r\n")
        if b"\n" in body.replace(b"\r\n", b"") or b"\r" in body.replace(b"\r\n", b""):
            self.peer.violations.append("bare CR or LF in a body")
        if self.message is None:
            self.act("554 5.5.1 no valid recipients")
            return
        self.message.body = body
        self.finish()

    def do_bdat(self, argument):
        size, _, last = argument.partition(" ")
        data = self.exactly(int(size))
        if not (self.message and self.message.recipients):
            self.act("503 5.5.1 no recipient")
            return
        self.message.chunked = True
        self.message.body = self.message.body + data if self.message.body else data
        if last.upper() == "LAST":
            self.finish()
        else:
            self.act(f"250 2.0.0 {size} octets")

    def finish(self):
        message, self.message = self.message, None
        message.time = time.monotonic()
        reply = self.peer.decide("dot", self, message) or USUAL["dot"]
        message.accepted = accepts(reply)
        self.peer.took(message)
        self.act(reply, USUAL["dot"])

    def do_rset(self, argument):
        self.message = None
        self.answer("rset", argument)

    def do_noop(self, argument):
        self.answer("noop", argument)

    def do_quit(self, argument):
        self.peer.leave(self)  # with its 221 the client may open another
        self.answer("quit", argument)
        return "end"


def accepts(reply):
    """Whether a scripted reply to the dot takes the message, sooner or later."""
    if isinstance(reply, Slow):
        return accepts(reply.reply or USUAL["dot"])
    if isinstance(reply, Then):
        return any(accepts(one) for one in reply.replies)
    return isinstance(reply, str) and reply.startswith("2")


class Peer:
    """Listens at once; stop() closes everything. Usable as a context manager."""

    def __init__(
        self,
        port,
        host="127.0.0.1",
        extensions=EXTENSIONS,
        backlog=512,
        careless=False,
        read_bytes=65536,
        read_delay=0,
        keep_bodies=True,
        tls=None,
        implicit=False,
        **steps,
    ):
        self.extensions = tuple(extensions)
        self.careless = careless  # answers DATA with 354 though no recipient was accepted
        self.read_bytes, self.read_delay = read_bytes, read_delay
        self.keep_bodies = keep_bodies
        self.tls, self.implicit = tls, implicit  # an ssl.SSLContext; TLS from the first byte on
        self.steps = {name: list(s) if isinstance(s, list) else s for name, s in steps.items()}
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.messages = []  # every message that was sent whole
        self.attempts = []  # (time, recipient, code) for each RCPT
        self.sessions = []
        self.open = 0
        self.open_max = 0
        self.violations = []
        self.stopping = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        self.socket.listen(backlog)
        self.host, self.port = host, self.socket.getsockname()[1]
        threading.Thread(target=self.listen, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        with self.lock:
            for session in self.sessions:
                try:
                    session.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def set(self, **steps):
        with self.lock:
            for name, step in steps.items():
                self.steps[name] = list(step) if isinstance(step, list) else step

    def listen(self):
        while not self.stopping.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError:
                return
            with self.lock:  # numbered as they came, however their threads run
                session = Session(self, connection, address[0], len(self.sessions) + 1)
                self.sessions.append(session)
                self.open += 1
                self.open_max = max(self.open_max, self.open)
            threading.Thread(target=self.serve, args=(session, connection), daemon=True).start()

    def serve(self, session, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session.run()
        except (Gone, OSError):
            pass
        finally:
            session.socket.close()
            connection.close()
            self.leave(session)

    def leave(self, session):
        """The session does not count among the open ones any more."""
        with self.changed:
            self.open -= not session.left
            session.left = True
            self.changed.notify_all()

    def decide(self, step, session, argument):
        with self.lock:
            script = self.steps.get(step)
            if isinstance(script, list):
                script = script.pop(0) if len(script) > 1 else script[0]
        return script(session, argument) if callable(script) else script

    def took(self, message):
        if not self.keep_bodies:
            message.body = b""
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    # ── what arrived ──

    @property
    def accepted(self):
        with self.lock:
            return [message for message in self.messages if message.accepted]

    def recipients(self):
        """Every accepted copy, by recipient: a list with repetitions."""
        return [address for message in self.accepted for address in message.recipients]

    def wait(self, count, seconds=20):
        """Waits for `count` accepted messages and returns them."""
        deadline = time.monotonic() + seconds * PATIENCE
        with self.changed:
            while sum(m.accepted for m in self.messages) < count:
                left = deadline - time.monotonic()
                taken = sum(m.accepted for m in self.messages)
                assert left > 0, f"{taken} messages arrived, expected {count}"
                self.changed.wait(left)
        return self.accepted
