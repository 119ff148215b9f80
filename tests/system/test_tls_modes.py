"""TLS with real servers on the other side, in every mode of theirs and of ours."""

import os
import re

from certificates import Authority, section
from harness import alone, limit, wait_for
from mta import OpenSmtpd, Postfix
from wire import Client, letter

PEER_NAME = "mx.peer.test"
OUR_NAME = "mx.stafette.test"

# How a server of theirs listens, and what becomes of mail that we send at each of our levels.
TO_THEM = {
    "plain": {"none": "clear", "may": "clear", "encrypt": "waits", "verify": "waits"},
    "offered": {"none": "clear", "may": "proven", "encrypt": "proven", "verify": "proven"},
    "required": {"none": "waits", "may": "proven", "encrypt": "proven", "verify": "proven"},
    "implicit": {"encrypt": "proven", "verify": "proven"},
    "stranger": {"may": "tls", "encrypt": "tls", "verify": "waits"},
}

# How a listener of ours is, and what becomes of mail that they send at each of their levels.
TO_US = {
    "plain": {"none": "clear", "may": "clear", "encrypt": "waits", "verify": "waits"},
    "offered": {"none": "clear", "may": "tls", "encrypt": "tls", "verify": "tls"},
    "required": {"none": "waits", "may": "tls", "encrypt": "tls", "verify": "tls"},
    "implicit": {"wrapped": "tls"},
    "stranger": {"may": "tls", "encrypt": "tls", "verify": "waits"},
}

# OpenSMTPD 6.8 as Debian 12 has it fails in every handshake as a server, since OpenSSL 3 finds no
# private key in what it gives it (its issues 1171 and 1239): a host that offers what it cannot do.
TO_BROKEN_TLS = {
    "plain": TO_THEM["plain"],
    "offered": {"none": "clear", "may": "clear", "encrypt": "waits", "verify": "waits"},
    "required": {"none": "waits", "may": "waits", "encrypt": "waits", "verify": "waits"},
    "implicit": {"encrypt": "waits", "verify": "waits"},
}

# Between two connections to one host it waits for seconds.
OPENSMTPD_PAUSES = (
    *(f"conn-delay-{what}" for what in ("host", "source", "connector", "relay", "domain")),
    "session-transaction-delay",
    "session-keepalive",
    "reconn-delay-route",
)


def cases(table):
    """(listener, level, outcome, domain) of each."""
    for listener, levels in table.items():
        for level, outcome in levels.items():
            yield listener, level, outcome, f"{level}.{listener}.test"


def ports_for(t, table):
    return {listener: t.port() for listener in table}


def by_their_trace(message):
    """Whether the server in the middle says that it took the message with TLS."""
    trace = [line for line in message.header.split("Received: ") if "from mx.stafette.test" in line]
    assert len(trace) == 1, message.header
    return bool(re.search(r"\bwith ESMTPS\b", trace[0]))


def by_our_trace(message):
    return bool(re.search(r"by mx\.stafette\.test\b.*?\bwith ESMTPS\b", message.header, re.S))


# ── from us to them ──


def check_delivery(t, table, host, ports, end, authority):
    """Every level of ours at every listener of theirs; the server relays to `end`."""
    routes = {
        domain: {
            "hosts": [f"{host}:{ports[listener]}"],
            "tls": level,
            "tls_name": PEER_NAME,
            "tls_implicit": listener == "implicit",
        }
        for listener, level, _, domain in cases(table)
    }
    t.dns({})
    daemon = t.daemon(routes=routes, tls_ca_file=authority.path)
    for _, _, _, domain in cases(table):
        daemon.submit("s@sender.test", [f"r@{domain}"], letter("m"))
    peer_says = {"clear": None, "tls": "unverified", "proven": "verified"}
    for _, _, outcome, domain in cases(table):
        event = "deferred" if outcome == "waits" else "delivered"
        entry = daemon.wait_log(event, recipient=f"r@{domain}")[0]
        if outcome != "waits":
            assert entry.get("tls_peer") == peer_says[outcome], (domain, entry)
    passed = {d: outcome != "clear" for _, _, outcome, d in cases(table) if outcome != "waits"}
    found = {
        m.recipients[0].partition("@")[2]: by_their_trace(m) for m in end.wait(len(passed), 40)
    }
    assert found == passed, found
    for _, _, outcome, domain in cases(table):
        if outcome == "waits":
            assert not daemon.log("delivered", recipient=f"r@{domain}"), domain


def server_certificates(t):
    """(authority, its certificate for the server, a stranger's)."""
    authority, stranger = Authority(t.folder), Authority(t.folder, "stranger")
    return authority, authority.make(PEER_NAME), stranger.make(PEER_NAME)


@alone
@limit(60)
def test_to_postfix(t):
    """Each of our levels at each of Postfix's: in clear, encrypted, proven, or it waits"""
    authority, good, strange = server_certificates(t)
    end = t.peer("127.0.0.2", port=t.port())
    host, ports = "127.0.0.4", ports_for(t, TO_THEM)
    how = {
        "plain": "-o smtpd_tls_security_level=none",
        "offered": "-o smtpd_tls_security_level=may",
        "required": "-o smtpd_tls_security_level=encrypt",
        "implicit": "-o smtpd_tls_wrappermode=yes -o smtpd_tls_security_level=encrypt",
        "stranger": "-o smtpd_tls_security_level=may"
        f" -o smtpd_tls_cert_file={strange[0]} -o smtpd_tls_key_file={strange[1]}",
    }
    t.keep(
        Postfix(
            os.path.join(t.folder, "postfix"),
            t.port(),
            {
                "smtpd_tls_cert_file": good[0],
                "smtpd_tls_key_file": good[1],
                "relayhost": f"[{end.host}]:{end.port}",
                "disable_dns_lookups": "yes",
            },
            host=host,
            services="".join(f"{host}:{ports[n]} inet n - n - - smtpd {how[n]}\n" for n in how),
        ),
        Postfix.stop,
    )
    check_delivery(t, TO_THEM, host, ports, end, authority)


@alone
@limit(60)
def test_to_opensmtpd(t):
    """Each of our levels at each of OpenSMTPD's, whose handshakes fail: in clear, or it waits"""
    authority, (chain, key), _ = server_certificates(t)
    end = t.peer("127.0.0.2", port=t.port())
    host, ports = "127.0.0.5", ports_for(t, TO_BROKEN_TLS)
    how = {
        "plain": "",
        "offered": "tls pki mail",
        "required": "tls-require pki mail",
        "implicit": "smtps pki mail",
    }
    config = f'pki mail cert "{chain}"\npki mail key "{key}"\n'
    config += "".join(
        f"listen on {host} port {ports[n]} hostname opensmtpd.test {how[n]}\n" for n in how
    )
    config += "".join(f"mta limit {key} 0\n" for key in OPENSMTPD_PAUSES)
    config += (
        f'action "on" relay host smtp+notls://{end.host}:{end.port}\n'
        'match from any for any action "on"\n'
    )
    t.keep(
        OpenSmtpd(os.path.join(t.folder, "opensmtpd"), ports["plain"], host=host, config=config),
        OpenSmtpd.stop,
    )
    check_delivery(t, TO_BROKEN_TLS, host, ports, end, authority)


# ── from them to us ──


def our_addresses():
    """One for each case, for OpenSMTPD lets an address rest after a failure."""
    return {domain: f"127.0.2.{n}" for n, (*_, domain) in enumerate(cases(TO_US), 1)}


def our_listeners(t, peer):
    """Our ports by how they listen, on every address of the loopback, and who has signed for all
    but `stranger`."""
    authority, stranger = Authority(t.folder), Authority(t.folder, "stranger")
    t.dns({domain: peer.host for *_, domain in cases(TO_US)})
    ports = ports_for(t, TO_US)
    words = {"plain": "none", "offered": "may", "required": "require", "implicit": "implicit"}

    def listeners(names):
        return {f'listener "0.0.0.0:{ports[n]}"': {"tls": words.get(n, "may")} for n in names}

    names = (OUR_NAME, *our_addresses().values())
    t.daemon(certificate=section(*authority.make(*names)), **listeners(words))
    t.daemon(
        name="stranger", certificate=section(*stranger.make(*names)), **listeners(["stranger"])
    )
    return ports, authority


def check_reception(server, peer, not_sent):
    """Every level of theirs at every listener of ours; `not_sent` finds a failure in their log."""
    with Client(server.port, server.host) as client:
        client.ehlo()
        for *_, domain in cases(TO_US):
            assert client.submit("s@sender.test", [f"r@{domain}"], letter("m")).code == 250
        client.quit()
    for _, _, outcome, domain in cases(TO_US):
        if outcome == "waits":
            pattern = not_sent.format(address=re.escape(f"r@{domain}"))
            wait_for(
                f"the server to fail with {domain}", lambda p=pattern: re.search(p, server.logged())
            )
    passed = {d: outcome == "tls" for _, _, outcome, d in cases(TO_US) if outcome != "waits"}
    found = {m.recipients[0].partition("@")[2]: by_our_trace(m) for m in peer.wait(len(passed), 40)}
    assert found == passed, found


@alone
@limit(60)
def test_from_postfix(t):
    """Each of Postfix's levels at each listener of ours: in clear, by TLS, or it waits"""
    peer = t.peer("127.0.0.2")
    ports, authority = our_listeners(t, peer)
    how = {
        "none": "-o smtp_tls_security_level=none",
        "may": "-o smtp_tls_security_level=may",
        "encrypt": "-o smtp_tls_security_level=encrypt",
        "verify": "-o smtp_tls_security_level=secure",
        "wrapped": "-o smtp_tls_security_level=secure -o smtp_tls_wrappermode=yes",
    }
    transports = os.path.join(t.folder, "transports")
    with open(transports, "w", encoding="ascii") as file:
        for listener, level, _, domain in cases(TO_US):
            file.write(f"{domain} {level}:[127.0.0.1]:{ports[listener]}\n")
    postfix = t.keep(
        Postfix(
            os.path.join(t.folder, "postfix"),
            t.port(),
            {
                "transport_maps": f"texthash:{transports}",
                "disable_dns_lookups": "yes",
                "smtp_tls_CAfile": authority.path,
                "smtp_tls_secure_cert_match": OUR_NAME,
            },
            services="".join(f"{name} unix - - n - - smtp {how[name]}\n" for name in how),
        ),
        Postfix.stop,
    )
    check_reception(postfix, peer, r"to=<{address}>.*status=(deferred|bounced)")


@alone
@limit(60)
def test_from_opensmtpd(t):
    """Each of OpenSMTPD's levels at each listener of ours: in clear, by TLS, or it waits"""
    peer = t.peer("127.0.0.2")
    ports, authority = our_listeners(t, peer)
    how = {
        "none": ("smtp+notls", ""),
        "may": ("smtp", ""),
        "encrypt": ("smtp+tls", "tls no-verify"),
        "verify": ("smtp+tls", "tls"),
        "wrapped": ("smtps", "tls"),
    }
    host, port = "127.0.0.5", t.port()
    config = f"listen on {host} port {port} hostname opensmtpd.test\n"
    for key in OPENSMTPD_PAUSES:
        config += f"mta limit {key} 0\n"
    addresses = our_addresses()
    for listener, level, _, domain in cases(TO_US):
        scheme, option = how[level]
        host_of_ours = f"{scheme}://{addresses[domain]}:{ports[listener]}"
        config += (
            f'action "{domain}" relay host {host_of_ours} {option}\n'
            f'match from any for domain "{domain}" action "{domain}"\n'
        )
    server = t.keep(
        OpenSmtpd(
            os.path.join(t.folder, "opensmtpd"),
            port,
            host=host,
            config=config,
            authorities=authority.path,
        ),
        OpenSmtpd.stop,
    )
    check_reception(server, peer, r"to=<?{address}>? .*result=\"?(TempFail|PermFail)")
