"""A message of which nobody knows whether it is on the disk: its client hears nothing (README.md of
queue/, R8), not a 250 and not a refusal, and what it sends again is taken."""

import os

from harness import alone, limit, wait_for
from powercut import Disk, bytes_of
from storm import LATER
from wire import letter, stuff

NO_REPLY = "Its client gets no reply"
ADDRESS = "doubted@a.test"


def at_rest(t):
    """A daemon that has delivered a message, and whose journal has nothing more to write."""
    disk = t.keep(Disk(t.folder), Disk.end)
    peer = t.peer()
    t.dns({"a.test": peer.host})
    daemon = t.daemon(spool=os.path.join(disk.path, "spool"), workers=1)
    daemon.submit("s@sender.test", ["first@a.test"], letter())
    daemon.wait_empty()
    peer.set(rcpt=LATER)
    idle = [disk.counts()[0]]

    def rests():
        idle.append(disk.counts()[0])
        return len(idle) > 30 and idle[-30] == idle[-1]

    wait_for("the disk to rest", rests, 20, 0.1)
    return disk, peer, daemon


def files_in(daemon, name):
    folder = os.path.join(daemon.spool, name)
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def said_after_the_dot(daemon, fail):
    """All that a client hears from the final dot on, if `fail` is done to the disk before it."""
    said = b""
    with daemon.client() as client:
        client.ehlo()
        assert client.envelope("s@sender.test", [ADDRESS])[0].code == 250
        client.expect("DATA", 354)
        fail()
        client.send(stuff(letter("in-doubt")) + b".\r\n")
        try:
            while data := client.socket.recv(65536):
                said += data
        except ConnectionResetError:
            pass
    return said


def doubted(disk, daemon, fail):
    """The client hears nothing, and the daemon gives up; then the disk is mended, and it starts."""
    said = said_after_the_dot(daemon, fail)
    assert said == b"", said
    assert daemon.wait(20) == 74, daemon.errors()
    assert daemon.errors().count(NO_REPLY) == 1, daemon.errors()
    assert not [e for e in daemon.log("received") if e["recipient"] == ADDRESS]
    disk.unmount()
    disk.tell("mend")
    assert disk.mount()
    daemon.start()


def repeat_arrives(daemon, peer, copies):
    """What the client sends again is taken, and goes beside what was found, if that was."""
    reply = daemon.submit("s@sender.test", [ADDRESS], letter("in-doubt"))
    assert reply.code == 250, reply
    assert daemon.queued() == [ADDRESS] * copies
    peer.set(rcpt=None)
    daemon.wait_empty(40)
    assert peer.recipients() == ["first@a.test"] + [ADDRESS] * copies
    assert not daemon.log("bounced")


@alone
@limit(60)
def test_nothing_is_written(t):
    """No write and no flush succeeds: no reply; the message is not there, and the repeat goes"""
    disk, peer, daemon = at_rest(t)
    doubted(disk, daemon, lambda: disk.tell("fail writes flushes"))
    assert daemon.queued() == []
    repeat_arrives(daemon, peer, copies=1)


@alone
@limit(60)
def test_written_and_not_flushed(t):
    """All of it is written, only the flush fails, and nothing says that it is void: no reply; a
    start finds the message, once, and it is delivered beside the repeat"""
    disk, peer, daemon = at_rest(t)
    others = files_in(daemon, "seg")[1:]  # whose header would name the end of the one before
    assert others, "no file lies ready"
    others += files_in(daemon, "jnl")  # whose MARK would pass it

    def fail():
        for path in others:
            for first, count in bytes_of(path):
                disk.tell(f"bad {first} {count}")
        disk.tell("fail flushes")

    doubted(disk, daemon, fail)
    assert daemon.queued() == [ADDRESS]
    repeat_arrives(daemon, peer, copies=2)
