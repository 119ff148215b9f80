"""sendmail, as programs use it, and the drop directory, while nobody listens."""

import email
import os
import random
import re
import shutil
import subprocess
import time

from harness import CRASH_ROUNDS, NOBODY, STAFETTE, limit, need, wait_for
from wire import Client, letter


def programs(t):
    """The folder with the names that programs call."""
    folder = os.path.join(t.folder, "bin")
    os.makedirs(folder, exist_ok=True)
    for name in ("sendmail", "mailq", "newaliases"):
        if not os.path.lexists(os.path.join(folder, name)):
            os.symlink(STAFETTE, os.path.join(folder, name))
    return folder


def environment(t, daemon):
    folder = programs(t)
    return {
        **os.environ,
        "STAFETTE_CONFIG": daemon.config_path,
        "PATH": folder + ":" + os.environ["PATH"],
        "HOME": t.folder,
    }


def sendmail(t, daemon, *arguments, text="Subject: hello\n\nbody\n", status=0, **options):
    done = subprocess.run(
        [os.path.join(programs(t), "sendmail"), *arguments],
        input=text.encode() if isinstance(text, str) else text,
        capture_output=True,
        timeout=60,
        env=environment(t, daemon),
        **options,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.count(b"\n") == (1 if status else 0), done.stderr
    return done


def run(t, daemon, command, text):
    """A program that calls sendmail by itself."""
    done = subprocess.run(
        command, input=text, capture_output=True, timeout=60, env=environment(t, daemon)
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def drop_of(daemon):
    return daemon.settings.get("drop", os.path.join(daemon.spool, "drop"))


def kept(daemon):
    """Files that wait in the drop directory."""
    return sorted(
        name for name in os.listdir(drop_of(daemon)) if name != "bad" and not name.startswith(".")
    )


def bad(daemon):
    return sorted(os.listdir(os.path.join(drop_of(daemon), "bad")))


def parsed(message):
    return email.message_from_bytes(message.body)


def open_up(t, daemon):
    """Lets every user at the configuration and on the way to the spool."""
    for path in (os.path.dirname(t.folder), t.folder, daemon.folder):
        os.chmod(path, 0o755)
    os.chmod(daemon.config_path, 0o644)


# ── as programs use it ──


def test_header_recipients(t):
    """-t takes recipients from To, Cc and Bcc in all their forms, and Bcc is gone"""
    daemon, peer = t.simple()
    sendmail(
        t,
        daemon,
        "-t",
        "-i",
        text='To: "Doe, Jane" <jane@a.test>,\n Team: x@a.test (he), y@a.test;\nCc: Jane@A.TEST\n'
        "Bcc: hidden@a.test\nSubject: all\n\n.\nafter the dot\n",
    )
    message = peer.wait(1)[0]
    assert sorted(peer.recipients()) == sorted(
        ["jane@a.test", "Jane@a.test", "x@a.test", "y@a.test", "hidden@a.test"]
    ), peer.recipients()
    assert b"hidden" not in message.body and b"\r\n.\r\nafter the dot\r\n" in message.body
    assert '"Doe, Jane" <jane@a.test>' in parsed(message)["To"]


def test_what_is_missing_is_added(t):
    """From, Date, Message-ID and To are added, with the full name of -F"""
    daemon, peer = t.simple()
    sendmail(t, daemon, "-F", 'The "Cron" Dæmon', "-f", "cron@a.test", "r@a.test", text="no header\n")
    header = parsed(peer.wait(1)[0])
    assert header["From"] == "=?UTF-8?B?VGhlICJDcm9uIiBEw6Ztb24=?= <cron@a.test>", header["From"]
    assert header["Date"] and re.fullmatch(r"<.+@mx\.stafette\.test>", header["Message-ID"])
    assert header["To"] == "undisclosed-recipients:;" and header.get_payload() == "no header\r\n"
    assert peer.messages[0].sender == "cron@a.test"


def test_what_is_there_stays(t):
    """A whole header stays as it is, 8-bit text and CRLF too"""
    daemon, peer = t.simple()
    text = "From: a@a.test\r\nDate: Mon, 1 Jan 2001 00:00:00 +0000\r\nMessage-ID: <1@a>\r\nTo: b@a.test\r\n\r\nGrüße\r\n"
    sendmail(t, daemon, "-oi", "-f", "<>", "b@a.test", text=text)
    message = peer.wait(1)[0]
    assert message.body.endswith(text.encode()) and message.sender == ""


def test_lone_dot_ends(t):
    """A line of one dot ends the message unless -i is given; bare CR and LF become line ends"""
    daemon, peer = t.simple()
    sendmail(t, daemon, "r@a.test", text=b"Subject: s\n\none\rtwo\n.\nnever\n")
    assert peer.wait(1)[0].body.endswith(b"\r\n\r\none\r\ntwo\r\n")


def test_dsn(t):
    """-N, -R and -V become NOTIFY, RET and ENVID, also by way of the drop directory"""
    daemon, peer = t.simple(peer={"extensions": ["8BITMIME", "PIPELINING"]})
    options = ["-f", "s@a.test", "-N", "success", "-R", "hdrs", "-V", "id+1", "r@a.test"]
    sendmail(t, daemon, *options, text="Subject: s\n\nsecret\n")
    peer.wait(2)
    daemon.stop()
    sendmail(t, daemon, *options, text="Subject: s\n\nsecret\n")
    daemon.start()
    reports = [m for m in peer.wait(4) if m.sender == ""]
    assert len(reports) == 2
    for report in reports:
        assert b"Original-Envelope-Id: id+1\r\n" in report.body and b"relayed" in report.body
        assert b"secret" not in report.body


def test_exit_codes(t):
    """Exit codes of sysexits.h, and one line that says why"""
    daemon, _ = t.simple()
    daemon.stop()
    daemon.routes = {"gone.test": {"fail": "5.1.1 nobody"}}
    daemon.configure(message_bytes_max="64K")
    daemon.start()
    assert b"no recipient" in sendmail(t, daemon, status=64).stderr
    sendmail(t, daemon, "-bd", status=64)
    sendmail(t, daemon, "-k", "r@a.test", status=64)
    sendmail(t, daemon, "-N", "sometimes", "r@a.test", status=64)
    assert b"no address" in sendmail(t, daemon, "a b@c", status=65).stderr
    assert b"To: " in sendmail(t, daemon, "-t", text="To: <a@b.test\n\n", status=65).stderr
    sendmail(t, daemon, "-t", text="Subject: to nobody\n\n", status=65)
    refused = sendmail(t, daemon, "r@a.test", "x@gone.test", status=67).stderr
    assert b"x@gone.test" in refused and b"5.1.1" in refused, refused
    sendmail(t, daemon, "r@a.test", text="x" * 100000, status=65)
    sendmail(t, daemon, "-C", "/does/not/exist", "r@a.test", status=78)
    for quiet in (["-q"], ["-q15m"], ["-bi"], ["-I"]):
        assert sendmail(t, daemon, *quiet).stdout == b""
    assert subprocess.run([os.path.join(programs(t), "newaliases")]).returncode == 0


def test_many_recipients(t):
    """More recipients than one transaction takes go in several"""
    daemon, peer = t.simple(recipients_max=100)
    sendmail(t, daemon, *[f"r{n}@a.test" for n in range(250)])
    wait_for("all", lambda: len(peer.recipients()) == 250)
    assert len(set(peer.recipients())) == 250
    assert len(daemon.wait_log("received", 3)) == 3


def test_bs_and_bp(t):
    """-bs speaks SMTP on standard input and output, -bp is the queue"""
    daemon, peer = t.simple()
    talk = "EHLO me\r\nMAIL FROM:<s@a.test>\r\nRCPT TO:<r@a.test>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\nQUIT\r\n"
    done = sendmail(t, daemon, "-bs", text=talk)
    assert done.stdout.startswith(b"220 ") and done.stdout.rstrip().split(b"\r\n")[-1].startswith(
        b"221 "
    ), done.stdout
    peer.wait(1)
    daemon.wait_empty()
    assert sendmail(t, daemon, "-bp").stdout == b"Mail queue is empty\n"
    daemon.stop()
    done = subprocess.run(
        [os.path.join(programs(t), "sendmail"), "-bs"],
        input=b"QUIT\r\n",
        capture_output=True,
        env=environment(t, daemon),
    )
    assert done.returncode == 75 and done.stdout.startswith(b"421 "), done


def test_unix_socket(t):
    """A UNIX socket listener is taken before others"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = t.daemon(start=False)
    path = os.path.join(daemon.folder, "smtp.sock")
    daemon.configure(listen=[f"127.0.0.1:{daemon.port}", path])
    daemon.start()
    sendmail(t, daemon, "r@a.test")
    assert b"(local)" in peer.wait(1)[0].body


# ── programs ──


def test_mailutils(t):
    """mail of GNU mailutils sends"""
    daemon, peer = t.simple()
    mail = need("mail.mailutils", "mailutils")
    mailer = f"set sendmail=sendmail://{programs(t)}/sendmail"
    command = [mail, "-E", mailer, "-s", "from mailutils", "r@a.test"]
    run(t, daemon, command, b"text\nmore\n")
    message = peer.wait(1)[0]
    assert parsed(message)["Subject"] == "from mailutils" and b"text\r\n" in message.body


def test_s_nail(t):
    """s-nail sends, with a carbon copy"""
    daemon, peer = t.simple()
    nail = need("s-nail", "s-nail")
    run(
        t,
        daemon,
        [
            nail,
            "-n",
            "-S",
            f"mta={programs(t)}/sendmail",
            "-s",
            "from s-nail",
            "-c",
            "c@a.test",
            "-b",
            "b@a.test",
            "r@a.test",
        ],
        b"text\n",
    )
    wait_for("three", lambda: len(peer.recipients()) == 3)
    assert sorted(peer.recipients()) == ["b@a.test", "c@a.test", "r@a.test"]
    assert b"b@a.test" not in peer.messages[0].body


def test_php(t):
    """mail() of PHP sends, with its additional header and parameters"""
    daemon, peer = t.simple()
    php = need("php", "php-cli")
    code = 'exit(mail("r@a.test", "from php", "line\\nline", "X-Mine: 1\\r\\nCc: c@a.test", "-fs@a.test") ? 0 : 1);'
    run(t, daemon, [php, "-n", "-d", f"sendmail_path={programs(t)}/sendmail -t -i", "-r", code], b"")
    wait_for("both", lambda: sorted(peer.recipients()) == ["c@a.test", "r@a.test"])
    message = peer.messages[0]
    assert message.sender == "s@a.test" and parsed(message)["X-Mine"] == "1"


def test_cron_and_python(t):
    """What cron pipes and what Python's email writes arrives"""
    daemon, peer = t.simple()
    cron = "From: root (Cron Daemon)\nTo: root@a.test\nSubject: Cron <root@h> true\nAuto-Submitted: auto-generated\n\nout\n"
    sendmail(t, daemon, "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root", text=cron)
    message = email.message.EmailMessage()
    message["To"], message["Subject"] = "Jürgen <r@a.test>", "Grüße"
    message.set_content("wörld\n")
    sendmail(t, daemon, "-t", "-oi", text=message.as_bytes())
    first, second = sorted(peer.wait(2), key=lambda m: "Cron" not in parsed(m)["Subject"])
    assert first.sender == "root@mx.stafette.test" and parsed(first)["From"] == "root (Cron Daemon)"
    assert parsed(second).get_payload(decode=True).decode().strip() == "wörld"


# ── while nobody listens ──


def test_kept_and_taken_in(t):
    """While the daemon is down a message is kept, and delivered once when it is there"""
    daemon, peer = t.simple()
    daemon.stop()
    sendmail(t, daemon, "-f", "s@a.test", "r@a.test", "q@a.test")
    assert len(kept(daemon)) == 1
    daemon.start()
    message = peer.wait(1)[0]
    wait_for("the folder to be empty", lambda: not kept(daemon))
    assert sorted(peer.recipients()) == ["q@a.test", "r@a.test"] and message.sender == "s@a.test"
    received = parsed(message)["Received"]
    assert "from uid:0 (local)" in received and "with local id" in received, received
    daemon.restart()
    daemon.wait_empty()
    assert len(peer.messages) == 1


def test_taken_in_while_running(t):
    """A 4xx puts the message into the folder, and it is taken in while the daemon runs"""
    daemon, peer = t.simple(sessions_max=1)
    with Client(daemon.port) as client:
        client.ehlo()
        sendmail(t, daemon, "r@a.test")  # 421: too many sessions
        peer.wait(1)
    wait_for("the folder to be empty", lambda: not kept(daemon))
    assert daemon.wait_log("received")[0]["client"] == "drop"


def test_large_and_many_kept(t):
    """Large messages and many are taken in whole"""
    daemon, peer = t.simple()
    daemon.stop()
    big = b"Subject: big\n\n" + b"0123456789abcdef" * 4 * 60000 + b"\n"
    big = re.sub(rb"(.{64})", rb"\1\n", big)
    sendmail(t, daemon, "r@a.test", text=big)
    for n in range(100):
        sendmail(t, daemon, f"r{n}@a.test", text=f"Subject: m{n}\n\n")
    daemon.start()
    wait_for("all", lambda: len(peer.recipients()) == 101, 40)
    wait_for("the folder to be empty", lambda: not kept(daemon))
    assert len(set(peer.recipients())) == 101
    whole = [m for m in peer.messages if parsed(m)["Subject"] == "big"][0]
    assert whole.body.split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n") == big.split(b"\n\n", 1)[1]


def test_refused_later(t):
    """A recipient whose route fails is reported to the sender when the message is taken in"""
    daemon, peer = t.simple()
    daemon.stop()
    daemon.routes = {"gone.test": {"fail": "5.1.1 nobody"}}
    daemon.configure()
    sendmail(t, daemon, "-f", "s@a.test", "x@gone.test")
    daemon.start()
    report = peer.wait(1)[0]
    assert report.sender == "" and b"x@gone.test" in report.body


def test_ordinary_user(t):
    """Anybody may leave a message, and nobody sees those of others"""
    daemon, peer = t.simple()
    open_up(t, daemon)
    daemon.stop()
    sendmail(t, daemon, "r@a.test", **NOBODY, umask=0o077, cwd="/")
    assert len(kept(daemon)) == 1
    look = subprocess.run(["ls", drop_of(daemon)], **NOBODY, capture_output=True, cwd="/")
    assert look.returncode != 0 and not look.stdout
    other = os.path.join(drop_of(daemon), kept(daemon)[0])
    os.chown(other, 0, 0)
    gone = subprocess.run(["rm", "-f", other], **NOBODY, capture_output=True, cwd="/")
    assert gone.returncode != 0 and os.path.exists(other)
    os.chown(other, 65534, 65534)
    daemon.start()
    message = peer.wait(1)[0]
    assert message.sender == "nobody@mx.stafette.test"
    assert "from uid:65534 (local)" in parsed(message)["Received"]


def test_nowhere_to_keep(t):
    """Without a daemon and without a folder the sender is told to try later"""
    daemon, _ = t.simple()
    daemon.stop()
    shutil.rmtree(drop_of(daemon))
    assert b"nor kept" in sendmail(t, daemon, "r@a.test", status=75).stderr


def test_hostile_files(t):
    """Links and pipes are removed, foreign and damaged files go to bad/, with a line each"""
    daemon, peer = t.simple()
    daemon.stop()
    for n in range(4):
        sendmail(t, daemon, f"r{n}@a.test")
    folder = drop_of(daemon)
    cut, flipped, linked, good = (os.path.join(folder, name) for name in kept(daemon))
    os.truncate(cut, os.path.getsize(cut) - 3)
    with open(flipped, "r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x00")
    os.link(linked, os.path.join(folder, "second-name"))
    os.symlink("/etc/passwd", os.path.join(folder, "symlink"))
    os.mkfifo(os.path.join(folder, "pipe"))
    os.mkdir(os.path.join(folder, "folder"))
    with open(os.path.join(folder, "foreign\nname"), "wb") as file:
        file.write(os.urandom(5000))
    with open(os.path.join(folder, "huge"), "wb") as file:
        file.truncate(1 << 36)
    with open(os.path.join(folder, "empty"), "wb"):
        pass
    with open(os.path.join(folder, ".new-old"), "wb"):
        pass
    os.utime(os.path.join(folder, ".new-old"), (0, 0))
    with open(os.path.join(folder, ".new-fresh"), "wb"):
        pass
    daemon.start()
    wait_for("a clean folder", lambda: not kept(daemon) and len(bad(daemon)) == 8)
    peer.wait(1)
    daemon.wait_empty()
    assert len(peer.messages) == 1, peer.recipients()
    wait_for("a line about each", lambda: daemon.errors().count("is not taken in") >= 10)
    assert daemon.errors().count("is not taken in") == 10
    assert "symbolic link" in daemon.errors() and "checksum" in daemon.errors()
    wait_for("the old one to go", lambda: not os.path.exists(os.path.join(folder, ".new-old")))
    assert os.path.exists(os.path.join(folder, ".new-fresh"))
    assert not os.path.exists(good) and peer.recipients()


def test_foreign_folder(t):
    """A folder that is used for something else, such as the spool, is no drop directory"""
    peer = t.peer(rcpt="450 4.2.1 later")
    t.dns({"a.test": peer.host})
    daemon = t.daemon(retry_first="1h")
    assert daemon.submit("s@a.test", ["r@a.test"], letter()).code == 250
    daemon.stop()
    for folder in (daemon.spool, daemon.spool + "/seg", daemon.spool + "/jnl/"):
        daemon.configure(drop=folder)
        daemon.start()
        daemon.wait_errors(f"error: drop directory {folder}: nobody but its owner")
        daemon.stop()
        assert not os.path.exists(os.path.join(folder, "bad"))
        assert daemon.queued() == ["r@a.test"]


def crc32c(octets):
    value = 0xFFFFFFFF
    for octet in octets:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_hostile_envelope(t):
    """What no client could ask for goes to bad/ and not into a command, its checksum being right"""
    daemon, peer = t.simple(peer={"extensions": ["8BITMIME", "PIPELINING", "DSN"]})
    daemon.stop()
    sendmail(t, daemon, "-V", "id-in-the-envelope", "r@a.test")
    (name,) = kept(daemon)
    path = os.path.join(drop_of(daemon), name)
    with open(path, "r+b") as file:
        whole = file.read().replace(b"id-in-the-envelope", b"id\r\nRCPT TO:<x@yz>")
        file.seek(0)
        file.write(whole[:8] + crc32c(whole[12:]).to_bytes(4, "little") + whole[12:])
    sendmail(t, daemon, "good@a.test")
    daemon.start()
    peer.wait(1)
    wait_for("a clean folder", lambda: not kept(daemon) and len(bad(daemon)) == 1)
    assert peer.recipients() == ["good@a.test"], peer.recipients()
    assert "its envelope id" in daemon.errors()


def test_killed_sendmail(t):
    """A sendmail that is killed at any moment leaves nothing half"""
    daemon, peer = t.simple()
    daemon.stop()
    text = b"Subject: killed\n\n" + b"x" * 70 * 1000 + b"\n"
    whole = 0
    for n in range(30):
        sender = subprocess.Popen(
            [os.path.join(programs(t), "sendmail"), "-i", f"k{n}@a.test"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(t, daemon),
        )
        try:
            sender.stdin.write(text)
            sender.stdin.close()
        except BrokenPipeError:
            pass
        time.sleep(random.random() * 0.03)
        sender.kill()
        whole += sender.wait() == 0
    waiting = len(kept(daemon))
    assert waiting >= whole
    daemon.start()
    wait_for("all that is whole", lambda: len(peer.recipients()) == waiting)
    assert bad(daemon) == [] and len(set(peer.recipients())) == waiting
    assert all(len(m.body) > 70 * 1000 for m in peer.messages)


@limit(180)
def test_killed_daemon(t):
    """kill -9 between taking a message in and removing its file makes no second one"""
    peer = t.peer(rcpt="450 4.2.1 later")  # nothing is delivered: each message can be counted
    t.dns({"a.test": peer.host})
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h")
    sent = 0
    for _ in range(max(6, CRASH_ROUNDS)):
        daemon.stop_at_once() if daemon.process.poll() is None else None
        for _ in range(25):
            sendmail(t, daemon, "-f", f"s{sent}@a.test", "r@a.test")
            sent += 1
        daemon.start(ready=False)
        wait_for("the intake to begin", lambda: len(kept(daemon)) < 25, every=0.001)
        time.sleep(random.random() * 0.03)
        daemon.kill()
    daemon.start()
    wait_for("an empty folder", lambda: not kept(daemon))
    senders = [entry["sender"] for entry in daemon.queue()]
    assert sorted(senders) == sorted(f"s{n}@a.test" for n in range(sent)), (len(senders), sent)
    assert bad(daemon) == []


def test_crash_before_the_unlink(t):
    """A file whose message was taken in before the crash is only removed"""
    peer = t.peer(rcpt="450 4.2.1 later")
    t.dns({"a.test": peer.host})
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h")
    daemon.stop()
    sendmail(t, daemon, "-f", "once@a.test", "r@a.test")
    # Nobody can remove anything there, root included.
    subprocess.run([need("chattr", "e2fsprogs"), "+a", drop_of(daemon)], check=True)
    try:
        daemon.start()
        daemon.wait_log("received")
        wait_for("the complaint", lambda: "can't be removed" in daemon.errors())
        time.sleep(2.5)  # MARK would pass it
        assert len(daemon.log("received")) == 1 and len(kept(daemon)) == 1
        daemon.kill()
        daemon.start(ready=False)
        assert daemon.wait() == 73 and "sent twice" in daemon.errors()
    finally:
        subprocess.run(["chattr", "-a", drop_of(daemon)], check=True)
    daemon.start()
    assert kept(daemon) == []
    time.sleep(3)
    assert [entry["sender"] for entry in daemon.queue()] == ["once@a.test"]
