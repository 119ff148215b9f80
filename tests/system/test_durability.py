"""The promise under crashes, full and damaged disks, restarts with other settings, big mail."""

import collections
import hashlib
import os
import random
import re
import subprocess
import threading
import time

from harness import CRASH_ROUNDS, alone, limit, sanitized, wait_for
from ledger import Ledger
from load import Load
from storm import LATER, Storm
from wire import letter

LONG = {"retry_first": "1h", "retry_base": "1h", "retry_cap": "2h"}


def crash_often(t, rounds, **options):
    """Load, and kill -9 at any moment, in the middle of starting too. However slow the machine is,
    there is mail in each round."""
    storm = Storm(t, **options)
    promised = storm.ledger.promised
    for n in range(rounds):
        before = len(promised)
        storm.blow()
        wait_for("some mail", lambda: len(promised) > before + 30)
        storm.kill_and_start(n)
    return storm


@alone
@limit(120 + 8 * CRASH_ROUNDS)
def test_kill_under_load(t):
    """kill -9 again and again under load: every 250 is delivered, bounced or queued, and only
    reported recipients get a second copy"""
    crash_often(t, CRASH_ROUNDS).end()


@alone
@limit(120 + 8 * CRASH_ROUNDS)
def test_kill_with_small_files(t):
    """The same while files of 1 MiB are recycled, cleaned and evacuated all the time"""
    storm = crash_often(
        t,
        CRASH_ROUNDS,
        sizes=(0, 3000, 40000),
        pinned=25,
        workers=3,
        segment_bytes="1M",
        journal_bytes="1M",
        evacuate_after="1s",
    )
    storm.end()
    segments = os.path.join(storm.daemon.spool, "seg")
    wait_for("segments to be reclaimed", lambda: len(os.listdir(segments)) < 40)


@alone
@limit(120 + 8 * CRASH_ROUNDS)
def test_kill_with_big_messages(t):
    """The same with messages that are spilled to files of their own; none of them is left over"""
    storm = crash_often(t, CRASH_ROUNDS // 2 + 1, sizes=(0, 200000, 1500000), threads=2)
    storm.end()
    big = os.path.join(storm.daemon.spool, "big")
    wait_for("big/ to be empty", lambda: not os.listdir(big), 10)


@limit(90)
def test_kill_at_once(t):
    """A message is still there when the daemon is killed right after its 250"""
    daemon, peer = t.simple(peer={"rcpt": LATER}, **LONG)
    for n in range(8):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
        daemon.kill()
        daemon.start()
    peer.set(rcpt=None)
    assert sorted(daemon.queued()) == [f"r{n}@a.test" for n in range(8)] or peer.accepted
    daemon.stop()
    daemon.configure(retry_first="1s", retry_base="1s", retry_cap="2s")
    daemon.start()
    stored = set(daemon.queued()) | set(peer.recipients())
    assert stored == {f"r{n}@a.test" for n in range(8)}, stored


def test_partial_outcomes_survive(t):
    """After a crash only the recipients without an outcome are tried again"""
    fates = {"later1": LATER, "later2": LATER}
    daemon, peer = t.simple(peer={"rcpt": lambda s, a: fates.get(a.split("@")[0])})
    daemon.submit(
        "s@sender.test", [f"{n}@a.test" for n in ("a", "later1", "b", "later2")], letter()
    )
    peer.wait(1)
    daemon.wait_queued("later1@a.test", "later2@a.test")
    daemon.outcomes_written()
    daemon.kill()
    fates.clear()
    daemon.start()
    daemon.wait_empty()
    assert sorted(peer.recipients()) == ["a@a.test", "b@a.test", "later1@a.test", "later2@a.test"]


def test_attempts_survive(t):
    """Attempts, due time, expiry and the last reply outlive a stop and a kill"""
    daemon, peer = t.simple(peer={"rcpt": "451 4.7.1 grey, come back"}, **LONG)
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    wait_for("attempts", lambda: all(e["attempts"] == 1 for e in daemon.queue()))
    before = sorted(daemon.queue(), key=lambda e: e["queue_id"])
    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        after = sorted(daemon.queue(), key=lambda e: e["queue_id"])
        for old, new in zip(before, after):
            for key in (
                "queue_id",
                "attempts",
                "next_attempt",
                "expires",
                "arrival_time",
                "message_size",
            ):
                assert old[key] == new[key], f"{key}: {old[key]} became {new[key]}"
            assert "come back" in str(new)
        assert len(after) == 20
    assert len(peer.attempts) == 20


@limit(90)
def test_other_numbers_of_workers(t):
    """One worker after four, four after one, with mail in the queue: nothing lost or doubled"""
    daemon, peer = t.simple(peer={"rcpt": LATER}, workers=4)
    ledger = Ledger()
    count = 0
    for workers in (1, 4, 3):
        for part in range(6):
            with daemon.client() as client:
                client.ehlo()
                for n in range(30):
                    recipient = f"r{count}@a.test"
                    client.submit("s@sender.test", [recipient], letter())
                    ledger.promise(recipient)
                    count += 1
        assert len(daemon.queued()) == count
        if workers == 4:
            daemon.kill()
        else:
            daemon.stop()
        daemon.configure(workers=workers)
        daemon.start()
        there = len(daemon.queued())
        assert there == count, f"{there} of {count} with {workers} workers"
    peer.set(rcpt=None)
    wait_for("everything", lambda: len(set(peer.recipients())) == count, 30)
    daemon.wait_empty()
    ledger.check(daemon, [peer])


# ── damage ──


def files_of(daemon, folder):
    path = os.path.join(daemon.spool, folder)
    return sorted(os.path.join(path, name) for name in os.listdir(path))


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x55]))


def find_in(paths, text):
    """(path, offset) of `text` in the spool's files."""
    for path in paths:
        with open(path, "rb") as file:
            at = file.read().find(text)
        if at >= 0:
            return path, at
    raise AssertionError(f"{text!r} is in none of {paths}")


def digested(n):
    """A message that carries the digest of its body."""
    body = "".join(random.Random(n).choices("abcdefghij\t ", k=900))
    return letter(f"m{n}-{hashlib.sha256(body.encode()).hexdigest()[:32]}", body + "\r\n")


def sound(message):
    body = message.body.split(b"\r\n\r\n", 1)[1].rstrip(b"\r\n")
    return message.subject.split("-")[1] == hashlib.sha256(body).hexdigest()[:32]


def full_spool(t, count=60, **settings):
    daemon, peer = t.simple(peer={"rcpt": LATER}, **{**LONG, **settings})
    with daemon.client() as client:
        client.ehlo()
        for n in range(count):
            client.submit("s@sender.test", [f"r{n}@a.test"], digested(n))
    wait_for("attempts", lambda: all(e["attempts"] for e in daemon.queue()))
    daemon.stop()
    daemon.configure(retry_first="1s", retry_base="1s", retry_cap="2s")
    peer.set(rcpt=None)
    return daemon, peer


def test_damaged_body(t):
    """A flipped byte in a body: that message is held and shown, never sent; others go"""
    daemon, peer = full_spool(t)
    daemon.configure(expire="5d")
    path, at = find_in(files_of(daemon, "seg"), digested(17)[-400:])
    flip(path, at + 100)
    daemon.start()
    # overdue in an hour: what was waiting keeps its due time, so it is moved into the past
    assert "r17@a.test" in daemon.queued() and len(daemon.queued()) == 60
    entries = {e["recipients"][0]["address"]: e for e in daemon.queue()}
    assert not any(not sound(m) for m in peer.accepted)
    assert entries["r16@a.test"]["queue_name"] == "deferred"


@limit(90)
def test_damaged_body_is_never_sent(t):
    """With due times near, sound messages arrive and the damaged one stays, with a word in the log"""
    daemon, peer = full_spool(t, retry_first="8s", retry_base="8s", retry_cap="9s")
    path, at = find_in(files_of(daemon, "seg"), digested(17)[-400:])
    flip(path, at + 100)
    daemon.start()
    wait_for("59 sound messages", lambda: len(set(peer.recipients())) >= 59, 40)
    daemon.wait_queued("r17@a.test")
    wait_for(
        "a word of it",
        lambda: re.search(r"damage|CRC|checksum", daemon.errors() + str(daemon.log())),
    )
    time.sleep(2)
    assert "r17@a.test" not in peer.recipients() and all(sound(m) for m in peer.accepted)
    assert daemon.queued() == ["r17@a.test"], daemon.queued()


@limit(90)
def test_body_damaged_meanwhile(t):
    """A byte flipped while it waits for its next try: it is held, and the operator is told"""
    daemon, peer = full_spool(t, retry_first="8s", retry_base="8s", retry_cap="9s")
    path, at = find_in(files_of(daemon, "seg"), digested(17)[-400:])
    daemon.start()
    flip(path, at + 100)
    daemon.wait_errors(r"is damaged on disk: it is held until it expires")
    wait_for("59 sound messages", lambda: len(set(peer.recipients())) >= 59, 40)
    daemon.wait_queued("r17@a.test")
    assert "r17@a.test" not in peer.recipients() and all(sound(m) for m in peer.accepted)


@limit(60)
def test_big_body_damaged_on_its_way(t):
    """A flipped byte in a big body, found while it is sent: cut off and held, the operator is told"""
    daemon, peer = t.simple(peer={"rcpt": LATER}, retry_first="2s", retry_base="2s", retry_cap="2s")
    daemon.submit("s@sender.test", ["r@a.test"], letter("big", size=3 << 20))
    flip(files_of(daemon, "big")[0], 2 << 20)
    peer.set(rcpt=None)
    daemon.wait_errors(r"is damaged on disk: it is held until it expires")
    assert not peer.accepted and daemon.queued() == ["r@a.test"]


@limit(90)
def test_damaged_envelope(t):
    """A flipped byte in an envelope: that message is reported, the others are kept"""
    daemon, peer = full_spool(t, retry_first="8s", retry_base="8s", retry_cap="9s")
    path, at = find_in(files_of(daemon, "seg"), b"r23@a.test")
    flip(path, at + 1)
    daemon.start()
    wait_for("59 sound messages", lambda: len(set(peer.recipients())) >= 59, 40)
    assert all(sound(m) for m in peer.accepted)
    got = set(peer.recipients())
    assert got <= {f"r{n}@a.test" for n in range(60)}, got
    daemon.wait_errors(r"damage|quarantine|CRC|checksum")


@limit(90)
def test_damaged_journal(t):
    """A flipped byte in a journal: nothing is lost; what is uncertain is held, not sent twice"""
    daemon, peer = full_spool(t, retry_first="8s", retry_base="8s", retry_cap="9s")
    damaged = 0
    for path in files_of(daemon, "jnl"):
        with open(path, "rb") as file:
            data = file.read()
        used = len(data.rstrip(b"\0"))
        if used > 4096 + 256:
            flip(path, 4096 + 200)
            damaged += 1
    assert damaged
    daemon.start()
    daemon.wait_errors(r"damage|CRC|checksum|journal")
    time.sleep(12)  # all that is to be sent has had its turn
    known = set(daemon.queued()) | set(peer.recipients())
    assert known == {f"r{n}@a.test" for n in range(60)}, sorted(
        {f"r{n}@a.test" for n in range(60)} - known
    )
    assert len(peer.recipients()) == len(set(peer.recipients()))
    assert all(sound(m) for m in peer.accepted)


def test_torn_tail(t):
    """A torn last write after a kill is cut off without a complaint about lost mail"""
    daemon, peer = t.simple(peer={"rcpt": LATER}, **LONG)
    with daemon.client() as client:
        client.ehlo()
        for n in range(30):
            client.submit("s@sender.test", [f"r{n}@a.test"], digested(n))
    wait_for("attempts", lambda: all(e["attempts"] for e in daemon.queue()))
    daemon.kill()
    for path in files_of(daemon, "seg") + files_of(daemon, "jnl"):
        with open(path, "rb") as file:
            data = file.read()
        end = len(data.rstrip(b"\0"))
        if end > 4096:
            end = (end + 4095) // 4096 * 4096
            if end + 4096 <= len(data):
                with open(path, "r+b") as file:  # as if a write had begun: half a chunk header
                    file.seek(end)
                    file.write(b"CHNK" + os.urandom(500))
    daemon.start()
    assert len(daemon.queued()) == 30
    daemon.submit("s@sender.test", ["after@a.test"], letter())
    assert len(daemon.queued()) == 31


def test_torn_log(t):
    """A line of the delivery log that kill -9 has cut short stays alone: the next is whole"""
    daemon, peer = t.simple(start=False)
    with open(daemon.log_path, "w") as file:
        file.write('{"time":"2026-08-01T10:0')
    daemon.kills = 1
    daemon.start()
    daemon.submit("s@sender.test", ["r@a.test"], letter())
    daemon.wait_log("delivered")
    assert len(daemon.log("received")) == 1


def test_damaged_superblock(t):
    """One bad copy of the superblock is mended; with both bad the daemon refuses, and says so"""
    daemon, _ = full_spool(t, count=5)
    path = os.path.join(daemon.spool, "super")
    flip(path, 40)
    daemon.start()
    assert len(daemon.queued()) == 5
    daemon.stop()
    flip(path, 40)
    flip(path, 4096 + 40)
    before = {p: os.path.getsize(p) for p in files_of(daemon, "seg") + files_of(daemon, "jnl")}
    daemon.start(ready=False)
    assert daemon.wait(20) not in (0, 64)
    assert "super" in daemon.errors(), daemon.errors()
    assert before == {
        p: os.path.getsize(p) for p in files_of(daemon, "seg") + files_of(daemon, "jnl")
    }


@limit(120)
def test_random_damage(t):
    """Random damage anywhere: the daemon starts or refuses with words; what it sends is sound"""
    daemon, peer = full_spool(t, retry_first="2s", retry_base="2s", retry_cap="3s")
    subprocess.run(["cp", "-a", daemon.spool, daemon.spool + ".good"], check=True)
    for seed in range(5):
        dice = random.Random(seed)
        subprocess.run(["rm", "-rf", daemon.spool], check=True)
        subprocess.run(["cp", "-a", daemon.spool + ".good", daemon.spool], check=True)
        for _ in range(6):
            path = dice.choice(files_of(daemon, "seg") + files_of(daemon, "jnl"))
            with open(path, "rb") as file:
                used = max(1, len(file.read().rstrip(b"\0")))
            flip(path, dice.randrange(used))
        daemon.start(ready=False)

        def decided():
            if daemon.process.poll() is not None:
                return "refused"
            try:
                return daemon.ready() and "started"
            except AssertionError:  # it has ended just now
                return None

        result = wait_for("a start or a refusal", decided, 20)
        if result == "refused":
            assert (
                daemon.process.returncode > 0
            ), f"seed {seed}: died of {daemon.process.returncode}"
            assert daemon.errors().strip(), "refused without a word"
            continue
        time.sleep(3)
        assert daemon.process.poll() is None, f"seed {seed}: ended with {daemon.process.returncode}"
        daemon.queue()
        daemon.stop()
    assert all(sound(m) for m in peer.accepted)


# ── the disk ──


class Mount:
    """A small ext4 in a file."""

    def __init__(self, folder, mebibytes):
        self.image = os.path.join(folder, "image")
        self.path = os.path.join(folder, "mount")
        os.makedirs(self.path)
        with open(self.image, "wb") as file:
            file.truncate(mebibytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        done = subprocess.run(
            ["mount", "-o", "loop", self.image, self.path], capture_output=True, text=True
        )
        assert done.returncode == 0, f"this test needs to mount: {done.stderr}"

    def end(self):
        for _ in range(20):
            if subprocess.run(["umount", self.path], capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        subprocess.run(["umount", "-l", self.path])


@alone
@limit(120)
def test_disk_full(t):
    """A full disk: new mail gets 452 4.3.1, queued mail goes on, and it recovers by itself"""
    mount = t.keep(Mount(t.folder, 64), Mount.end)
    peer = t.peer(rcpt=LATER)
    t.dns({"a.test": peer.host})
    daemon = t.daemon(spool=os.path.join(mount.path, "spool"))
    ledger = Ledger()
    codes = collections.Counter()
    refused = None
    for n in range(400):
        with daemon.client() as client:
            client.ehlo()
            mail = client.command("MAIL FROM:<s@sender.test>")
            if mail.code == 250:
                client.expect(f"RCPT TO:<r{n}@a.test>", 250)
                mail = client.data(letter(size=300000))
                if mail.code == 250:
                    ledger.promise(f"r{n}@a.test")
            codes[mail.code] += 1
            if mail.code != 250:
                refused = mail
                if codes[mail.code] > 5:
                    break
    assert set(codes) == {250, 452} and refused.enhanced == "4.3.1", (codes, refused)
    with open(os.path.join(mount.path, "ballast"), "wb") as file:  # and someone takes the rest
        try:
            for _ in range(64):
                file.write(b"x" * (1 << 20))
                file.flush()
        except OSError:
            pass
    with daemon.client() as client:
        client.ehlo()
        reply = client.command("MAIL FROM:<s@sender.test>")
        if reply.code == 250:
            client.expect("RCPT TO:<never@a.test>", 250)
            reply = client.data(letter(size=300000))
            if reply.code == 250:
                ledger.promise("never@a.test")
        assert reply.code in (250, 452), reply
    assert len(daemon.queued()) == len(ledger.promised)
    peer.set(rcpt=None)
    wait_for("the queued mail", lambda: len(peer.recipients()) >= len(ledger.promised), 40)
    daemon.wait_empty()
    ledger.check(daemon, [peer])
    os.unlink(os.path.join(mount.path, "ballast"))

    def taken():
        with daemon.client() as client:
            client.ehlo()
            if client.command("MAIL FROM:<s@sender.test>").code != 250:
                return False
            client.expect("RCPT TO:<again@a.test>", 250)
            return client.data(letter()).code == 250

    wait_for("mail to be taken again", taken, 20, every=0.5)
    wait_for("its delivery", lambda: "again@a.test" in peer.recipients())
    daemon.stop()


@alone
@limit(90)
def test_disk_full_at_the_first_start(t):
    """A new spool without room for its first file: one line says so, and it starts when there is"""
    mount = t.keep(Mount(t.folder, 64), Mount.end)
    ballast = os.path.join(mount.path, "ballast")
    with open(ballast, "wb") as file:
        space = os.statvfs(mount.path)
        os.posix_fallocate(file.fileno(), 0, (space.f_bavail - 32) * space.f_bsize)
    daemon = t.daemon(start=False, spool=os.path.join(mount.path, "spool"))
    os.mkdir(daemon.spool)
    daemon.start(ready=False)
    daemon.wait_errors("not ready yet: the spool .* is its disk full")
    assert daemon.process.poll() is None
    os.unlink(ballast)
    wait_for("the daemon to be ready", daemon.ready)
    daemon.stop()


@alone
@limit(90)
def test_disk_full_and_killed(t):
    """kill -9 with the disk full: it starts again and delivers what it had promised"""
    mount = t.keep(Mount(t.folder, 64), Mount.end)
    peer = t.peer(rcpt=LATER)
    t.dns({"a.test": peer.host})
    daemon = t.daemon(spool=os.path.join(mount.path, "spool"))
    ledger = Ledger()
    load = Load(daemon, ledger, lambda part, n: [f"r{part}-{n}@a.test"], threads=2, sizes=(200000,))
    wait_for("452", lambda: load.replies.get(452, 0), 30)
    time.sleep(1)
    with open(os.path.join(mount.path, "ballast"), "wb") as file:
        try:
            for _ in range(64):
                file.write(b"x" * (1 << 20))
                file.flush()
        except OSError:
            pass
    time.sleep(1)
    load.stop()
    daemon.kill()
    peer.set(rcpt=None)
    daemon.start()
    wait_for("the promised", lambda: ledger.promised <= set(peer.recipients()), 40)
    daemon.wait_empty()


# ── big mail ──


class Digest:
    """A peer's memory of big messages: what each recipient got, as a digest."""

    def __init__(self, size):
        self.size = size
        self.got = {}

    def __call__(self, session, message):
        self.got[message.recipients[0]] = hashlib.sha256(message.body[-self.size :]).digest()
        return None


@alone
@limit(120)
def test_big_messages(t):
    """A 50 MiB message arrives whole, by DATA and by BDAT, at a DATA and at a BDAT peer"""
    size = 50 << 20
    message = letter("big", size=size)
    digest = Digest(len(message))
    wanted = hashlib.sha256(message).digest()
    plain = t.peer("127.0.0.2", dot=digest, keep_bodies=False, read_bytes=1 << 20)
    chunked = t.peer(
        "127.0.0.3",
        dot=digest,
        keep_bodies=False,
        read_bytes=1 << 20,
        extensions=("PIPELINING", "CHUNKING", "8BITMIME"),
    )
    t.dns({"plain.test": plain.host, "chunked.test": chunked.host})
    daemon = t.daemon(message_bytes_max="60M")
    for way in ("data", "bdat"):
        with daemon.client(timeout=60) as client:
            client.ehlo()
            for recipient in (f"{way}@plain.test", f"{way}@chunked.test"):
                client.envelope("s@sender.test", [recipient])
                if way == "data":
                    assert client.data(message).code == 250
                else:
                    client.send(b"BDAT %d LAST\r\n" % len(message))
                    client.send(message)
                    assert client.reply().code == 250
    wait_for("four copies", lambda: len(digest.got) == 4, 60)
    assert all(got == wanted for got in digest.got.values()), digest.got.keys()
    daemon.wait_empty()
    wait_for("big/ to be empty", lambda: not os.listdir(os.path.join(daemon.spool, "big")), 10)


@alone
@limit(180)
def test_many_big_messages(t):
    """20 sessions sending 50 MiB each at once cost little memory, and all arrive whole"""
    size, count = 50 << 20, 20
    message = letter("big", size=size)
    wanted = hashlib.sha256(message).digest()
    digest = Digest(len(message))
    peer = t.peer(dot=digest, keep_bodies=False, read_bytes=1 << 20)
    t.dns({"a.test": peer.host})
    daemon = t.daemon(message_bytes_max="60M", connections_max=2)
    gate = threading.Barrier(count)
    codes = []

    def send(n):
        with daemon.client(timeout=120) as client:
            client.ehlo()
            client.envelope("s@sender.test", [f"r{n}@a.test"])
            client.expect("DATA", 354)
            client.send(message[:300000])
            gate.wait()
            for at in range(300000, len(message), 1 << 20):
                client.send(message[at : at + (1 << 20)])
            codes.append(client.command(b".\r\n").code)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [250] * count, codes
    wait_for("all", lambda: len(digest.got) == count, 100)
    assert all(got == wanted for got in digest.got.values())
    peak = daemon.status("VmHWM") / 1024
    print(f"peak memory {peak:.0f} MiB")
    assert peak < (1000 if sanitized() else 400), f"{peak:.0f} MiB"
    daemon.wait_empty()


@alone
@limit(90)
def test_500_sessions_in_big_messages(t):
    """500 sessions in the middle of big messages: their bytes are on the disk, not in memory"""
    daemon, peer = t.simple()
    piece = letter(size=2 << 20)
    clients = []
    for n in range(500):
        client = daemon.client()
        client.send(b"EHLO c.test\r\nMAIL FROM:<s@sender.test>\r\nRCPT TO:<r@a.test>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        clients.append(client)
    for client in clients:
        client.send(piece)
    time.sleep(1)
    peak = daemon.status("VmHWM") / 1024
    print(f"peak memory {peak:.0f} MiB for {len(clients) * len(piece) >> 20} MiB on their way")
    assert peak < (1000 if sanitized() else 400), f"{peak:.0f} MiB"
    daemon.submit("s@sender.test", ["other@a.test"], letter())
    peer.wait(1)
    for client in clients:
        client.close()
    big = os.path.join(daemon.spool, "big")
    wait_for("big/ to be empty", lambda: not os.listdir(big), 20)
    daemon.wait_empty()
    assert [m.recipients for m in peer.accepted] == [["other@a.test"]]


@limit(60)
def test_big_message_cut_off(t):
    """A client that goes away in the middle of a big message leaves nothing behind"""
    daemon, peer = t.simple()
    for _ in range(5):
        with daemon.client() as client:
            client.ehlo()
            client.envelope("s@sender.test", ["r@a.test"])
            client.expect("DATA", 354)
            client.send(letter("cut", size=5 << 20))
    daemon.submit("s@sender.test", ["after@a.test"], letter())
    peer.wait(1)
    wait_for("big/ to be empty", lambda: not os.listdir(os.path.join(daemon.spool, "big")), 10)
    daemon.wait_empty()
    assert [m.recipients for m in peer.accepted] == [["after@a.test"]]


@limit(60)
def test_big_message_survives(t):
    """A big message outlives kill -9, and its file goes when it is delivered"""
    message = letter("big", size=3 << 20)
    daemon, peer = t.simple(peer={"rcpt": LATER})
    daemon.submit("s@sender.test", ["r@a.test"], message)
    daemon.kill()
    peer.set(rcpt=None)
    daemon.start()
    assert peer.wait(1)[0].body.endswith(message)
    daemon.wait_empty()
    wait_for("big/ to be empty", lambda: not os.listdir(os.path.join(daemon.spool, "big")), 10)
