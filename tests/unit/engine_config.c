/*
 * The configuration: what is read, what is refused and how that is said, and which route a
 * domain gets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/config/config.h"
#include "engine/config/table.h"
#include "engine/config/value.h"
#include "os/check.h"

/* config_load() of this text; `path_out` is the file's name. */
static struct config *load_text(const char *text, char *error, size_t error_bytes,
				char path_out[static 64])
{
	struct config *config;
	FILE *file;

	strcpy(path_out, "/tmp/engine_config.XXXXXX");
	file = fdopen(mkstemp(path_out), "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	config = config_load(path_out, error, error_bytes);
	unlink(path_out);
	return config;
}

static struct config *load(const char *text)
{
	char error[4096], path[64];
	struct config *config = load_text(text, error, sizeof(error), path);

	if (config == NULL)
		fail_msg("%s", error);
	return config;
}

/* ── complaints ───────────────────────────────────────────────────────────────────── */

static const struct bad_case {
	const char *name, *text;
	const char
		*error; /* "LINE: what it says", for each line in turn; the file's name is added */
} bads[] = {
	{ "a domain without keys", "dkim {\n domain \"a.test\" { }\n}\n",
	  "2: domain \"a.test\" has 0 keys. Give 1 to 8, each as key \"selector\" { file = ... "
	  "}." },
	{ "a key without file", "dkim { domain \"a.test\" {\n key \"s\" { }\n} }\n",
	  "2: key \"s\" lacks its file. Give file = \"/path/of/the/key.pem\"." },
	{ "a selector that is no name",
	  "dkim { domain \"a.test\" {\n key \"s 1\" { file = \"x\" }\n} }\n",
	  "2: key \"s 1\" is not a selector. Give letters, digits and hyphens, such as \"s1\"." },
	{ "a default without keys", "dkim { default = \"a.test\" }\n",
	  "1: default = \"a.test\" has no keys. Give the name of one of the domains." },
	{ "a canonical form that there is not",
	  "dkim { domain \"a.test\" {\n body = \"relax\"\n key \"s\" { file = \"x\" } } }\n",
	  "2: body = \"relax\" is not possible. Give \"relaxed\" or \"simple\"." },
	{ "an unknown option", "workers = 1\nworker = 2\n",
	  "2: no such option 'worker'. Correct it as stafette.conf(5) says; what follows was not "
	  "read." },
	{ "an unknown option in a route", "route \"a.test\" {\n colour = \"red\"\n}\n",
	  "2: no such option 'colour'. Correct it as stafette.conf(5) says; what follows was not "
	  "read." },
	{ "a count with letters", "workers = \"4x\"\n",
	  "1: workers = \"4x\" is not possible. Give a whole number from 0 to 256." },
	{ "a duration without unit", "session_idle = 30\n",
	  "1: session_idle = \"30\" is not possible. Give a duration such as \"30s\" from 1s to "
	  "1d." },
	{ "a duration out of range", "\n\noutcome_sync = \"2s\"\n",
	  "3: outcome_sync = \"2s\" is not possible. Give a duration such as \"30s\" from 1ms to "
	  "1s." },
	{ "a size out of range", "memory_bytes = \"1M\"\n",
	  "1: memory_bytes = \"1M\" is not possible. Give a size such as \"50M\" from 16M to "
	  "1024G." },
	{ "a number that overflows", "memory_bytes = \"99999999999999999999G\"\n",
	  "1: memory_bytes = \"99999999999999999999G\" is not possible. Give a size such as "
	  "\"50M\" from 16M to 1024G." },
	{ "neither true nor false", "normalise = maybe\n",
	  "1: normalise = \"maybe\" is not possible. Give true or false." },
	{ "a network with bits behind its prefix", "trusted = {\"10.0.0.1/8\"}\n",
	  "1: \"10.0.0.1/8\" is not a network. Give one such as \"192.0.2.0/24\" or "
	  "\"2001:db8::/32\", with zeros behind the prefix." },
	{ "a PROXY listener without proxies", "listener \"0.0.0.0:25\" { proxy_protocol = true }\n",
	  "1: listener \"0.0.0.0:25\" would let nobody in. Give the addresses of the proxies in "
	  "proxy_networks." },
	{ "proxies without a PROXY listener",
	  "listener \"0.0.0.0:25\" { proxy_networks = {\"10.0.0.0/8\"} }\n",
	  "1: listener \"0.0.0.0:25\" has proxy_networks without a use. Set proxy_protocol = "
	  "true." },
	{ "an XCLIENT network that is none",
	  "listener \"0.0.0.0:25\" {\n xclient_networks = {\"host.test\"}\n}\n",
	  "2: \"host.test\" is not a network. Give one such as \"192.0.2.0/24\" or "
	  "\"2001:db8::/32\", with zeros behind the prefix." },
	{ "a listener that needs a certificate",
	  "\nlistener \"0.0.0.0:465\" { tls = \"implicit\" }\n",
	  "2: listener \"0.0.0.0:465\" needs a certificate. Give one in a section certificate." },
	{ "auth that nobody can check", "listener \"0.0.0.0:587\" { auth = \"always\" }\n",
	  "1: listener \"0.0.0.0:587\" can check nobody. Give users or dovecot in a section "
	  "auth." },
	{ "auth under TLS without TLS",
	  "auth { users = \"/u\" }\nlistener \"0.0.0.0:587\" { auth = \"tls\" }\n",
	  "2: listener \"0.0.0.0:587\" offers auth under TLS, and has no TLS. Give a section "
	  "certificate, or auth = \"always\"." },
	{ "auth required and not offered", "listener \"0.0.0.0:587\" { auth_required = true }\n",
	  "1: listener \"0.0.0.0:587\" requires what it does not offer. Give auth as well." },
	{ "two that check logins", "auth { users = \"/u\" dovecot = \"/d\" }\n",
	  "1: auth has both users and dovecot. Keep one." },
	{ "dovecot on no path", "auth { dovecot = \"inet:12345\" }\n",
	  "1: dovecot = \"inet:12345\" is not the path of a socket. Give one of at most 107 "
	  "octets, "
	  "such as \"/run/dovecot/auth-client\"." },
	{ "an auth_user of two words", "delivery { auth_user = \"a b\" }\n",
	  "1: auth_user = \"a b\" is not possible. Give a name without blanks." },
	{ "a listener with a word that isn't there", "listener \"[::]:25\" { tls = \"yes\" }\n",
	  "1: tls = \"yes\" is not possible. Give \"none\", \"may\", \"require\" or "
	  "\"implicit\"." },
	{ "a certificate without key", "certificate { chain = \"a.pem\" }\n",
	  "1: the certificate lacks a file. Give both chain and key." },
	{ "an old version of TLS", "tls { version_min = \"1.0\" }\n",
	  "1: version_min = \"1.0\" is not possible. Give \"1.2\" or \"1.3\"." },
	{ "a level of TLS that isn't there", "delivery { tls = \"dane\" }\n",
	  "1: tls = \"dane\" is not possible. Give \"none\", \"may\", \"encrypt\" or "
	  "\"verify\"." },
	{ "a listener without port", "listen = {\n\"0.0.0.0:25\",\n\"::1\"}\n",
	  "3: \"::1\" cannot be listened on. Give an address and a port such as \"0.0.0.0:25\" or "
	  "\"[::]:25\", or the path of a socket." },
	{ "an address listened on twice", "listen = {\n\"[::1]:25\",\n\"[0:0::1]:25\"}\n",
	  "3: \"[0:0::1]:25\" is listened on twice. Remove one." },
	{ "a listener with an address of listen",
	  "listen = {\"127.0.0.1:25\"}\nlistener \"127.0.0.1:25\" { tls = \"none\" }\n",
	  "2: \"127.0.0.1:25\" is listened on twice. Remove one." },
	{ "an option given twice", "workers = 1\nworkers = 2\n",
	  "2: workers is given twice. Remove one." },
	{ "a list given twice", "trusted = {\"::1\"}\ntrusted = {\"::1\"}\n",
	  "2: trusted is given twice. Remove one." },
	{ "a section given twice", "dns { tries = 1 }\ndns { tries = 2 }\n",
	  "2: section dns is given twice. Put all of it into one." },
	{ "a route given twice", "route \"a.test\" { }\nroute \"a.test\" { }\n",
	  "2: found duplicate title 'a.test'. Correct it as stafette.conf(5) says; what follows "
	  "was not read." },
	{ "a route given twice in other letters", "route \"a.test\" { }\nroute \"A.Test\" { }\n",
	  "2: route \"a.test\" is given twice; the first one ends in line 1. Remove one." },
	{ "a route that is no international domain", "route \"-ü.test\" { }\n",
	  "1: route \"-ü.test\" is not a domain. Give \"example.com\", \".example.com\" for all "
	  "below it, or \"*\"." },
	{ "a route given twice in other labels",
	  "route \"ü.test\" { }\nroute \"xn--tda.test\" { }\n",
	  "2: route \"xn--tda.test\" is given twice; the first one ends in line 1. Remove one." },
	{ "routes given twice are all told, with their lines",
	  "route \"*\" { }\nroute \"a.test\" {\n}\nroute \"b.test\" { }\n"
	  "route \"A.test\" {\n}\nroute \"B.test\" { }\nroute \"a.Test\" { }\n",
	  "6: route \"a.test\" is given twice; the first one ends in line 3. Remove one.\n"
	  "7: route \"b.test\" is given twice; the first one ends in line 4. Remove one.\n"
	  "8: route \"a.test\" is given twice; the first one ends in line 3. Remove one." },
	{ "a route that is no domain", "route \"a..test\" { }\n",
	  "1: route \"a..test\" is not a domain. Give \"example.com\", \".example.com\" for all "
	  "below it, or \"*\"." },
	{ "a route with two actions", "route \"a.test\" {\n discard = true\n to = mx\n}\n",
	  "4: route \"a.test\" has more than one of to, hosts, fail and discard. Keep one." },
	{ "a route to nowhere known", "route \"a.test\" { to = \"smtp\" }\n",
	  "1: to = \"smtp\" is not possible. Give \"mx\", or use hosts." },
	{ "a failure without code", "route \"a.test\" { fail = \"gone\" }\n",
	  "1: fail = \"gone\" has no code and text in ASCII. Give one like \"5.1.1 nobody "
	  "here\"." },
	{ "a host with a bad port", "route \"a.test\" { hosts = {\"mx.a.test:0\"} }\n",
	  "1: \"mx.a.test:0\" is not a host. Give a name or an address, with ':' and a port if it "
	  "isn't 25." },
	{ "a host that is a mistyped address", "route \"a.test\" { hosts = {\"1.2.3.400\"} }\n",
	  "1: \"1.2.3.400\" is not a host. Give a name or an address, with ':' and a port if it "
	  "isn't 25." },
	{ "a UNIX socket without LMTP", "route \"a.test\" { hosts = {\"/run/lmtp\"} }\n",
	  "1: \"/run/lmtp\" is a UNIX socket, where only LMTP is spoken. Set lmtp = true." },
	{ "LMTP on port 25", "route \"a.test\" {\n lmtp = true\n hosts = {\"mx.a.test:25\"}\n}\n",
	  "3: \"mx.a.test\" has port 25, which is not for LMTP. Give the port on which it takes "
	  "LMTP." },
	{ "LMTP to an MX", "route \"a.test\" {\n lmtp = true\n}\n",
	  "3: route \"a.test\" has lmtp without hosts. Give them." },
	{ "a route to an empty list of hosts", "\nroute \"a.test\" { hosts = {} }\n",
	  "2: route \"a.test\" has hosts = {}, which names none. Give one at least, or to = "
	  "\"mx\" in its place." },
	{ "LMTP to an empty list of hosts", "route \"a.test\" { lmtp = true hosts = {} }\n",
	  "1: route \"a.test\" has hosts = {}, which names none. Give one at least, or to = "
	  "\"mx\" in its place." },
	{ "a way to the kernel that is none", "io = \"kqueue\"\n",
	  "1: io = \"kqueue\" is not possible. Give \"auto\", \"io_uring\" or \"epoll\"." },
	{ "an IPv6 address as source4", "delivery { source4 = \"::1\" }\n",
	  "1: source4 = \"::1\" is not possible. Give an IPv4 address." },
	{ "a name server by name", "dns { servers = {\"ns.test\"} }\n",
	  "1: \"ns.test\" is not a name server. Give an address such as \"127.0.0.1:53\" or "
	  "\"[::1]:53\"." },
	{ "a postmaster without domain", "postmaster = \"root\"\n",
	  "1: postmaster \"root\" is not an address. Give one such as "
	  "\"postmaster@example.com\"." },
	{ "a postmaster with a space", "\npostmaster = \"post master@a.test\"\n",
	  "2: postmaster \"post master@a.test\" is not an address. Give one such as "
	  "\"postmaster@example.com\"." },
	{ "a host name with a space", "workers = 1\nhostname = \"my host\"\nio = \"auto\"\n",
	  "2: hostname \"my host\" is not a domain name. Set hostname to this machine's full name "
	  "in DNS." },
	{ "a file size that is no power of two",
	  "segment_bytes = \"3M\"\njournal_bytes = \"512K\"\n",
	  "1: segment_bytes = 3145728 is not possible. Give 1M, 2M, 4M and so on to 256M.\n2: "
	  "journal_bytes = 524288 is not possible. Give 1M, 2M, 4M and so on to 256M." },
	{ "a section without end", "dns {\n tries = 1\n", "3: a '{' is not closed. Add the '}'." },
	{ "all wrong values are told",
	  "workers = x\ndelivery {\n port = 0\n timeouts {\n  mail = \"1w\"\n }\n}\n",
	  "1: workers = \"x\" is not possible. Give a whole number from 0 to 256.\n"
	  "3: port = \"0\" is not possible. Give a whole number from 1 to 65535.\n"
	  "5: mail = \"1w\" is not possible. Give a duration such as \"30s\" from 100ms to 1h." },
};

/* The error that `row` wants, with the file's name in front of each line; line 0: no number. */
static void expected_error(const char *rows, const char *path, char *out)
{
	while (*rows != '\0') {
		size_t length = strcspn(rows, "\n");
		bool numbered = rows[0] != '0';
		size_t skip = numbered ? 0 : 1;

		out += sprintf(out, "%s%s%.*s", path, numbered ? ":" : "", (int)(length - skip),
			       rows + skip);
		rows += length;
		if (*rows == '\n')
			*out++ = *rows++;
	}
	*out = '\0';
}

static void bad_test(void **state)
{
	const struct bad_case *row = *state;
	char error[4096], expected[4096], path[64];

	assert_null(load_text(row->text, error, sizeof(error), path));
	expected_error(row->error, path, expected);
	assert_string_equal(error, expected);
}

static void unreadable_test(void **state)
{
	char error[256];

	(void)state;
	assert_null(config_load("/nonexistent/stafette.conf", error, sizeof(error)));
	assert_string_equal(error, "/nonexistent/stafette.conf: cannot be read: No such file or "
				   "directory. Give a readable file.");
}

static void small_buffer_test(void **state)
{
	char error[40], path[64];

	(void)state;
	assert_null(load_text("workers = x\nnode = y\n", error, sizeof(error), path));
	assert_true(strlen(error) < sizeof(error));
}

/* ── values ───────────────────────────────────────────────────────────────────────── */

static const struct duration_case {
	const char *name, *text;
	int64_t ms; /* -1: refused */
} durations[] = {
	{ "milliseconds", "250ms", 250 },
	{ "seconds", "30s", 30000 },
	{ "minutes", "5m", 300000 },
	{ "hours", "4h", 14400000 },
	{ "days", "5d", 432000000 },
	{ "zero needs no unit", "0", 0 },
	{ "other numbers need a unit", "5", -1 },
	{ "no fraction", "1.5h", -1 },
	{ "no sign", "-5s", -1 },
	{ "no space", "5 s", -1 },
	{ "no number", "s", -1 },
	{ "nothing", "", -1 },
	{ "too large", "300000000000d", -1 },
};

static void duration_test(void **state)
{
	const struct duration_case *row = *state;
	uint64_t ms = 77;

	assert_int_equal(config_parse_duration(row->text, &ms), row->ms >= 0);
	assert_int_equal(ms, row->ms >= 0 ? row->ms : 77);
}

static const struct host_case {
	const char *name, *text;
	const char *host; /* NULL: refused */
	uint16_t port;
} hosts[] = {
	{ "a name", "mx.example.net", "mx.example.net", 25 },
	{ "a name and a port", "mx.example.net:2525", "mx.example.net", 2525 },
	{ "an IPv4 address", "192.0.2.1", "192.0.2.1", 25 },
	{ "an IPv4 address and a port", "192.0.2.1:26", "192.0.2.1", 26 },
	{ "an IPv6 address", "2001:db8::1", "2001:db8::1", 25 },
	{ "an IPv6 address in brackets", "[2001:db8::1]", "2001:db8::1", 25 },
	{ "an IPv6 address and a port", "[2001:db8::1]:26", "2001:db8::1", 26 },
	{ "a name of one label", "localhost:26", "localhost", 26 },
	{ "an open bracket", "[2001:db8::1", NULL, 0 },
	{ "text behind the bracket", "[::1]x", NULL, 0 },
	{ "port zero", "a.test:0", NULL, 0 },
	{ "a port too large", "a.test:65536", NULL, 0 },
	{ "an empty port", "a.test:", NULL, 0 },
	{ "no name", ":25", NULL, 0 },
	{ "a space", "a test", NULL, 0 },
	{ "a label with a hyphen at its end", "a-.test", NULL, 0 },
	{ "a path", "/run/socket", NULL, 0 },
};

static void host_test(void **state)
{
	const struct host_case *row = *state;
	struct config_host host = { 0 };

	assert_int_equal(config_parse_host(row->text, 25, &host), row->host != NULL);
	if (row->host == NULL)
		return;
	assert_string_equal(host.name, row->host);
	assert_int_equal(host.port, row->port);
	free(host.name);
}

/* ── whole files ──────────────────────────────────────────────────────────────────── */

static void international_test(void **state)
{
	(void)state;
	struct config *config = load("hostname = \"MX.bücher.example\"\n"
				     "postmaster = \"Poste@BÜCHER.example\"\n"
				     "route \".Straße.example\" { hosts = {\"ü.example:24\"} }\n");

	assert_string_equal(config->hostname, "mx.xn--bcher-kva.example");
	assert_string_equal(config->postmaster, "Poste@xn--bcher-kva.example");
	assert_string_equal(config->routes[0].pattern, ".xn--strae-oqa.example");
	assert_string_equal(config->routes[0].hosts[0].name, "xn--tda.example");
	config_destroy(config);
}

static void built_in_test(void **state)
{
	char error[256];
	struct config *config = config_load(NULL, error, sizeof(error));

	(void)state;
	assert_non_null(config);
	assert_null(config->path);
	assert_int_equal(strcasecmp(config->hostname, os_host_name()), 0);
	assert_string_equal(config->spool, geteuid() == 0 ? "/var/spool/stafette" : "spool");
	assert_string_equal(config->listeners[0].text, "127.0.0.1:2525");
	assert_int_equal(config->listeners[0].address.port, 2525);
	assert_int_equal(config->listener_count, 1);
	assert_int_equal(config->trusted.count, 2);
	assert_int_equal(config->message_bytes_max, 50 << 20);
	assert_int_equal(config->memory_bytes, 512 << 20);
	assert_int_equal(config->recipients_max, 1000);
	assert_int_equal(config->sessions_max, 10000);
	assert_int_equal(config->drain_ms, 30000);
	assert_int_equal(config->outcome_sync_ms, 5);
	assert_int_equal(config->evacuate_after_s, 900);
	assert_int_equal(config->dns.timeout_ms, 5000);
	assert_null(config->dns.servers);
	assert_int_equal(config->route_count, 1);
	assert_string_equal(config->routes[0].pattern, "*");
	assert_int_equal(config->delivery.port, 25);
	assert_int_equal(config->delivery.connections_max, 20);
	assert_int_equal(config->delivery.expire_ms, UINT64_C(5) * 86400 * 1000);
	assert_int_equal(config->delivery.timeouts.final_ms, 600000);
	assert_int_equal(config->delivery.source4.family, AF_UNSPEC);
	config_destroy(config);
}

/* Delivery options that stand behind a route are its defaults all the same. */
static void inherit_test(void **state)
{
	struct config *config = load("route \"a.test\" {\n"
				     "	hosts = {\"192.0.2.1\", \"mx.a.test:2525\"}\n"
				     "	port = 26\n"
				     "	connections_max = 1\n"
				     "	timeouts { mail = \"1m\" }\n"
				     "	accept = yes\n"
				     "}\n"
				     "delivery {\n"
				     "	port = 27\n"
				     "	stream_depth = 4\n"
				     "	families = \"ipv6-only\"\n"
				     "	long_lines = refuse\n"
				     "	timeouts { mail = \"2m\" rcpt = \"3m\" }\n"
				     "}\n");
	const struct config_route *route = config_route(config, span_text("a.test"));

	(void)state;
	assert_int_equal(route->action, CONFIG_ROUTE_HOSTS);
	assert_true(route->accept);
	assert_int_equal(route->host_count, 2);
	assert_int_equal(route->hosts[0].port, 26);
	assert_int_equal(route->hosts[1].port, 2525);
	assert_int_equal(route->delivery.port, 26);
	assert_int_equal(route->delivery.connections_start, 1);
	assert_int_equal(route->delivery.stream_depth, 4);
	assert_int_equal(route->delivery.families, CONFIG_IPV6_ONLY);
	assert_int_equal(route->delivery.long_lines, CONFIG_LONG_LINES_REFUSE);
	assert_int_equal(route->delivery.timeouts.mail_ms, 60000);
	assert_int_equal(route->delivery.timeouts.rcpt_ms, 180000);
	route = config_route(config, span_text("b.test"));
	assert_int_equal(route->action, CONFIG_ROUTE_MX);
	assert_int_equal(route->delivery.port, 27);
	assert_int_equal(route->delivery.timeouts.mail_ms, 120000);
	config_destroy(config);
}

/* The certificates may stand behind the listener that wants one. */
static void tls_test(void **state)
{
	struct config *config =
		load("listener \"[::]:465\" { tls = \"implicit\" }\n"
		     "listener \"[::]:25\" { }\n"
		     "certificate { chain = \"a.pem\" key = \"a.key\" }\n"
		     "certificate { chain = \"b.pem\" key = \"b.key\" }\n"
		     "delivery { tls = \"encrypt\" }\n"
		     "route \"a.test\" { tls = \"verify\" tls_name = \"MX.Ü.test\" }\n"
		     "route \"b.test\" { tls_implicit = true }\n");
	const struct config_delivery *a = &config_route(config, span_text("a.test"))->delivery;
	const struct config_delivery *b = &config_route(config, span_text("b.test"))->delivery;

	(void)state;
	assert_int_equal(config->listener_count, 2);
	assert_int_equal(config->listeners[0].tls, CONFIG_LISTENER_IMPLICIT);
	assert_int_equal(config->listeners[1].tls, CONFIG_LISTENER_MAY);
	assert_int_equal(config->certificate_count, 2);
	assert_string_equal(config->certificates[1].key, "b.key");
	assert_int_equal(a->tls, TLS_VERIFY);
	assert_string_equal(a->tls_name, "mx.xn--tda.test");
	assert_int_equal(b->tls, TLS_ENCRYPT);
	assert_true(b->tls_implicit);
	assert_string_equal(b->tls_name, "");
	config_destroy(config);
}

static void dkim_test(void **state)
{
	struct config *config =
		load("dkim { default = \"A.test\" domain \"a.TEST\" { body = \"simple\"\n"
		     " key \"S1\" { file = \"r.pem\" } key \"s2\" { file = \"e.pem\" } }\n"
		     " domain \"b\xc3\xbc"
		     "cher.test\" { subdomains = true key \"s1\" { file = \"b.pem\" } } }\n");
	const struct config_dkim *dkim = &config->dkim;

	(void)state;
	assert_false(dkim->sign_relayed);
	assert_string_equal(dkim->domain_default, "a.test");
	assert_int_equal(dkim->domain_count, 2);
	assert_string_equal(dkim->domains[0].name, "a.test");
	assert_int_equal(dkim->domains[0].header, DKIM_RELAXED);
	assert_int_equal(dkim->domains[0].body, DKIM_SIMPLE);
	assert_int_equal(dkim->domains[0].key_count, 2);
	assert_string_equal(dkim->domains[0].keys[0].selector, "s1");
	assert_string_equal(dkim->domains[0].keys[1].file, "e.pem");
	assert_string_equal(dkim->domains[1].name, "xn--bcher-kva.test");
	assert_true(dkim->domains[1].subdomains);
	config_destroy(config);
}

static void lists_test(void **state)
{
	struct config *config = load("listen = {\"0.0.0.0:25\", \"[::]:25\", \"/run/s.sock\"}\n"
				     "trusted = {\"10.0.0.0/8\"}\n"
				     "dns { servers = {\"127.0.0.1:53\", \"[::1]:5353\"} }\n");

	(void)state;
	assert_int_equal(config->listener_count, 3);
	assert_int_equal(config->listeners[1].address.family, AF_INET6);
	assert_int_equal(config->listeners[2].address.family, AF_UNIX);
	assert_string_equal(config->dns.servers, "127.0.0.1:53, [::1]:5353");
	assert_int_equal(config->trusted.count, 1);
	config_destroy(config);
	config = load("listen = {}\ntrusted = {}\ndns { servers = \"127.0.0.1:53\" }\n");
	assert_int_equal(config->listener_count, 0);
	assert_int_equal(config->trusted.count, 0);
	assert_string_equal(config->dns.servers, "127.0.0.1:53");
	config_destroy(config);
}

static void proxies_test(void **state)
{
	struct config *config = load("listener \"0.0.0.0:25\" {\n"
				     " proxy_protocol = true\n"
				     " proxy_networks = {\"192.0.2.0/24\", \"2001:db8::1\"}\n"
				     " xclient_networks = \"198.51.100.7\"\n"
				     "}\n"
				     "listener \"/run/s.sock\" { proxy_protocol = true }\n");
	const struct config_listener *listener = &config->listeners[0];
	struct os_address inside, outside, other;

	(void)state;
	assert_true(os_address_parse("192.0.2.77", 0, &inside));
	assert_true(os_address_parse("2001:db8::2", 0, &outside));
	assert_true(os_address_parse("198.51.100.7", 0, &other));
	assert_true(listener->proxy_protocol && config->listeners[1].proxy_protocol);
	assert_int_equal(listener->proxy_header_ms, 10000);
	assert_true(config_networks_have(&listener->proxy_networks, &inside));
	assert_false(config_networks_have(&listener->proxy_networks, &outside));
	assert_false(config_networks_have(&listener->proxy_networks, &other));
	assert_true(config_networks_have(&listener->xclient_networks, &other));
	assert_false(config_networks_have(&listener->xclient_networks, &inside));
	assert_int_equal(config->listeners[1].xclient_networks.count, 0);
	config_destroy(config);
}

/* The example that is installed says what is built in, and nothing else. */
static void example_test(void **state)
{
	char error[1024];
	struct config *config = config_load("dist/stafette.conf", error, sizeof(error));

	(void)state;
	if (config == NULL)
		fail_msg("%s", error);
	config_destroy(config);
}

/* ── routes and trust ─────────────────────────────────────────────────────────────── */

static const struct route_case {
	const char *name, *domain, *pattern;
} routes[] = {
	{ "the domain itself", "example.com", "example.com" },
	{ "in any letters", "EXAMPLE.Com", "example.com" },
	{ "below the domain is another", "www.example.com", "*" },
	{ "below a dotted pattern", "a.example.org", ".example.org" },
	{ "far below a dotted pattern", "a.b.c.example.org", ".example.org" },
	{ "a dotted pattern leaves out its domain", "example.org", "*" },
	{ "the longest parent wins", "a.deep.example.org", ".deep.example.org" },
	{ "the domain wins over its parent", "mail.example.org", "mail.example.org" },
	{ "a similar end is another domain", "notexample.com", "*" },
	{ "any other domain", "example.net", "*" },
	{ "a leading dot matches nothing", ".example.org", "*" },
	{ "an empty domain", "", "*" },
};

static struct config *routes_config;

static int routes_setup(void **state)
{
	(void)state;
	routes_config = load("route \"*\" { hosts = {\"relay.test\"} }\n"
			     "route \"Example.COM\" { discard = true }\n"
			     "route \".example.org\" { fail = \"5.1.2 no mail here\" }\n"
			     "route \".deep.example.org\" { }\n"
			     "route \"mail.example.org\" { }\n"
			     "trusted = {\"127.0.0.0/8\", \"10.1.2.0/23\", \"2001:db8::/33\", "
			     "\"::ffff:198.51.100.0/120\", "
			     "\"::1\"}\n");
	return 0;
}

static int routes_teardown(void **state)
{
	(void)state;
	config_destroy(routes_config);
	return 0;
}

static void route_test(void **state)
{
	const struct route_case *row = *state;
	const struct config_route *route = config_route(routes_config, span_text(row->domain));

	assert_string_equal(route->pattern, row->pattern);
}

static void default_route_test(void **state)
{
	const struct config_route *last = &routes_config->routes[routes_config->route_count - 1];
	char domain[300];

	(void)state;
	assert_int_equal(routes_config->route_count, 5);
	assert_string_equal(last->pattern, "*");
	assert_int_equal(last->action, CONFIG_ROUTE_HOSTS);
	memset(domain, 'a', sizeof(domain));
	assert_ptr_equal(config_route(routes_config, span_of(domain, sizeof(domain))), last);
}

static const struct trust_case {
	const char *name, *address;
	bool trusted;
} trusts[] = {
	{ "loopback", "127.1.2.3", true },
	{ "inside a prefix of 23 bits", "10.1.3.255", true },
	{ "behind a prefix of 23 bits", "10.1.4.0", false },
	{ "another network", "192.0.2.1", false },
	{ "IPv4 written as IPv6", "198.51.100.9", true },
	{ "behind that prefix", "198.51.101.9", false },
	{ "a single IPv6 address", "::1", true },
	{ "the next IPv6 address", "::2", false },
	{ "inside a prefix of 33 bits", "2001:db8:7fff::1", true },
	{ "outside a prefix of 33 bits", "2001:db8:8000::1", false },
	{ "a UNIX socket", "/run/s.sock", true },
};

static void trust_test(void **state)
{
	const struct trust_case *row = *state;
	struct os_address address;

	assert_true(os_address_parse(row->address, 0, &address));
	assert_int_equal(config_trusts(routes_config, &address), row->trusted);
}

/* ── the manual ───────────────────────────────────────────────────────────────────── */

static char *manual;

static bool manual_has(const char *name)
{
	char item[96];

	snprintf(item, sizeof(item), "\n.It Ic %s ", name);
	return strstr(manual, item) != NULL;
}

static void manual_table(const struct config_option *options)
{
	for (; options->name != NULL; options++)
		if (!manual_has(options->name))
			fail_msg("man/stafette.conf.5 has no .It Ic %s", options->name);
}

static void manual_test(void **state)
{
	static const char *const others[] = {
		"listen", "trusted",	    "servers",	       "to",
		"hosts",  "fail",	    "discard",	       "accept",
		"lmtp",	  "proxy_networks", "xclient_networks"
	};
	size_t count;

	(void)state;
	assert_int_equal(
		os_file_load(OS_CURRENT_FOLDER, "man/stafette.conf.5", 1 << 20, &manual, &count),
		0);
	manual_table(config_top_options);
	manual_table(config_dns_options);
	manual_table(config_delivery_options);
	manual_table(config_tls_options);
	manual_table(config_auth_options);
	manual_table(config_certificate_options);
	manual_table(config_dkim_options);
	manual_table(config_dkim_domain_options);
	manual_table(config_listener_options);
	manual_table(config_timeouts_options);
	for (size_t i = 0; i < array_count(others); i++)
		if (!manual_has(others[i]))
			fail_msg("man/stafette.conf.5 has no .It Ic %s", others[i]);
	free(manual);
}

int main(void)
{
	struct CMUnitTest tests[array_count(bads) + array_count(durations) + array_count(hosts) +
				array_count(routes) + array_count(trusts) + 12] = { 0 };
	const struct CMUnitTest others[] = {
		cmocka_unit_test(unreadable_test),    cmocka_unit_test(small_buffer_test),
		cmocka_unit_test(built_in_test),      cmocka_unit_test(inherit_test),
		cmocka_unit_test(lists_test),	      cmocka_unit_test(example_test),
		cmocka_unit_test(manual_test),	      cmocka_unit_test(default_route_test),
		cmocka_unit_test(international_test), cmocka_unit_test(tls_test),
		cmocka_unit_test(proxies_test),	      cmocka_unit_test(dkim_test),
	};
	size_t count = 0;

	for (size_t i = 0; i < array_count(bads); i++)
		tests[count++] =
			(struct CMUnitTest){ bads[i].name, bad_test, NULL, NULL, (void *)&bads[i] };
	for (size_t i = 0; i < array_count(durations); i++)
		tests[count++] = (struct CMUnitTest){ durations[i].name, duration_test, NULL, NULL,
						      (void *)&durations[i] };
	for (size_t i = 0; i < array_count(hosts); i++)
		tests[count++] = (struct CMUnitTest){ hosts[i].name, host_test, NULL, NULL,
						      (void *)&hosts[i] };
	for (size_t i = 0; i < array_count(routes); i++)
		tests[count++] = (struct CMUnitTest){ routes[i].name, route_test, NULL, NULL,
						      (void *)&routes[i] };
	for (size_t i = 0; i < array_count(trusts); i++)
		tests[count++] = (struct CMUnitTest){ trusts[i].name, trust_test, NULL, NULL,
						      (void *)&trusts[i] };
	for (size_t i = 0; i < array_count(others); i++)
		tests[count++] = others[i];
	return cmocka_run_group_tests_name("engine/config", tests, routes_setup, routes_teardown);
}
