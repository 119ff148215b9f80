"""AUTH on the listener: who gets in, what that allows, and that nobody else relays."""

import base64
import os
import re
import select
import signal
import smtplib
import stat
import subprocess
import time

from certificates import Authority, section
from dovecot import Dovecot
from harness import limit, need, wait_for
from mta import Postfix
from wire import Client, letter

NAME = "mx.stafette.test"
FAR = "192.0.2.0/24"  # trusted by these daemons: no client of a test is
USERS = {"ann": "ann's word", "bob@b.test": "pass:wörd", "cy": "x"}
SENDERS = {"cy": "cy@c.test,@d.test"}


def plain(user, password, authorize=""):
    return base64.b64encode(f"{authorize}\0{user}\0{password}".encode()).decode()


def b64(text):
    return base64.b64encode(text.encode()).decode()


def login(client, user, password, code=235):
    return client.expect("AUTH PLAIN " + plain(user, password), code)


def users_file(t, method="bcrypt"):
    """A file with USERS, made by `stafette passwd`."""
    path = os.path.join(t.folder, "users")
    for user, password in USERS.items():
        passwd(path, user, password, "-m", method)
    with open(path) as file:
        lines = file.read().splitlines()
    with open(path, "w") as file:
        for line in lines:
            user = line.split(":")[0]
            file.write(line + (f":{SENDERS[user]}" if user in SENDERS else "") + "\n")
    return path


def passwd(path, user, password, *options, status=0):
    program = os.path.join(os.environ["BUILD"], "stafette")
    done = subprocess.run(
        [program, "passwd", "-f", path, *options, user],
        input=password + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, f"{done.returncode}: {done.stderr}"
    return done.stderr


class Site:
    """A daemon that nobody may relay through without logging in, and what belongs to it."""

    def __init__(self, t, auth=None, listener=None, **settings):
        self.authority = Authority(t.folder)
        self.port = t.port()
        self.peer = t.peer()
        t.dns({"a.test": self.peer.host, "ours.test": self.peer.host})
        auth = auth or {"users": users_file(t), "pause": "10ms"}
        listener = {"auth": "tls", **(listener or {})}
        settings.setdefault("routes", {"ours.test": {"accept": True}})
        self.daemon = t.daemon(
            certificate=[section(*self.authority.make(NAME))],
            trusted=[FAR],
            auth=auth,
            **{f'listener "127.0.0.1:{self.port}"': listener},
            **settings,
        )

    def client(self, tls=True, **options):
        client = Client(self.port, **options)
        client.ehlo()
        if tls:
            client.starttls(self.authority.client())
            client.ehlo()
        return client


def test_plain_and_login(t):
    """PLAIN and LOGIN let a user relay; the trace says how, the log says who, and neither more"""
    site = Site(t, auth={"users": users_file(t, "yescrypt"), "in_received": True})
    with site.client(tls=False) as client:
        assert not any("AUTH" in line for line in client.ehlo().lines)
        reply = login(client, "ann", USERS["ann"], 538)
        assert reply.enhanced == "5.7.11"
    with site.client() as client:
        assert "AUTH PLAIN LOGIN" in client.ehlo().lines
        client.expect("AUTH PLAIN", 334)
        client.expect(plain("ann", USERS["ann"]), 235)
        client.submit("ann@a.test", ["r@a.test"], letter("first"))
        client.expect("AUTH PLAIN " + plain("ann", USERS["ann"]), 503)
        client.quit()
    with site.client() as client:
        assert client.expect("AUTH LOGIN", 334).text == "VXNlcm5hbWU6"
        assert client.expect(b64("bob@b.test"), 334).text == "UGFzc3dvcmQ6"
        client.expect(b64(USERS["bob@b.test"]), 235)
        client.submit("bob@b.test", ["ü@a.test"], letter("second"), " SMTPUTF8")
    first, second = sorted(site.peer.wait(2), key=lambda message: message.subject)
    assert re.search(r"with ESMTPSA id \w+\s+\(using TLSv1.3 [^)]+\)\s+\(authenticated as ann\)", first.header)  # fmt: skip
    assert re.search(r"with UTF8SMTPSA id .*\(authenticated as bob@b.test\)", second.header, re.S)
    entries = site.daemon.wait_log("received", 2)
    assert sorted(entry["user"] for entry in entries) == ["ann", "bob@b.test"]
    secrets = [*USERS.values(), *(b64(word) for word in USERS.values())]
    secrets += [plain(user, word) for user, word in USERS.items()]
    site.daemon.wait_empty()
    site.daemon.log_written()
    with open(site.daemon.log_path) as log:
        told = log.read() + site.daemon.errors() + site.daemon.queue_text()
    assert not any(secret in told for secret in secrets if len(secret) > 1)


def test_nothing_stays_in_memory(t):
    """After logins no password is left in the daemon's memory: a core dump would not tell"""
    # a sanitizer would keep what is freed
    os.environ["ASAN_OPTIONS"] = "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"
    site = Site(t, listener={"auth": "always"})
    word = "Kw3-never-to-be-found"
    passwd(os.path.join(t.folder, "users"), "ann", word, "-m", "bcrypt")
    for tls in (False, True):
        with site.client(tls=tls) as client:
            login(client, "ann", word)
        with site.client(tls=tls) as client:
            client.expect("AUTH LOGIN", 334)
            client.expect(b64("ann"), 334)
            for piece in b64(word):
                client.send(piece)
            client.expect("", 235)
        with site.client(tls=tls) as client:
            client.send("AUTH PLAIN " + plain("ann", word)[:-3])  # never ends
        with site.client(tls=tls) as client:
            client.ehlo()
            count = 2000  # their replies fill what is kept for it: the rest waits
            client.send("EHLO a\r\n" * count + "AUTH PLAIN " + plain("ann", word) + "\r\nQUIT\r\n")
            codes = [client.reply().code for _ in range(count + 2)]
            assert codes == [250] * count + [235, 221]
        login_wrong = site.client(tls=tls)
        login(login_wrong, "ann", word + "!", 535)
    assert found(site.daemon.pid, [NAME.encode()])  # so we can see
    needles = [word.encode(), b64(word).encode()[:-2], plain("ann", word).encode()[:-4]]
    wait_for("the memory to be clean", lambda: not found(site.daemon.pid, needles))


def found(pid, needles):
    """Which of them are in a process's writable memory."""
    there = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            span, mode = line.split()[:2]
            if not mode.startswith("rw") or "[v" in line:
                continue
            start, end = (int(edge, 16) for edge in span.split("-"))
            if end - start > 1 << 34:  # a sanitizer's notes
                continue
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except OSError:
                continue
            there |= {needle for needle in needles if needle in data}
    return there


def test_refused(t):
    """Whoever is not a user hears 535, waits for it, and then nothing is different"""
    site = Site(t, auth={"users": users_file(t), "pause": "300ms"})
    with site.client() as client:
        wrong = [("ann", "x"), ("ann", ""), ("", "x"), ("", ""), ("nobody", USERS["ann"])]
        for count, (user, password) in enumerate(wrong[:4], 1):
            began = time.monotonic()
            assert login(client, user, password, 535).enhanced == "5.7.8"
            assert time.monotonic() - began >= 0.3 * count
            client.expect("RSET", 250)
            client.expect("MAIL FROM:<ann@a.test>", 250)
            assert client.expect("RCPT TO:<r@a.test>", 550).enhanced == "5.7.1"
            client.expect("RSET", 250)
        login(client, *wrong[4], 535)
        assert client.reply().code == 421
    with site.client() as client:
        client.expect("AUTH PLAIN " + plain("ann", USERS["ann"], "cy"), 535)  # as another
        login(client, "ann", USERS["ann"])
    with site.client() as client:
        client.expect("AUTH PLAIN " + plain("ann", USERS["ann"], "ann"), 235)
    complaints = [entry["text"] for entry in site.daemon.log("complaint")]
    assert complaints.count("Wrong user name or password") == 6


def test_many_failures(t):
    """An address that fails often hears 421, also in a new session, until it is forgotten"""
    site = Site(t, auth={"users": users_file(t), "pause": "0", "failures_max": 3, "failure_kept": "10s"})  # fmt: skip
    with site.client(source="127.0.0.7") as client:
        login(client, "ann", "1", 535)
        login(client, "ann", "2", 535)
        login(client, "ann", "3", 421)
        assert client.closed()
    with Client(site.port, source="127.0.0.7") as client:
        assert client.greeting.code == 421 and client.greeting.enhanced == "4.7.0"
    with site.daemon.client(source="127.0.0.7") as client:
        assert client.greeting.code == 220  # this port offers no AUTH: mail for us comes in
    with site.client(source="127.0.0.8") as client:
        login(client, "ann", USERS["ann"])

    def welcome():
        with Client(site.port, source="127.0.0.7") as client:
            return client.greeting.code == 220

    wait_for("the failures to be forgotten", welcome)
    with site.client(source="127.0.0.7") as client:
        login(client, "ann", USERS["ann"])


def test_file_changes(t):
    """What the file says now counts; a broken or open one is 454, never 535"""
    site = Site(t)
    path = os.path.join(t.folder, "users")
    with site.client() as client:
        passwd(path, "ann", "new word", "-m", "bcrypt")
        login(client, "ann", USERS["ann"], 535)
        login(client, "ann", "new word")
    with site.client() as client:
        passwd(path, "ann", "", "-d")
        login(client, "ann", "new word", 535)
        os.chmod(path, 0o644)
        assert login(client, "cy", "x", 454).enhanced == "4.7.0"
        os.rename(path, path + ".away")
        login(client, "cy", "x", 454)
        os.rename(path + ".away", path)
        os.chmod(path, 0o640)
        login(client, "cy", "x", 235)
    site.daemon.wait_errors(r"is too open \(mode 0644\)")
    os.chmod(path, 0o644)
    told = site.daemon.tool("check-config", site.daemon.config_path, status=78)
    assert "too open" in told.stderr


def test_passwd(t):
    """stafette passwd adds, changes and deletes; the file stays private, and keeps the rest"""
    path = os.path.join(t.folder, "secrets", "users")
    os.mkdir(os.path.dirname(path))
    passwd(path, "ann", "one")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    passwd(path, "bob@b.test", "two", "-m", "sha512")
    with open(path, "a") as file:
        file.write("# by hand\ncy:$6$x$y:cy@c.test")
    os.chmod(path, 0o640)
    os.chown(path, -1, 8)
    passwd(path, "cy", "three", "-m", "bcrypt")
    passwd(path, "ann", "four")
    passwd(path, "bob@b.test", "", "-d")
    with open(path) as file:
        ann, comment, cy = file.read().splitlines()
    assert re.fullmatch(r"ann:\$y\$[^:]+", ann) and comment == "# by hand"
    assert re.fullmatch(r"cy:\$2b\$[^:]+:cy@c.test", cy)
    info = os.stat(path)
    assert stat.S_IMODE(info.st_mode) == 0o640 and info.st_gid == 8
    assert os.listdir(os.path.dirname(path)) == ["users"]
    assert "no such user" in passwd(path, "dee", "", "-d", status=67)
    assert "cannot be a user's name" in passwd(path, "a:b", "x", status=64)
    assert "empty password" in passwd(path, "ann", "", status=65)
    assert "no such method" in passwd(path, "ann", "x", "-m", "md5", status=64)


def test_senders(t):
    """A user with a list sends from it only; without one from anywhere, or as itself"""
    site = Site(t)
    with site.client() as client:
        login(client, "cy", "x")
        for sender, code in (
            ("cy@c.test", 250),
            ("cy@C.TEST", 250),
            ("", 250),
            ("anybody@d.test", 250),
            ("Cy@c.test", 553),
            ("ann@a.test", 553),
            ("cy@c.test.a.test", 553),
            ("x@notd.test", 553),
        ):
            reply = client.expect(f"MAIL FROM:<{sender}>", code)
            assert code == 250 or reply.enhanced == "5.7.1"
            client.expect("RSET", 250)
    with site.client() as client:
        login(client, "ann", USERS["ann"])
        client.expect("MAIL FROM:<cy@c.test>", 250)
    auth = {"users": os.path.join(t.folder, "users"), "own_senders": True}
    site.daemon.stop()
    site.daemon.configure(auth=auth)
    site.daemon.start()
    with site.client() as client:
        login(client, "bob@b.test", USERS["bob@b.test"])
        client.expect("MAIL FROM:<ann@a.test>", 553)
        client.expect("MAIL FROM:<bob@b.test>", 250)
    with site.client() as client:
        login(client, "ann", USERS["ann"])  # no address: it is nobody's
        client.expect("MAIL FROM:<ann@a.test>", 553)


def test_required(t):
    """A listener that requires AUTH takes mail for nobody before it"""
    site = Site(t, listener={"auth_required": True})
    with site.client() as client:
        reply = client.expect("MAIL FROM:<s@sender.test>", 530)
        assert reply.enhanced == "5.7.0"
        client.expect("RCPT TO:<r@ours.test>", 503)
        login(client, "ann", USERS["ann"])
        client.submit("ann@a.test", ["r@ours.test"], letter("in"))
    site.peer.wait(1)


def test_never_an_open_relay(t):
    """Whatever a stranger says, only our own domains take its mail"""
    site = Site(t, listener={"auth": "always"}, session_errors_max=100)
    recipients = [
        "r@a.test",
        "r@A.TEST",
        "r%a.test@ours.test",
        "a.test!r@ours.test",
        '"r@a.test"@ours.test',
        '"r%a.test"@ours.test',
        '"a.test!r"@ours.test',
        "@ours.test:r@a.test",
        "@ours.test,@a.test:r@a.test",
        "r@[127.0.0.2]",
        "r@[IPv6:::1]",
        "r@ours.test.a.test",
        "r@xours.test",
        "r@sub.ours.test",
        "r@a.test.",
        "r@ours.test.",
        "r@ours.test@a.test",
        "@a.test,@b.test:r@a.test",
        '"r\\@a.test"@ours.test',
        '"\\a.test\\!r"@ours.test',
        "r@ours.test,r@a.test",
        "r@ours.test> <r@a.test",
        "r@[IPv6:::ffff:127.0.0.2]",
        "r@2130706434",
        "%@ours.test",
        "r",
        "r@",
        "@a.test",
    ]

    def before_ehlo(client):
        client.expect("RSET", 250)

    def failed(client):
        login(client, "ann", "wrong", 535)

    def cancelled(client):
        client.expect("AUTH LOGIN", 334)
        client.expect(b64("ann"), 334)
        client.expect("*", 501)

    def half(client):
        client.expect("AUTH PLAIN", 334)
        client.expect("AGFubg", 501)

    def secured(client):
        client.starttls(site.authority.client())
        client.ehlo()

    def forgotten(client):
        login(client, "ann", USERS["ann"])
        client.expect("MAIL FROM:<ann@a.test>", 250)
        client.expect("RCPT TO:<r@a.test>", 250)
        secured(client)

    states = [before_ehlo, failed, cancelled, half, secured, forgotten]
    senders = ["s@sender.test", "", "ann@a.test", "r@ours.test"]
    parameters = ["", " AUTH=<>", " AUTH=ann@a.test"]
    for state in states:
        with site.client(tls=False) as client:
            state(client)
            for sender in senders if state is secured else senders[:2]:
                for parameter in parameters if state is secured else parameters[1:2]:
                    client.expect(f"MAIL FROM:<{sender}>{parameter}", 250)
                    for recipient in recipients:
                        reply = client.command(f"RCPT TO:<{recipient}>")
                        assert reply.code in (501, 550, 555), (state.__name__, recipient, reply)
                    client = again(site, client, state)
                    client.expect("RSET", 250)
            client.expect("MAIL FROM:<s@sender.test>", 250)
            client.expect("RCPT TO:<R@OURS.test>", 250)
            client.expect("RCPT TO:<@a.test:r@ours.test>", 250)
            client.close()


def again(site, client, state):
    """A session of the same kind, for one that has had its errors."""
    client.close()
    client = site.client(tls=False)
    state(client)
    return client


def test_submission(t):
    """A submission listener mends the header for its users, not for strangers, nor elsewhere"""
    site = Site(t, listener={"auth": "tls", "submission": True})
    raw = b"From: ann@a.test\r\nBcc: hidden@a.test,\r\n\tmore@a.test\r\nTo: r@a.test\r\n\r\nBcc: x\r\n"
    with site.client() as client:
        client.submit("s@sender.test", ["r@ours.test"], raw)  # a stranger
        login(client, "ann", USERS["ann"])
        client.submit("ann@a.test", ["r@ours.test"], raw)
        client.submit("ann@a.test", ["r@ours.test"], letter("whole"))
        client.expect("MAIL FROM:<ann>", 501)  # unqualified
        client.expect("MAIL FROM:<ann@a.test>", 250)
        client.expect("RCPT TO:<r>", 501)
    with site.daemon.client() as client:
        client.ehlo()
        client.submit("s@sender.test", ["r@ours.test"], raw)  # another listener
    messages = site.peer.wait(4)
    mended = [
        message.body
        for message in messages
        if b"Message-ID:" in message.body and b"whole" not in message.body
    ]
    assert len(mended) == 1
    header, body = mended[0].split(b"\r\n\r\n", 1)
    assert body == b"Bcc: x\r\n" and b"hidden" not in header and b"more@" not in header
    own = header.split(b"From: ann", 1)[1]
    assert re.fullmatch(rb"@a.test\r\nTo: r@a.test\r\nDate: \w{3}, [^\r]+ \+0000\r\nMessage-ID: <\w+@mx.stafette.test>", own)  # fmt: skip
    assert sum(b"hidden@a.test" in message.body for message in messages) == 2


def test_a_flood_of_logins(t):
    """Logins beyond what can be checked at once hear 454; mail goes on meanwhile"""
    site = Site(t, auth={"users": users_file(t, "yescrypt"), "pause": "0", "failures_max": 100000}, listener={"auth": "always"}, workers=1)  # fmt: skip
    flood = [site.client(tls=False) for _ in range(150)]
    for client in flood:
        client.send("AUTH PLAIN " + plain("ann", "wrong") + "\r\n")
    began = time.monotonic()
    site.daemon.submit("s@sender.test", ["r@ours.test"], letter("mail"))
    site.peer.wait(1)
    took = time.monotonic() - began
    unanswered = len(flood) - len(select.select([c.socket for c in flood], [], [], 0)[0])
    codes = [client.reply().code for client in flood]
    assert set(codes) == {454, 535} and codes.count(535) >= 64
    assert unanswered or took < 5, f"a message took {took:.1f} s"
    with site.client() as client:
        login(client, "ann", USERS["ann"])


# ── clients that others wrote ──


def test_smtplib(t):
    """Python's smtplib logs in by both mechanisms"""
    site = Site(t)
    for method in ("auth_plain", "auth_login"):
        with smtplib.SMTP("127.0.0.1", site.port, timeout=20) as client:
            client.starttls(context=site.authority.client(verify=False))
            client.ehlo()
            client.user, client.password = "ann", USERS["ann"]
            mechanism = method[5:].upper()
            assert client.auth(mechanism, getattr(client, method))[0] == 235
            client.sendmail("ann@a.test", ["r@a.test"], letter(method))
    assert len(site.peer.wait(2)) == 2


def test_swaks_curl_msmtp(t):
    """swaks, curl and msmtp log in by both mechanisms, over STARTTLS"""
    site = Site(t)
    word = USERS["ann"]
    message = os.path.join(t.folder, "message")
    with open(message, "wb") as file:
        file.write(letter("hello"))
    commands = []
    for method in ("PLAIN", "LOGIN"):
        commands.append([need("swaks", "swaks"), "--server", f"127.0.0.1:{site.port}", "--tls",
                         "--auth", method, "--auth-user", "ann", "--auth-password", word,
                         "--from", "ann@a.test", "--to", "r@a.test"])  # fmt: skip
        commands.append([need("curl", "curl"), "-sS", f"smtp://localhost:{site.port}",
                         "--ssl-reqd", "--insecure", "--user", f"ann:{word}",
                         "--login-options", f"AUTH={method}", "--mail-from", "ann@a.test",
                         "--mail-rcpt", "r@a.test", "--upload-file", message])  # fmt: skip
        commands.append([need("msmtp", "msmtp"), "--host=127.0.0.1", f"--port={site.port}",
                         "--tls=on", "--tls-certcheck=off", f"--auth={method.lower()}",
                         "--user=ann", f"--passwordeval=echo \"{word}\"", "--from=ann@a.test",
                         "r@a.test"])  # fmt: skip
    for command in commands:
        with open(message, "rb") as standard_input:
            done = subprocess.run(command, stdin=standard_input, capture_output=True, timeout=60)
        assert done.returncode == 0, (command[0], done.stdout[-2000:], done.stderr)
    assert len(site.peer.wait(len(commands))) == 6
    assert all(entry["user"] == "ann" for entry in site.daemon.wait_log("received", 6))


NODEMAILER = """
const [port, user, pass, method] = process.argv.slice(1);
require("nodemailer").createTransport({
  host: "127.0.0.1", port: Number(port), requireTLS: true, authMethod: method,
  auth: {user, pass}, tls: {rejectUnauthorized: false},
}).sendMail({from: "ann@a.test", to: "r@a.test", bcc: "b@a.test", subject: method, text: "hi"})
  .then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
"""


def test_nodemailer(t):
    """nodemailer logs in by both mechanisms, over STARTTLS"""
    site = Site(t, listener={"submission": True})
    for method in ("PLAIN", "LOGIN"):
        done = subprocess.run(
            [need("node", "nodejs"), "-e", NODEMAILER, str(site.port), "ann", USERS["ann"], method],
            env={**os.environ, "NODE_PATH": "/usr/share/nodejs"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    messages = site.peer.wait(2)
    assert {message.subject for message in messages} == {"PLAIN", "LOGIN"}
    assert not any(re.search("^bcc:", message.header, re.M | re.I) for message in messages)


# ── Dovecot ──


@limit(120)
def test_dovecot(t):
    """Logins are asked of Dovecot's auth socket; without it they are 454, and back when it is"""
    folder = os.path.join(t.folder, "dovecot")
    dovecot = Dovecot(folder, {"ann": "secret", "bob@b.test": "two words=that"})
    t.keep(dovecot, Dovecot.stop)
    site = Site(t, auth={"dovecot": dovecot.socket, "pause": "10ms"})
    with site.client() as client:
        assert login(client, "ann", "wrong", 535).enhanced == "5.7.8"
        login(client, "nobody", "secret", 535)
        login(client, "ann", "", 535)
        login(client, "ANN", "secret")
        client.submit("ann@a.test", ["r@a.test"], letter("first"))
    assert site.daemon.wait_log("received")[0]["user"] == "ann"  # as Dovecot calls her
    with site.client() as client:
        client.expect("AUTH LOGIN " + b64("bob@b.test"), 334)
        client.expect(b64("two words=that"), 235)

    def answer(password):
        with site.client() as client:
            return client.command("AUTH PLAIN " + plain("ann", password))

    dovecot.stop()
    wait_for("Dovecot to be gone", lambda: answer("secret").code == 454)
    assert answer("wrong").enhanced == "4.7.0"
    site.daemon.wait_errors("nobody can log in")
    dovecot.start()
    wait_for("Dovecot to answer again", lambda: answer("secret").code == 235)


# ── smarthosts ──


class Smarthost:
    """Another daemon that takes mail only from who logs in, and a daemon that sends by it."""

    def __init__(self, t, listener=None, route=None, lines=None):
        self.site = Site(t, listener={"auth": "tls", "auth_required": True, **(listener or {})})
        self.file = os.path.join(t.folder, "smarthosts")
        self.write(lines or f"# our own\n127.0.0.1 ann {USERS['ann']}\n")
        hosts = [f"127.0.0.1:{self.site.port}"]
        route = {"hosts": hosts, "auth_user": "ann", **(route or {})}
        self.daemon = t.daemon(name="sender", credentials=self.file, routes={"*": route})

    def write(self, text, mode=0o640):
        with open(self.file, "w") as file:
            file.write(text)
        os.chmod(self.file, mode)


def test_smarthost(t):
    """We log in to a smarthost under TLS; a wrong password makes mail wait, not bounce"""
    smart = Smarthost(t)
    smart.daemon.submit("ann@a.test", ["r@a.test"], letter("first"))
    smart.site.peer.wait(1)
    assert smart.site.daemon.wait_log("received")[0]["user"] == "ann"
    passwd(os.path.join(t.folder, "users"), "ann", "changed", "-m", "bcrypt")
    smart.daemon.stop()
    smart.daemon.start()
    smart.daemon.submit("ann@a.test", ["r@a.test"], letter("second"))
    entry = smart.daemon.wait_log("deferred")[0]
    assert entry["enhanced"] == "4.7.8" and "Wrong user name or password" in str(entry)
    smart.daemon.wait_errors("does not take our mail for want of a login")
    smart.daemon.wait_log("deferred", 2)
    assert smart.daemon.errors().count("for want of a login") == 1
    assert smart.daemon.queued() == ["r@a.test"] and not smart.daemon.log("bounced")
    told = smart.daemon.errors() + smart.daemon.queue_text() + open(smart.daemon.log_path).read()
    assert USERS["ann"] not in told and plain("ann", USERS["ann"]) not in told
    smart.write("127.0.0.1 ann changed\n")
    smart.daemon.signal(signal.SIGHUP)
    smart.site.peer.wait(2)
    smart.daemon.wait_empty()


def test_smarthost_in_clear(t):
    """Without TLS nothing of a password leaves, unless the route allows it"""
    smart = Smarthost(t, listener={"auth": "always", "tls": "none"})
    smart.daemon.submit("ann@a.test", ["r@a.test"], letter("first"))
    assert smart.daemon.wait_log("deferred")[0]["enhanced"] in ("4.7.4", "4.7.8")
    assert not smart.site.daemon.log("received")
    route = {**smart.daemon.routes["*"], "auth_in_clear": True}
    smart.daemon.stop()
    smart.daemon.routes = {"*": route}
    smart.daemon.configure()
    smart.daemon.start()
    smart.site.peer.wait(1)


def test_smarthost_without_login(t):
    """530 from a smarthost is our mistake: the mail waits"""
    smart = Smarthost(t, route={"auth_user": ""})
    smart.daemon.submit("ann@a.test", ["r@a.test"], letter("first"))
    entry = smart.daemon.wait_log("deferred")[0]
    assert "Authentication required" in str(entry)
    smart.daemon.wait_errors("for want of a login")
    assert smart.daemon.queued() == ["r@a.test"] and not smart.daemon.log("bounced")


def test_credentials_file(t):
    """A file that others can read, or without the password, stops the start and says why"""
    port = t.port()
    file = os.path.join(t.folder, "smarthosts")
    route = {"hosts": [f"127.0.0.1:{port}"], "auth_user": "ann"}
    daemon = t.daemon(start=False, credentials=file, routes={"*": route})
    for text, mode, why in (
        ("127.0.0.1 ann x\n", 0o644, "is too open (mode 0644)"),
        ("127.0.0.1 bob x\n", 0o600, "no password of ann for 127.0.0.1"),
        ("127.0.0.1 ann\n", 0o600, "smarthosts:1: not a line of credentials"),
        (None, 0, "No such file"),
    ):
        if os.path.exists(file):
            os.remove(file)
        if text:
            with open(file, "w") as out:
                out.write(text)
            os.chmod(file, mode)
        daemon.start(ready=False)
        assert daemon.wait() == 78
        assert why in daemon.errors(), daemon.errors()
        assert why in daemon.tool("check-config", daemon.config_path, status=78).stderr


# ── Postfix on the other side ──


@limit(120)
def test_postfix_logs_in(t):
    """Postfix delivers by us as its smarthost, with SASL over TLS"""
    site = Site(t, listener={"auth_required": True})
    settings = {
        "relayhost": f"[127.0.0.1]:{site.port}",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": "static:cy:x",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_tls_security_level": "encrypt",
    }
    postfix = Postfix(os.path.join(t.folder, "postfix"), t.port(), settings)
    t.keep(postfix, Postfix.stop)
    with Client(postfix.port, postfix.host) as client:
        client.ehlo()
        client.submit("cy@c.test", ["r@a.test"], letter("by postfix"))
    site.peer.wait(1, 40)
    assert site.daemon.wait_log("received")[0]["user"] == "cy"


@limit(120)
def test_postfix_as_smarthost(t):
    """We deliver by Postfix as our smarthost, which asks Dovecot about us"""
    dovecot = Dovecot(os.path.join(t.folder, "dovecot"), {"ann": "secret"})
    t.keep(dovecot, Dovecot.stop)
    chain, key = Authority(t.folder).make("postfix.test")
    peer = t.peer()
    postfix = Postfix(
        os.path.join(t.folder, "postfix"),
        t.port(),
        {
            "mynetworks": "192.0.2.0/24",
            "relayhost": f"[{peer.host}]:{peer.port}",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": dovecot.socket,
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_auth_only": "yes",
            "smtpd_tls_cert_file": chain,
            "smtpd_tls_key_file": key,
        },
    )
    t.keep(postfix, Postfix.stop)
    file = os.path.join(t.folder, "smarthosts")
    with open(file, "w") as out:
        out.write(f"{postfix.host} ann secret\n")
    os.chmod(file, 0o600)
    route = {"hosts": [f"{postfix.host}:{postfix.port}"], "auth_user": "ann"}
    daemon = t.daemon(credentials=file, routes={"*": route})
    daemon.submit("ann@a.test", ["r@a.test"], letter("by postfix"))
    assert "by postfix" == peer.wait(1, 40)[0].subject
    wait_for("Postfix's log", lambda: "sasl_username=ann" in postfix.logged())
