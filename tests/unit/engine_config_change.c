/*
 * From one configuration to the next: which routes are the same, what stays until a restart,
 * which listeners are kept, and when a snapshot is freed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/config/change.h"
#include "os/check.h"

static struct config *load(const char *text)
{
	char error[4096], path[] = "/tmp/engine_config_change.XXXXXX";
	FILE *file = fdopen(mkstemp(path), "w");
	struct config *config;

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	config = config_load(path, error, sizeof(error));
	unlink(path);
	if (config == NULL)
		fail_msg("%s", error);
	return config;
}

/* ── routes ───────────────────────────────────────────────────────────────────────── */

#define ROUTE(more) "route \"a.test\" { hosts = {\"10.0.0.1\", \"b.test:26\"} " more "}\n"

static const struct route_case {
	const char *name, *before, *after;
	bool same;
} routes[] = {
	{ "a route as it was is the same", ROUTE(""), ROUTE(""), true },
	{ "the order of routes is no part of one", ROUTE(""),
	  "route \"b.test\" { fail = \"5.1.1 gone\" }\n" ROUTE(""), true },
	{ "an unrelated setting is no part of a route", ROUTE(""), "sessions_max = 7\n" ROUTE(""),
	  true },
	{ "accept is no part of delivery", ROUTE(""), ROUTE("accept = true"), true },
	{ "another host is another route", ROUTE(""),
	  "route \"a.test\" { hosts = {\"10.0.0.2\", \"b.test:26\"} }\n", false },
	{ "another port is another route", ROUTE(""),
	  "route \"a.test\" { hosts = {\"10.0.0.1\", \"b.test:27\"} }\n", false },
	{ "the order of hosts counts", ROUTE(""),
	  "route \"a.test\" { hosts = {\"b.test:26\", \"10.0.0.1\"} }\n", false },
	{ "another protocol is another route", ROUTE("port = 24"), ROUTE("port = 24 lmtp = true"),
	  false },
	{ "a limit of the route counts", ROUTE(""), ROUTE("connections_max = 3"), false },
	{ "what a route inherits counts", ROUTE(""), "delivery { connections_max = 3 }\n" ROUTE(""),
	  false },
	{ "a timeout counts", ROUTE(""), ROUTE("timeouts { quit = \"3s\" }"), false },
	{ "a source address counts", ROUTE(""), ROUTE("source4 = \"10.9.9.9\""), false },
	{ "TLS policy counts", ROUTE(""), ROUTE("tls = \"encrypt\""), false },
	{ "another action is another route", ROUTE(""), "route \"a.test\" { discard = true }\n",
	  false },
	{ "a route that is gone is not the same", ROUTE(""), "", false },
	{ "another text of a failure counts", "route \"a.test\" { fail = \"5.1.1 gone\" }\n",
	  "route \"a.test\" { fail = \"5.1.1 moved\" }\n", false },
};

static void route_test(void **state)
{
	const struct route_case *expected = *state;
	struct config *before = load(expected->before), *after = load(expected->after);
	const struct config_route *route = config_route(before, span_text("a.test"));
	const struct config_route *same = config_route_same(after, route);

	assert_int_equal(same != NULL, expected->same);
	if (same != NULL) {
		assert_true(same >= after->routes && same < after->routes + after->route_count);
		assert_string_equal(same->pattern, route->pattern);
	}
	config_unref(before);
	config_unref(after);
}

/* ── what stays ───────────────────────────────────────────────────────────────────── */

static const struct fixed_case {
	const char *name, *before, *after, *names;
} fixeds[] = {
	{ "nothing has changed", "spool = \"/a\"\n", "spool = \"/a\"\n", "" },
	{ "a default written out has not changed", "spool = \"/a\"\n",
	  "spool = \"/a\"\nworkers = 0\nsandbox = true\n", "" },
	{ "what may change is not named", "spool = \"/a\"\n",
	  "spool = \"/a\"\nhostname = \"x.test\"\nmemory_bytes = \"64M\"\n", "" },
	{ "the spool stays", "spool = \"/a\"\n", "spool = \"/b\"\n", "spool" },
	{ "several are named", "spool = \"/a\"\nnode = 1\n", "spool = \"/a\"\nworkers = 3\n",
	  "node, workers" },
	{ "file sizes stay", "spool = \"/a\"\n",
	  "spool = \"/a\"\nsegment_bytes = \"1M\"\njournal_bytes = \"2M\"\n",
	  "segment_bytes, journal_bytes" },
	{ "the way of I/O stays", "io = \"epoll\"\n", "io = \"auto\"\n", "io" },
	{ "user, group and sandbox stay", "user = \"a\"\n", "group = \"b\"\nsandbox = false\n",
	  "group, user, sandbox" },
};

static void fixed_test(void **state)
{
	const struct fixed_case *expected = *state;
	struct config *before = load(expected->before), *after = load(expected->after);
	char names[256];

	assert_true(config_keep_fixed(after, before, names, sizeof(names)));
	assert_string_equal(names, expected->names);
	assert_string_equal(after->spool, before->spool);
	assert_int_equal(after->workers, before->workers);
	assert_int_equal(after->node, before->node);
	assert_ptr_equal(after->io, before->io);
	assert_int_equal(after->segment_bytes, before->segment_bytes);
	assert_true(config_keep_fixed(after, before, names, sizeof(names)));
	assert_string_equal(names, "");
	config_unref(before);
	config_unref(after);
}

/* ── listeners, snapshots ─────────────────────────────────────────────────────────── */

static void a_listener_is_its_address(void **state)
{
	struct config *before = load("listen = {\"127.0.0.1:25\", \"[::1]:25\", \"/run/s\"}\n");
	struct config *after = load("listener \"127.0.0.1:25\" { tls = \"none\" }\n"
				    "listen = {\"127.0.0.1:26\", \"/run/s\"}\n");

	(void)state;
	assert_ptr_equal(config_listener_same(after, &before->listeners[0]), &after->listeners[2]);
	assert_null(config_listener_same(after, &before->listeners[1]));
	assert_ptr_equal(config_listener_same(after, &before->listeners[2]), &after->listeners[1]);
	assert_null(config_listener_same(before, &after->listeners[0]));
	config_unref(before);
	config_unref(after);
}

static const struct meeting_case {
	const char *name, *one, *other;
	bool meet;
} meetings[] = {
	{ "an address meets itself", "127.0.0.1:25", "127.0.0.1:25", true },
	{ "another port does not meet", "127.0.0.1:25", "127.0.0.1:26", false },
	{ "another address does not meet", "127.0.0.1:25", "127.0.0.2:25", false },
	{ "all of IPv4 meet one of it", "0.0.0.0:25", "127.0.0.1:25", true },
	{ "all of IPv4 do not meet another port", "0.0.0.0:25", "127.0.0.1:26", false },
	{ "all of IPv6 meet one of it", "[::]:25", "[::1]:25", true },
	{ "all of IPv4 do not meet IPv6", "0.0.0.0:25", "[::]:25", false },
	{ "a socket meets itself", "/run/s", "/run/s", true },
	{ "a socket meets no other", "/run/s", "/run/t", false },
	{ "a socket meets no port", "/run/s", "0.0.0.0:25", false },
};

static struct config *load_listener(const char *address)
{
	char text[128];

	snprintf(text, sizeof(text), "listen = {\"[::9]:9\", \"%s\"}\n", address);
	return load(text);
}

static void meeting_test(void **state)
{
	const struct meeting_case *row = *state;
	struct config *one = load_listener(row->one), *other = load_listener(row->other);

	assert_int_equal(config_listener_meets(one, &other->listeners[1]), row->meet);
	assert_int_equal(config_listener_meets(other, &one->listeners[1]), row->meet);
	config_unref(one);
	config_unref(other);
}

static void a_listener_knows_its_line(void **state)
{
	struct config *config = load("hostname = \"a.test\"\nlisten = {\n\"127.0.0.1:26\"\n}\n");

	(void)state;
	assert_int_equal(config->listeners[0].line, 3);
	config_unref(config);
}

/* The sanitizers see one that is freed too early, or never. */
static void the_last_reference_frees(void **state)
{
	struct config *config = load(ROUTE(""));

	(void)state;
	assert_ptr_equal(config_ref(config), config);
	config_unref(config);
	assert_string_equal(config->routes[0].pattern, "a.test");
	config_unref(config);
	config_unref(NULL);
}

int main(void)
{
	struct CMUnitTest
		tests[array_count(routes) + array_count(fixeds) + array_count(meetings) + 3];
	size_t count = 0;

	for (size_t i = 0; i < array_count(routes); i++)
		tests[count++] = (struct CMUnitTest){ routes[i].name, route_test, NULL, NULL,
						      (void *)&routes[i] };
	for (size_t i = 0; i < array_count(fixeds); i++)
		tests[count++] = (struct CMUnitTest){ fixeds[i].name, fixed_test, NULL, NULL,
						      (void *)&fixeds[i] };
	for (size_t i = 0; i < array_count(meetings); i++)
		tests[count++] = (struct CMUnitTest){ meetings[i].name, meeting_test, NULL, NULL,
						      (void *)&meetings[i] };
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(a_listener_is_its_address);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(a_listener_knows_its_line);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(the_last_reference_frees);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
