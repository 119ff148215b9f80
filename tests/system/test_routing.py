"""Where mail goes: MX records of every kind from a real name server, and the routing table."""

import time

from harness import wait_for
from peer import EXTENSIONS, Slow
from wire import letter


def failed_with(t, daemon, sender, recipient, status):
    """`recipient` bounces with this enhanced code, in the log and in the report."""
    daemon.submit("s@sender.test", [recipient], letter("to fail"))
    event = daemon.wait_log("bounced", recipient=recipient)[0]
    report = wait_for(
        "the report",
        lambda: [m for m in sender.accepted if recipient.encode() in m.body],
    )[0]
    assert f"Status: {status}".encode() in report.body, (status, report.body.decode(), event)


def test_definite_failures(t):
    """NXDOMAIN, null MX, no address, and MX that is ourselves fail at once with their codes"""
    sender = t.peer("127.0.0.2")
    t.dns(
        [
            "sender.test. MX 10 mx.sender.test.",
            "mx.sender.test. A 127.0.0.2",
            "null.test. MX 0 .",
            "noaddress.test. MX 10 empty.test.",
            "empty.test. TXT none",
            "ourselves.test. MX 10 mx.stafette.test.",
            "mx.stafette.test. A 127.0.0.1",
            "backup.test. MX 5 mx.stafette.test.",
            "backup.test. MX 10 mx.sender.test.",
        ]
    )
    daemon = t.daemon()
    for domain, status in (
        ("nowhere.test", "5.1.2"),
        ("null.test", "5.1.10"),
        ("noaddress.test", "5.4.4"),
        ("ourselves.test", "5.4.6"),
        ("backup.test", "5.4.6"),
    ):
        failed_with(t, daemon, sender, f"r@{domain}", status)
    assert not [
        m for m in sender.accepted if m.sender != ""
    ], "mail went to a worse MX than ourselves"


def test_we_are_the_backup(t):
    """As a backup MX we deliver to the better one, and never to ourselves or worse"""
    best = t.peer("127.0.0.2")
    worse = t.peer("127.0.0.3")
    t.dns(
        [
            "ours.test. MX 10 best.test.",
            "best.test. A 127.0.0.2",
            "ours.test. MX 20 mx.stafette.test.",
            "mx.stafette.test. A 127.0.0.1",
            "ours.test. MX 30 worse.test.",
            "worse.test. A 127.0.0.3",
        ]
    )
    daemon = t.daemon()
    daemon.submit("s@sender.test", ["r@ours.test"], letter("one"))
    best.wait(1)
    best.stop()
    daemon.submit("s@sender.test", ["r@ours.test"], letter("two"))
    wait_for(
        "a deferral", lambda: any(e["attempts"] for e in daemon.queue()) or daemon.log("deferred")
    )
    assert not worse.sessions


def test_implicit_mx_cname_literal(t):
    """No MX: the address itself; CNAMEs are followed; address literals need no DNS"""
    peer = t.peer("127.0.0.2")
    t.dns(
        [
            "plain.test. A 127.0.0.2",
            "alias.test. CNAME real.test.",
            "real.test. MX 10 mx.real.test.",
            "mx.real.test. CNAME host.test.",
            "host.test. A 127.0.0.2",
        ]
    )
    daemon = t.daemon()
    for recipient in ("r@plain.test", "r@alias.test", "r@[127.0.0.2]"):
        daemon.submit("s@sender.test", [recipient], letter())
        wait_for(recipient, lambda: recipient in peer.recipients())


def test_failover(t):
    """A dead, refusing or temporarily failing better MX is passed over for the next, at once"""
    live = t.peer("127.0.0.2")
    t.peer("127.0.0.3", connect="421 4.3.2 no")
    t.peer("127.0.0.4", connect="554 5.3.2 no")
    t.peer("127.0.0.5", ehlo="421 4.3.2 no")
    t.peer("127.0.0.6", mail="451 4.3.0 no")
    t.peer("127.0.0.8", connect="521 5.3.2 no mail here")
    worlds = {"dead": 9, "busy": 3, "refusing": 4, "closing": 5, "later": 6, "never": 8}
    records = ["live.test. A 127.0.0.2"]
    for name, last in worlds.items():
        records += [
            f"{name}.test. MX 5 mx.{name}.test.",
            f"mx.{name}.test. A 127.0.0.{last}",
            f"{name}.test. MX 10 live.test.",
        ]
    t.dns(records)
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    for name in worlds:
        daemon.submit("s@sender.test", [f"r@{name}.test"], letter())
    daemon.wait_empty()  # nothing is tried a second time within the hour
    assert set(live.recipients()) == {f"r@{n}.test" for n in worlds}


def test_hosts_that_take_no_mail(t):
    """521 from every host of a domain fails its mail with 5.3.2, however much waits; from some it does not"""
    t.peer("127.0.0.8", connect="521 5.3.2 no mail here")
    t.peer("127.0.0.7", connect="521 no mail here either")
    sender = t.peer("127.0.0.2")
    t.dns(
        [
            "sender.test. A 127.0.0.2",
            "never.test. MX 5 a.never.test.",
            "never.test. MX 10 b.never.test.",
            "a.never.test. A 127.0.0.8",
            "b.never.test. A 127.0.0.7",
            "partly.test. MX 5 a.never.test.",
            "partly.test. MX 10 dead.partly.test.",
            "dead.partly.test. A 127.0.0.9",
        ]
    )
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    for n in range(30):
        daemon.submit(f"s{n}@sender.test", ["r@never.test"], letter())
    daemon.submit("other@sender.test", ["r@partly.test"], letter())
    wait_for("30 bounces", lambda: len(sender.messages) == 30)
    assert all(b"Status: 5.3.2" in m.body for m in sender.messages), sender.messages[0].body
    daemon.wait_queued("r@partly.test")


def test_failover_of_a_big_message(t):
    """A big message whose body was sent before MAIL was refused starts anew at the next MX"""
    live = t.peer("127.0.0.2", extensions=(*EXTENSIONS, "CHUNKING"))
    later = t.peer("127.0.0.6", extensions=(*EXTENSIONS, "CHUNKING"), mail="451 4.3.0 no")
    t.dns(
        [
            "later.test. MX 5 mx.later.test.",
            "later.test. MX 10 live.test.",
            "mx.later.test. A 127.0.0.6",
            "live.test. A 127.0.0.2",
        ]
    )
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    text = letter("big", size=3 << 20)
    daemon.submit("s@sender.test", ["r@later.test"], text)
    live.wait(1)
    assert later.sessions and live.accepted[0].body.endswith(text)
    daemon.wait_empty()


SMALL = ("PIPELINING", "SIZE 1000")


def small_and_other(names):
    """Of each domain two hosts: the better one at 127.0.0.5, the other as `names` has it"""
    records = ["sender.test. A 127.0.0.2", "small.test. A 127.0.0.5"]
    for name, last in names.items():
        records += [
            f"{name}.test. MX 5 small.test.",
            f"{name}.test. MX 10 other.{name}.test.",
            f"other.{name}.test. A 127.0.0.{last}",
        ]
    return records


def test_too_large_for_the_first_host(t):
    """What is above the SIZE of one MX goes to the next at once, with one connection also"""
    small = t.peer("127.0.0.5", extensions=SMALL)
    large = t.peer("127.0.0.6", extensions=("PIPELINING", "SIZE 0"))
    t.dns(small_and_other({"mixed": 6}))
    for connections_max in (8, 1):
        daemon = t.daemon(
            name=f"daemon{connections_max}",
            connections_max=connections_max,
            workers=1,
            retry_first="1h",
            retry_base="1h",
            retry_cap="2h",
        )
        for n in range(3):
            daemon.submit("s@sender.test", [f"big{n}@mixed.test"], letter(size=5000))
        daemon.submit("s@sender.test", ["little@mixed.test"], b"Subject: l\r\n\r\nhi\r\n")
        daemon.wait_empty()
    assert all(r.startswith("little") for r in small.recipients())
    assert sum(r.startswith("big") for r in large.recipients()) == 6


def test_too_large_for_all_hosts(t):
    """5.3.4 only when no MX takes that size; else what the others say counts, be it nothing"""
    t.peer("127.0.0.5", extensions=SMALL)
    t.peer("127.0.0.6", extensions=SMALL)
    t.peer("127.0.0.7", mail="451 4.3.0 later")
    t.peer("127.0.0.8", connect="521 5.3.2 no mail here")
    t.peer("127.0.0.10", rcpt="550 5.1.1 nobody")
    sender = t.peer("127.0.0.2")
    failing = {"both": (6, b"5.3.4"), "never": (8, b"5.3.4"), "nobody": (10, b"5.1.1")}
    waiting = {"later": 7, "dead": 9}
    records = small_and_other({**{n: last for n, (last, _) in failing.items()}, **waiting})
    records += [
        "turned.test. MX 5 other.later.test.",
        "turned.test. MX 10 small.test.",
    ]
    t.dns(records)
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    for name, (_, code) in failing.items():
        daemon.submit(f"{name}@sender.test", [f"r@{name}.test"], letter(size=5000))
        wait_for(name, lambda: f"{name}@sender.test" in sender.recipients())
        assert b"Status: " + code in sender.messages[-1].body, sender.messages[-1].body
    for name in (*waiting, "turned"):
        daemon.submit("s@sender.test", [f"r@{name}.test"], letter(size=5000))
    wait_for("deferrals", lambda: len(daemon.log("deferred")) == 3)
    daemon.wait_queued("r@dead.test", "r@later.test", "r@turned.test")
    said = {e["recipient"]: e for e in daemon.log("deferred")}
    assert "larger than small.test takes" in said["r@dead.test"]["reply"], said
    assert said["r@later.test"]["code"] == said["r@turned.test"]["code"] == 451, said
    assert len(sender.messages) == len(failing)
    assert all(e["attempt_ms"] < 3000 for e in said.values()), said  # a dead host is tried once


def test_all_addresses(t):
    """All addresses of a host are tried before the mail waits"""
    live = t.peer("127.0.0.7")
    t.dns({"multi.test": ["127.0.0.3", "127.0.0.4", "127.0.0.7"]})
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    daemon.submit("s@sender.test", ["r@multi.test"], letter())
    live.wait(1)


def test_equal_preference(t):
    """MX hosts of equal preference share the load"""
    one, two = t.peer("127.0.0.2"), t.peer("127.0.0.3")
    records = ["one.test. A 127.0.0.2", "two.test. A 127.0.0.3"]
    domains = [f"d{n}.test" for n in range(24)]
    for domain in domains:
        records += [f"{domain}. MX 10 one.test.", f"{domain}. MX 10 two.test."]
    t.dns(records)
    daemon = t.daemon(connection_messages_max=1)
    for domain in domains:
        daemon.submit("s@sender.test", [f"r@{domain}"], letter())
    wait_for("24", lambda: len(one.accepted) + len(two.accepted) == 24)
    assert one.accepted and two.accepted


def test_servfail_waits(t):
    """SERVFAIL defers with 4.4.3, and the mail goes when the zone is mended"""
    peer = t.peer()
    server = t.dns({"fine.test": peer.host}, broken=["lame.test"])
    daemon = t.daemon(dns_ttl_failed="1s")
    daemon.submit("s@sender.test", ["r@lame.test"], letter())
    wait_for("the reason", lambda: any("4.4.3" in str(e) for e in daemon.log() + daemon.queue()))
    assert not daemon.log("bounced")
    server.broken = ()
    server.replace(
        [
            "lame.test. MX 10 mx.lame.test.",
            f"mx.lame.test. A {peer.host}",
        ]
    )
    peer.wait(1, 25)
    daemon.wait_empty()


def test_no_name_server(t):
    """Without any DNS everything waits and nothing is bounced; then it goes"""
    peer = t.peer()
    server = t.dns({"a.test": peer.host})
    daemon = t.daemon(dns_ttl_failed="1s", dns_timeout="1s", dns_tries=1)
    server.stop()
    for n in range(20):
        daemon.submit("s@sender.test", [f"r{n}@a.test"], letter())
    wait_for("it to be known", lambda: daemon.log("domain-deferred") or daemon.log("deferred"))
    assert len(daemon.queued()) == 20
    server.start()
    peer.wait(20, 25)
    assert not daemon.log("bounced")


def test_ttl_is_honoured(t):
    """After its TTL a changed MX is seen"""
    old, new = t.peer("127.0.0.2"), t.peer("127.0.0.3")
    server = t.dns({"moving.test": "127.0.0.2"}, ttl=1)
    daemon = t.daemon(connection_idle="1s")
    daemon.submit("s@sender.test", ["r@moving.test"], letter())
    old.wait(1)
    server.replace(["moving.test. MX 10 mx2.moving.test.", "mx2.moving.test. A 127.0.0.3"])
    time.sleep(6.5)  # no answer is kept for less than five seconds
    daemon.submit("s@sender.test", ["r@moving.test"], letter())
    new.wait(1)


def test_private_addresses(t):
    """An MX that points to loopback is refused unless configured"""
    peer = t.peer()
    sender = t.peer("127.0.0.3")
    t.dns({"inside.test": peer.host})
    daemon = t.daemon(
        routes={"sender.test": {"hosts": [f"127.0.0.3:{sender.port}"]}}, private_hosts=False
    )
    daemon.submit("s@sender.test", ["r@inside.test"], letter())
    wait_for("an outcome", lambda: daemon.log("bounced") + daemon.log("deferred"))
    assert not peer.sessions


def test_routing_table(t):
    """Routes: static hosts with ports, .subdomains, `fail` with its text, discard"""
    peer = t.peer("127.0.0.2", port=t.port())
    under = t.peer("127.0.0.3", port=t.port())
    sender = t.peer("127.0.0.4", port=t.port())
    daemon = t.daemon(
        routes={
            "static.test": {"hosts": [f"127.0.0.9:{peer.port}", f"127.0.0.2:{peer.port}"]},
            ".static.test": {"hosts": [f"127.0.0.3:{under.port}"]},
            "closed.test": {"fail": "5.1.6 moved away"},
            "hole.test": {"discard": True},
            "*": {"hosts": [f"127.0.0.4:{sender.port}"]},
        }
    )
    daemon.submit("s@sender.test", ["r@static.test"], letter("static"))
    daemon.submit("s@sender.test", ["r@deep.sub.static.test"], letter("below"))
    daemon.submit("s@sender.test", ["r@hole.test"], letter("hole"))
    peer.wait(1)
    under.wait(1)
    with daemon.client() as client:
        client.ehlo()
        client.expect("MAIL FROM:<s@sender.test>", 250)
        reply = client.command("RCPT TO:<r@closed.test>")
        if reply.code == 250:
            client.data(letter("closed"))
            report = sender.wait(1)[0]
            assert b"5.1.6" in report.body and b"moved away" in report.body
        else:
            assert reply.code // 100 == 5 and "moved away" in reply.text, reply
    daemon.wait_empty()
    assert not [m for m in sender.accepted if m.subject == "hole"]


def test_ipv6(t):
    """Listening on [::1], and delivery to an IPv6 peer by AAAA and by literal"""
    peer = t.peer("::1", port=t.port())
    t.peer_port = peer.port
    t.dns({"six.test": "::1"})
    daemon = t.daemon(host="::1")
    daemon.submit("s@sender.test", ["r@six.test"], letter())
    peer.wait(1)
    daemon.submit("s@sender.test", ["r@[IPv6:::1]"], letter())
    got = peer.wait(2)
    assert "[IPv6:::1]" in got[0].header, got[0].header


def test_families(t):
    """ipv4 first or ipv6 first decides which address of a host is tried first"""
    six = t.peer("::1", port=t.port())
    t.peer_port = six.port
    four = t.peer("127.0.0.2")
    t.dns({"both.test": ["127.0.0.2", "::1"]})
    for families, wanted in (
        ("ipv6-first", six),
        ("ipv4-first", four),
        ("ipv4-only", four),
        ("ipv6-only", six),
    ):
        daemon = t.daemon(name=families, families=families)
        daemon.submit("s@sender.test", ["r@both.test"], letter(families))
        wait_for(families, lambda: any(m.subject == families for m in wanted.accepted))
        daemon.stop()


def test_many_mx(t):
    """An answer too long for UDP, with sixteen MX hosts, is used whole: the last one is alive"""
    live = t.peer("127.0.0.2")
    records = ["live.test. A 127.0.0.2", "many.test. MX 50 live.test."]
    for n in range(15):
        name = f"a-rather-long-name-of-a-mail-host-without-a-pattern-{n}.number-{n}.many.test."
        records += [f"many.test. MX {n} {name}", f"{name} A 127.0.9.{n + 1}"]
    t.dns(records)
    daemon = t.daemon(retry_first="1h", retry_base="1h", retry_cap="2h", probe="1h")
    daemon.submit("s@sender.test", ["r@many.test"], letter())
    live.wait(1)


def test_case_of_domains(t):
    """A domain is one domain however it is written, and is sent on in lower case"""
    daemon, peer = t.simple()
    daemon.submit("s@sender.test", ["x@A.Test", "Y@a.TEST", "z@a.test"], letter())
    assert sorted(peer.wait(1)[0].recipients) == ["Y@a.test", "x@a.test", "z@a.test"]


def test_routes_have_their_own_limits(t):
    """Port, source address, connections and timeouts of a route hold for that route alone"""
    one = t.peer("127.0.0.2", port=t.port(), dot=Slow(0.1))
    two = t.peer("127.0.0.3")
    t.dns({"one.test": one.host, "two.test": two.host})
    daemon = t.daemon(
        routes={
            "one.test": {
                "port": one.port,
                "source4": "127.0.0.50",
                "connections_max": 1,
                "timeouts": {"final": "30s"},
            }
        },
        source4="127.0.0.60",
        final_timeout="1s",
    )
    two.set(dot=[Slow(5), None])
    for n in range(10):
        daemon.submit("s@sender.test", [f"r{n}@one.test"], letter())
    daemon.submit("s@sender.test", ["r@two.test"], letter())
    one.wait(10)
    assert one.open_max == 1 and {s.source for s in one.sessions} == {"127.0.0.50"}
    wait_for("the time-out at the other", lambda: daemon.log("deferred", recipient="r@two.test"))
    assert two.sessions[0].source == "127.0.0.60"
    daemon.stop()
    assert not daemon.log("deferred", recipient="r0@one.test")


def test_waiting_mail_follows_the_configuration(t):
    """Routes are derived at run time: after a restart waiting mail takes the new way"""
    peer = t.peer("127.0.0.2")
    t.dns({"moved.test": "127.0.0.99"})
    daemon = t.daemon()
    for n in range(10):
        daemon.submit("s@sender.test", [f"r{n}@moved.test"], letter())
    wait_for("ten to wait", lambda: len(daemon.queued()) == 10)
    daemon.stop()
    daemon.routes["moved.test"] = {"hosts": [f"127.0.0.2:{peer.port}"]}
    daemon.configure()
    daemon.start()
    peer.wait(10)
    daemon.wait_empty()
