"""What operators see and do: the list, show, check-config, the log, signals, starting twice."""

import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time

from harness import NOBODY, STAFETTE, STAFETTED, wait_for
from peer import Slow
from wire import Client, Closed, letter


def waiting(t, count=3, **settings):
    """A daemon with `count` messages that wait, two recipients each."""
    peer = t.peer(rcpt="450 4.2.1 come back later")
    t.dns({"a.test": peer.host, "b.test": "127.0.0.99"})
    settings = {"retry_first": "1h", "retry_base": "1h", "retry_cap": "2h", **settings}
    daemon = t.daemon(**settings)
    replies = [
        daemon.submit(
            f"s{n}@sender.test",
            [f"x{n}@a.test", f"y{n}@a.test"],
            letter(f"m{n}", size=2000 * (n + 1)),
        )
        for n in range(count)
    ]
    ids = [re.search(r"\b[0-9A-HJKMNP-TV-Z]{13}\b", reply.text).group() for reply in replies]
    wait_for(
        "the first attempts",
        lambda: [e["queue_name"] for e in daemon.queue() if e["attempts"]] == ["deferred"] * count,
    )
    daemon.wait_log("received", count)  # `show` tells what is in the log
    daemon.wait_log("deferred", 2 * count)
    return daemon, peer, ids


def test_json(t):
    """--json has every field of postqueue -j and ours"""
    daemon, _, ids = waiting(t)
    entries = sorted(daemon.queue(), key=lambda e: e["sender"])
    assert [e["queue_id"] for e in entries] == ids
    for n, entry in enumerate(entries):
        assert entry["queue_name"] in ("deferred", "active", "incoming", "hold")
        assert entry["queue_name"] == "deferred"
        assert abs(entry["arrival_time"] - time.time()) < 60
        assert 2000 * (n + 1) <= entry["message_size"] < 2000 * (n + 1) + 1000
        assert entry["sender"] == f"s{n}@sender.test" and "forced_expire" in entry
        assert sorted(r["address"] for r in entry["recipients"]) == [f"x{n}@a.test", f"y{n}@a.test"]
        assert all("come back later" in r["delay_reason"] for r in entry["recipients"]), entry
        assert entry["attempts"] == 1 and entry["next_attempt"] > time.time() + 60
        assert entry["expires"] > entry["next_attempt"] and "site" in entry
        assert "450" in str(entry) and "4.2.1" in str(entry)


def test_text(t):
    """The list looks as Postfix's mailq, also by that name; an enhanced code stands there once"""
    daemon, _, ids = waiting(t)
    text = daemon.queue_text()
    assert re.match(r"-+Queue ID-+ +-+Size-+ +-+Arrival Time-+ +-+Sender/Recipient-+\n", text), text
    for n, identity in enumerate(ids):
        assert re.search(
            rf"^{identity}[*! ]? +\d+ \w{{3}} \w{{3}} [ \d]\d \d\d:\d\d:\d\d +s{n}@sender\.test$",
            text,
            re.M,
        ), text
        assert re.search(r"^ +\(host .* said: 450 4\.2\.1 come back later\)$", text, re.M), text
        assert re.search(rf"^ {{10,}}x{n}@a\.test$", text, re.M)
    assert re.search(r"^-- \d+ Kbytes in 3 Requests\.$", text, re.M), text
    mailq = os.path.join(t.folder, "mailq")
    os.symlink(STAFETTE, mailq)
    assert daemon.tool("-c", daemon.config_path, name=mailq).stdout == text


def test_empty(t):
    """An empty queue says so"""
    daemon = t.daemon()
    assert daemon.queue_text() == "Mail queue is empty\n"
    assert daemon.queue() == [] and daemon.count() == 0


def test_filters(t):
    """The list can be filtered by sender, recipient, domain, state, age, size and reply"""
    daemon, _, ids = waiting(t)
    daemon.submit("other@else.test", ["z@b.test"], letter("dead"))
    wait_for("its attempt", lambda: len(daemon.queue("--reply", "refused")) == 1)
    cases = [
        (("--sender", "s1@sender.test"), 1),
        (("--recipient", "x2@a.test"), 1),
        (("--domain", "a.test"), 3),
        (("--domain", "b.test"), 1),
        (("--domain", "a.test", "--state", "deferred"), 3),
        (("--state", "hold"), 0),
        (("--older", "1h"), 0),
        (("--younger", "1h"), 4),
        (("--larger", "3000"), 2),
        (("--smaller", "3000"), 2),
        (("--reply", "come back"), 3),
    ]
    wrong = []
    for words, expected in cases:
        try:
            found = len(daemon.queue(*words))
            if found != expected:
                wrong.append(f"{words}: {found}, expected {expected}")
        except AssertionError as error:
            wrong.append(f"{words}: {error}")
    assert not wrong, "\n".join(wrong)


def test_running_and_stopped_agree(t):
    """The list, the count, the summary and show are the same beside the daemon and without it"""
    daemon, _, ids = waiting(t)

    def picture():
        entries = sorted(daemon.queue(), key=lambda e: e["queue_id"])
        for entry in entries:
            entry["recipients"].sort(key=lambda r: r["address"])
        return {
            "json": entries,
            "text": sorted(daemon.queue_text().split("\n")),
            "count": daemon.queue_text("--count"),
            "summary": daemon.queue_text("--summary"),
            "show": daemon.tool("show", "-c", daemon.config_path, ids[0]).stdout,
        }

    running = picture()
    daemon.stop()
    stopped = picture()
    for name in running:
        assert running[name] == stopped[name], f"{name}:\n{running[name]}\n{stopped[name]}"
    daemon.start()
    again = picture()
    assert again["json"] == running["json"], (again["json"], running["json"])


def test_killed_and_listed(t):
    """After kill -9 the list without the daemon shows everything that was promised"""
    daemon, _, ids = waiting(t)
    daemon.kill()
    assert sorted(e["queue_id"] for e in daemon.queue()) == sorted(ids)
    assert daemon.count() == 3


def test_summary(t):
    """--summary counts by domain and by reason"""
    daemon, _, _ = waiting(t)
    text = daemon.queue_text("--summary")
    assert "a.test" in text and re.search(r"\b[36]\b", text), text
    assert "come back later" in text or "450" in text or "4.2.1" in text, text


def test_show(t):
    """show prints envelope, history and the message; an unknown id is an error"""
    daemon, _, ids = waiting(t)
    text = daemon.tool("show", "-c", daemon.config_path, ids[1]).stdout
    for word in (
        "s1@sender.test",
        "x1@a.test",
        "y1@a.test",
        "come back later",
        "Subject: m1",
        "The quick brown fox",
        "received",
        "deferred",
    ):
        assert word in text, f"{word} is not in:\n{text[:3000]}"
    missing = daemon.tool("show", "-c", daemon.config_path, "0000000000000", status=66)
    assert "0000000000000 is not in the queue" in missing.stderr and not missing.stdout
    log = ("--log", "/nonexistent/log")
    missing = daemon.tool("show", "-c", daemon.config_path, *log, "0000000000000", status=66)
    assert "/nonexistent/log: no history" in missing.stderr


def test_show_what_cannot_be_opened(t):
    """A message whose file show can't open is neither damaged nor delivered, and is there again later"""
    daemon, _, ids = waiting(t, count=1)
    words = ("show", "-c", daemon.config_path, ids[0])
    folder = os.path.join(daemon.spool, "seg")
    for name in os.listdir(folder):
        os.rename(os.path.join(folder, name), os.path.join(t.folder, name))
        os.symlink(name, os.path.join(folder, name))  # to itself
    failed = daemon.tool(*words, status=None)
    for name in os.listdir(folder):
        os.rename(os.path.join(t.folder, name), os.path.join(folder, name))
    assert failed.returncode == os.EX_IOERR and "can't be read" in failed.stderr, failed
    assert "damaged" not in failed.stderr, failed
    assert "Subject: m0" in daemon.tool(*words).stdout


def test_log_events(t):
    """Each recipient's story is in the log, with all its fields, one JSON line an event"""
    peer = t.peer(rcpt=["450 4.2.1 later", None])
    t.dns({"a.test": peer.host})
    daemon = t.daemon()
    reply = daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)
    daemon.wait_empty()
    delivered = daemon.wait_log("delivered")[0]
    identity = delivered["id"]
    assert identity in reply.text
    events = daemon.log(id=identity)
    assert [e["event"] for e in events] == ["received", "deferred", "delivered"], events
    for key in ("time", "id", "sender", "recipient", "site", "host", "source", "reply", "size"):
        assert key in delivered, f"{key} is not in {delivered}"
    assert delivered["code"] == 250 and delivered["reply"].endswith("taken"), delivered
    assert (events[1]["code"], events[1]["enhanced"]) == (450, "4.2.1"), events[1]
    assert delivered["address"] == "127.0.0.2" and delivered["source"].startswith("127.")
    received = events[0]
    assert received["sender"] == "s@sender.test" and received["size"] > 0


def test_log_to_standard_output(t):
    """Without delivery_log the events go to standard output"""
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = t.daemon(start=False)
    daemon.configure(delivery_log=None)
    daemon.start()
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)
    wait_for("the event", lambda: '"delivered"' in daemon.errors())  # both go to one file here


def test_log_is_reopened(t):
    """USR1 opens the log by its name again, and no line is lost"""
    daemon, peer = t.simple()
    daemon.submit("s@sender.test", ["before@a.test"], letter())
    daemon.wait_log("delivered", recipient="before@a.test")
    os.rename(daemon.log_path, daemon.log_path + ".old")
    daemon.signal(signal.SIGUSR1)
    wait_for("the new file", lambda: os.path.exists(daemon.log_path))
    daemon.submit("s@sender.test", ["after@a.test"], letter())
    daemon.wait_log("delivered", recipient="after@a.test")
    with open(daemon.log_path) as file:
        assert "after@a.test" in file.read()
    assert daemon.log("delivered", recipient="before@a.test")


def test_hup(t):
    """HUP does not end the daemon"""
    daemon, peer = t.simple()
    daemon.signal(signal.SIGHUP)
    daemon.wait_errors("reloaded: ")
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)


def test_term_drains(t):
    """TERM: no new mail, deliveries under way are finished, then it ends with 0"""
    daemon, peer = t.simple(peer={"dot": Slow(2)}, drain="20s")
    idle = daemon.client()
    idle.ehlo()
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    wait_for("the message under way", lambda: peer.messages)
    daemon.signal(signal.SIGTERM)
    reply = idle.reply()
    assert reply.code == 421, reply
    assert daemon.wait() == 0
    assert peer.recipients() == ["r@a.test"]
    assert daemon.queued() == [], "delivered, and not noted"


def test_term_within_limit(t):
    """A delivery that takes longer than the drain limit is cut off, and stays queued"""
    daemon, peer = t.simple(peer={"dot": Slow(120)}, drain="2s")
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    wait_for("the message under way", lambda: peer.messages)
    started = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert 1 < time.monotonic() - started < 40  # far less than the delivery takes
    assert daemon.queued() == ["r@a.test"]


def test_second_term(t):
    """A second TERM stops at once, and loses nothing"""
    daemon, peer = t.simple(peer={"dot": Slow(120)}, drain="120s")
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    wait_for("the message under way", lambda: peer.messages)
    daemon.signal(signal.SIGTERM)
    daemon.wait_errors("stopping: ")  # before that, two are one
    assert daemon.process.poll() is None
    started = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert time.monotonic() - started < 30  # far less than it may drain, or than the peer takes
    assert "stopping now" in daemon.errors()
    assert daemon.queued() == ["r@a.test"]
    peer.set(dot=None)
    daemon.start()
    wait_for("a second copy", lambda: len(peer.accepted) >= 2)
    assert daemon.wait_log("possible-duplicate", recipient="r@a.test")


def test_term_under_load(t):
    """TERM in the middle of a load: every 250 is delivered or queued, clients get 421"""
    daemon, peer = t.simple()
    taken, ends = [], []

    def send(part):
        try:
            with daemon.client() as client:
                client.ehlo()
                for n in range(100000):
                    reply = client.submit("s@sender.test", [f"r{part}-{n}@a.test"], letter())
                    if reply.code == 250:
                        taken.append(f"r{part}-{n}@a.test")
        except (AssertionError, Closed, OSError) as error:
            ends.append(str(error))

    threads = [threading.Thread(target=send, args=(part,)) for part in range(5)]
    for thread in threads:
        thread.start()
    wait_for("a load", lambda: len(taken) > 200)
    daemon.stop()
    for thread in threads:
        thread.join()
    assert len(ends) == 5
    queued = daemon.queued()
    delivered = peer.recipients()
    both = set(queued) & set(delivered)
    assert not set(taken) - set(queued) - set(delivered)
    assert not both and len(delivered) == len(set(delivered)), "a duplicate after an orderly stop"


def test_second_start(t):
    """A second daemon on the same spool says so and ends; the first goes on"""
    daemon, peer = t.simple()
    text = open(daemon.config_path).read().replace(f':{daemon.port}"', f':{t.port()}"')
    path = os.path.join(t.folder, "second.conf")
    with open(path, "w") as file:
        file.write(text)
    done = subprocess.run([STAFETTED, "-c", path], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert daemon.spool in done.stderr and re.search(
        r"in use|lock|running|another", done.stderr
    ), done.stderr
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    peer.wait(1)


def test_port_taken(t):
    """A port that is taken is said by name, and the spool is left in order"""
    peer = t.peer("127.0.0.1", port=t.port())
    daemon = t.daemon(start=False)
    daemon.configure(listen=[f"127.0.0.1:{peer.port}"])
    daemon.start(ready=False)
    assert daemon.wait(20) != 0
    assert str(peer.port) in daemon.errors(), daemon.errors()


def test_usage(t):
    """Bad options are usage errors with exit status 64; --help and --version work"""
    for program, words in (
        (STAFETTED, ["--nonsense"]),
        (STAFETTED, ["-c"]),
        (STAFETTED, ["word"]),
        (STAFETTE, []),
        (STAFETTE, ["nonsense"]),
        (STAFETTE, ["queue", "--nonsense"]),
        (STAFETTE, ["show"]),
        (STAFETTE, ["queue", "--older", "yesterday"]),
        (STAFETTE, ["queue", "--count", "--summary"]),
        (STAFETTE, ["show", "--content", "--no-content", "00000000G063W"]),
        (STAFETTE, ["show", "../../etc/passwd"]),
        (STAFETTE, ["dkim-key", "--domain", "a..test", "--selector", "s", "/nonexistent/key"]),
        (STAFETTE, ["dkim-key", "--domain", "a.test", "--selector", "s s", "/nonexistent/key"]),
    ):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 64, f"{program} {words}: {done.returncode} {done.stderr}"
        hints = ("usage", "--help", "not both", "no message id", "not a domain", "give letters")
        assert any(hint in done.stderr.lower() for hint in hints), done.stderr
    for program in (STAFETTED, STAFETTE):
        for word in ("--help", "-h", "--version", "-V"):
            done = subprocess.run([program, word], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and done.stdout, f"{program} {word}"


def test_port_of_another_daemon(t):
    """A second daemon, with a spool of its own, gets no share of the first one's port"""
    first = t.daemon()
    second = t.daemon(start=False, name="second")
    second.configure(listen=[f"127.0.0.1:{first.port}"])
    second.start(ready=False)
    assert second.wait(20) == os.EX_OSERR
    lines = [line for line in second.errors().splitlines() if "cannot listen on" in line]
    assert len(lines) == 1 and str(first.port) in lines[0] and "ss -ltnp" in lines[0], lines
    second.configure(spool=first.spool, listen=["127.0.0.1:%d" % t.port()])
    second.start(ready=False)
    assert second.wait(20) == os.EX_CANTCREAT
    assert "another process has locked it" in second.errors()


def test_paths_that_are_none(t):
    """A file in the place of the spool, or of the log's folder: named, with the reason"""
    wrong = os.path.join(t.folder, "file")
    open(wrong, "w").close()
    for settings in (
        {"spool": wrong},
        {"spool": os.path.join(wrong, "spool")},
        {"delivery_log": os.path.join(wrong, "log")},
    ):
        daemon = t.daemon(start=False, **settings)
        daemon.start(ready=False)
        assert daemon.wait(20) == os.EX_CANTCREAT, daemon.errors()
        assert re.search(rf"error: .*{wrong}.*: Not a directory", daemon.errors()), daemon.errors()


def test_no_spool(t):
    """What is asked of a spool that is not there fails, says so, and makes nothing"""
    file = os.path.join(t.folder, "file")
    open(file, "w").close()
    for spool in (t.folder, file, "/nonexistent/spool"):
        for words in (["queue"], ["show", "0000000000000"], ["confirm-time"]):
            command = [STAFETTE, *words, "-S", spool]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == os.EX_NOINPUT, f"{command}: {done.returncode} {done.stderr}"
            assert f"there is no spool at {spool}" in done.stderr and not done.stdout
    assert not os.path.exists(os.path.join(t.folder, "time-confirmed"))


def test_configuration_by_environment(t):
    """Without -c and -S the tools read the configuration that the environment names"""
    daemon, _, ids = waiting(t, count=1)
    environment = {**os.environ, "STAFETTE_CONFIG": daemon.config_path}
    for words, said in (
        (["queue", "--count"], "1\n"),
        (["show", "--no-content", ids[0]], "History"),
        (["check-config"], f"{daemon.config_path}: good"),
        (["reload"], "reloaded"),
    ):
        done = subprocess.run(
            [STAFETTE, *words], env=environment, cwd="/", capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 and said in done.stdout, (words, done)


def at_terminal(daemon, *words):
    """What a command writes if standard output is a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen([STAFETTE, *words, "-c", daemon.config_path], stdout=its) as process:
        os.close(its)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other side has closed it
            pass
    os.close(ours)
    assert process.returncode == 0
    return shown.replace(b"\r\n", b"\n").decode()


def test_nothing_controls_a_terminal(t):
    """No control character, line end or turn of direction of others reaches a terminal or a log"""
    evil = "\x9b31m\u2028\u202ex"
    peer = t.peer(rcpt=f"450 4.2.0 no \x1b]0;title\x07{evil} end")
    t.dns({"a.test": peer.host})
    daemon = t.daemon(retry_first="1h")
    with daemon.client() as client:
        client.ehlo()
        client.expect(f"MAIL FROM:<{evil}@sender.test> SMTPUTF8", 250)
        client.expect(f"RCPT TO:<{evil}@a.test>", 250)
        reply = client.data(letter() + f"\x1b[2J{evil}\r\n".encode())
        identity = re.search(r"\b[0-9A-HJKMNP-TV-Z]{13}\b", reply.text).group()
    daemon.wait_log("deferred")
    bad = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
    outputs = [
        at_terminal(daemon, *words)
        for words in (["queue"], ["queue", "-j"], ["show", identity])
    ]
    with open(daemon.log_path, encoding="utf-8") as file:
        outputs.append(file.read())
    for text in outputs:
        assert "31m" in text and not bad.search(text), repr(bad.sub("#", text))
    assert daemon.queue()[0]["sender"] == f"{evil}@sender.test", "JSON says the same by escapes"
    raw = subprocess.run(
        [STAFETTE, "show", "--content", identity, "-c", daemon.config_path], capture_output=True
    )
    assert f"\x1b[2J{evil}\r\n".encode() in raw.stdout, "a file gets every octet"


def test_check_config(t):
    """check-config says file, line, what is wrong and what to do, and finds every error"""
    daemon = t.daemon(start=False)
    assert daemon.tool("check-config", "-c", daemon.config_path).returncode == 0
    good = open(daemon.config_path).read().count("\n")
    bad = [
        'colour = "red"',
        "workers = many",
        'listen = {"127.0.0.1:99999"}',
        'retry_base = "soon"',
        'trusted = {"127.0.0.0/77"}',
        'hostname = "no spaces allowed"',
        "port = -1",
        'route "x.test" { discard = "explode" }',
        'route "y.test" { hosts = {} ',
    ]
    for line in bad:
        path = os.path.join(t.folder, "bad.conf")
        with open(path, "w") as file:
            file.write(open(daemon.config_path).read() + line + "\n")
        done = daemon.tool("check-config", "-c", path, status=None)
        said = done.stdout + done.stderr
        assert done.returncode != 0, f"accepted: {line}"
        # libconfuse sees a missing brace only at the end of the file
        numbers = {str(good + 1), str(good + 2)}
        found = re.search(r"bad\.conf:(\d+)", said)
        assert found and found.group(1) in numbers, f"{line}: {said}"
        daemon_done = subprocess.run(
            [STAFETTED, "-c", path], capture_output=True, text=True, timeout=60
        )
        assert daemon_done.returncode not in (0, 64) and "bad.conf" in daemon_done.stderr
    missing = daemon.tool("check-config", "-c", "/nonexistent/stafette.conf", status=None)
    assert (
        missing.returncode != 0 and "/nonexistent/stafette.conf" in missing.stderr + missing.stdout
    )


def test_built_in_defaults(t):
    """Without a file: spool in ./spool for a user, port 2525 on loopback; the list finds it"""
    folder = os.path.join(t.folder, "home")
    os.makedirs(folder)
    for path in (folder, t.folder, os.path.dirname(t.folder)):
        os.chmod(path, 0o755)
    shutil.chown(folder, "nobody")
    with open(os.path.join(t.folder, "err"), "wb") as errors:
        daemon = subprocess.Popen(
            [STAFETTED],
            cwd=folder,
            **NOBODY,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:

        def said(words):
            with open(os.path.join(t.folder, "err")) as file:
                return words in file.read()

        wait_for("a word", lambda: said("ready") or daemon.poll() is not None)
        assert said("127.0.0.1:2525")
        if said("ready"):  # else something else has the port, and it said so
            with Client(2525) as client:
                client.ehlo()
                client.submit("", ["r@nowhere.invalid"], letter())
            done = subprocess.run(
                [STAFETTE, "queue", "--count"],
                cwd=folder,
                **NOBODY,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        assert os.path.isdir(os.path.join(folder, "spool"))
    finally:
        daemon.terminate()
        daemon.wait(40)


def test_list_beside_load(t):
    """Listing while mail flows shows whole entries only, again and again"""
    daemon, peer = t.simple(peer={"rcpt": lambda s, a: "450 4.2.0 x" if hash(a) % 2 else None})
    stop = threading.Event()

    def send():
        with daemon.client() as client:
            client.ehlo()
            n = 0
            while not stop.is_set():
                client.submit("s@sender.test", [f"r{n}@a.test"], letter())
                n += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for _ in range(20):
            for entry in daemon.queue():
                assert entry["recipients"] and entry["sender"] == "s@sender.test", entry
            daemon.queue_text()
            daemon.queue_text("--summary")
            daemon.count()
    finally:
        stop.set()
        thread.join()


def test_spool_is_private(t):
    """The spool and its files are the owner's alone (index: also the group's); others may put mail into drop/"""
    daemon, _, _ = waiting(t)
    drop = os.path.join(daemon.spool, "drop")
    open_to_others = {daemon.spool: 0o001, drop: 0o003}
    for folder, _, files in os.walk(daemon.spool):
        for path in [folder] + [os.path.join(folder, name) for name in files]:
            try:
                mode = os.stat(path).st_mode
            except FileNotFoundError:  # it has gone to another folder, or for good
                continue
            assert mode & 0o007 == open_to_others.get(path, 0), f"{path}: {oct(mode)}"


def test_log_cannot_be_opened(t):
    """A delivery log that cannot be opened ends the start with its name and the reason"""
    daemon = t.daemon(start=False)
    daemon.configure(delivery_log="/nonexistent/folder/delivery.log")
    daemon.start(ready=False)
    assert daemon.wait(20) > 0
    assert "/nonexistent/folder/delivery.log" in daemon.errors(), daemon.errors()


def test_foreign_spool(t):
    """The list of a spool that one may not read, or that is none, is an error with words"""
    daemon, _, _ = waiting(t)
    for path in (t.folder, os.path.dirname(t.folder), daemon.folder):
        os.chmod(path, 0o755)
    done = subprocess.run(
        [STAFETTE, "queue", "-c", daemon.config_path],
        capture_output=True,
        text=True,
        **NOBODY,
        cwd="/",
    )
    assert done.returncode > 0 and done.stderr and not done.stdout, done
    daemon.configure(spool=os.path.join(t.folder, "none"))
    done = daemon.tool("queue", "-c", daemon.config_path, status=None)
    assert done.returncode > 0 and "none" in done.stderr, done
