/*
 * mx: where mail goes, against a zone made of a table. The DNS and the clock are ours: defined
 * here, so that the linker never takes those of os/.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/delivery/mx.h"
#include "engine/delivery/mx_cache.h"
#include "engine/delivery/mx_self.h"
#include "os/check.h"
#include "tests/unit/memory_refuse.h"

/* ── clock and random ─────────────────────────────────────────────────────────────── */

static uint64_t now_ns = OS_NS_PER_S;

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ now_ns };
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ (int64_t)(now_ns / 1000) };
}

void os_random(void *bytes, size_t count)
{
	memset(bytes, 7, count);
}

/* ── the zone ─────────────────────────────────────────────────────────────────────── */

static const struct zone_record {
	const char *name;
	enum os_dns_type type;
	enum os_dns_status status;
	uint32_t ttl_s;
	const char *data; /* "10 mx1.example, 20 ." or "192.0.2.1, 192.0.2.2" */
} zone[] = {
	{ "two.example", OS_DNS_MX, OS_DNS_OK, 600, "20 b.example, 10 a.example" },
	{ "twin.example", OS_DNS_MX, OS_DNS_OK, 600, "10 a.example, 20 b.example" },
	{ "other.example", OS_DNS_MX, OS_DNS_OK, 600, "10 a.example, 30 b.example" },
	{ "a.example", OS_DNS_A, OS_DNS_OK, 300, "192.0.2.1" },
	{ "a.example", OS_DNS_AAAA, OS_DNS_OK, 900, "2001:db8::1" },
	{ "b.example", OS_DNS_A, OS_DNS_OK, 900, "192.0.2.2, 192.0.2.3" },
	{ "implicit.example", OS_DNS_MX, OS_DNS_NODATA, 60, "" },
	{ "implicit.example", OS_DNS_A, OS_DNS_OK, 900, "192.0.2.9" },
	{ "xn--bcher-kva.example", OS_DNS_MX, OS_DNS_NODATA, 60, "" },
	{ "xn--bcher-kva.example", OS_DNS_A, OS_DNS_OK, 900, "192.0.2.9" },
	{ "implicit2.example", OS_DNS_MX, OS_DNS_NODATA, 60, "" },
	{ "implicit2.example", OS_DNS_A, OS_DNS_FAILED, 0, "" },
	{ "empty.example", OS_DNS_MX, OS_DNS_NODATA, 60, "" },
	{ "empty.example", OS_DNS_A, OS_DNS_NODATA, 60, "" },
	{ "down.example", OS_DNS_MX, OS_DNS_FAILED, 0, "" },
	{ "down.example", OS_DNS_A, OS_DNS_OK, 900, "192.0.2.9" },
	{ "null.example", OS_DNS_MX, OS_DNS_OK, 600, "0 ." },
	{ "dot.example", OS_DNS_MX, OS_DNS_OK, 600, "0 ., 10 a.example" },
	{ "dangling.example", OS_DNS_MX, OS_DNS_OK, 600, "10 gone.example" },
	{ "dangling.example", OS_DNS_A, OS_DNS_OK, 600, "192.0.2.9" },
	{ "half.example", OS_DNS_MX, OS_DNS_OK, 600, "10 gone.example, 20 a.example" },
	{ "shaky.example", OS_DNS_MX, OS_DNS_OK, 600, "10 gone.example, 20 servfail.example" },
	{ "partly.example", OS_DNS_MX, OS_DNS_OK, 600, "10 servfail.example, 20 a.example" },
	{ "servfail.example", OS_DNS_A, OS_DNS_FAILED, 0, "" },
	{ "servfail.example", OS_DNS_AAAA, OS_DNS_FAILED, 0, "" },
	{ "backup.example", OS_DNS_MX, OS_DNS_OK, 600,
	  "10 a.example, 20 mx.ours.example, 20 b.example, 30 c.example" },
	{ "ours.example", OS_DNS_MX, OS_DNS_OK, 600, "10 mx.ours.example, 20 a.example" },
	{ "equal.example", OS_DNS_MX, OS_DNS_OK, 600, "10 a.example, 10 mx.ours.example" },
	{ "alias.example", OS_DNS_MX, OS_DNS_OK, 600, "10 alias-of-us.example, 20 a.example" },
	{ "alias-of-us.example", OS_DNS_A, OS_DNS_OK, 600, "198.51.100.25" },
	{ "loopback.example", OS_DNS_MX, OS_DNS_OK, 600, "10 localhost.example" },
	{ "localhost.example", OS_DNS_A, OS_DNS_OK, 600, "127.0.0.1" },
	{ "mx.ours.example", OS_DNS_A, OS_DNS_OK, 600, "203.0.113.77" },
	{ "shakybackup.example", OS_DNS_MX, OS_DNS_OK, 600,
	  "10 servfail.example, 20 mx.ours.example" },
	{ "private.example", OS_DNS_MX, OS_DNS_OK, 600, "10 inside.example" },
	{ "inside.example", OS_DNS_A, OS_DNS_OK, 600, "10.1.2.3" },
	{ "inside.example", OS_DNS_AAAA, OS_DNS_OK, 600, "::ffff:10.1.2.3, 64:ff9b::a01:203" },
	{ "mixed.example", OS_DNS_MX, OS_DNS_OK, 600, "10 inside.example, 20 a.example" },
	{ "twice.example", OS_DNS_MX, OS_DNS_OK, 600, "20 a.example, 10 a.example" },
	{ "long.example", OS_DNS_MX, OS_DNS_OK, 1000000, "10 forever.example" },
	{ "forever.example", OS_DNS_A, OS_DNS_OK, 1000000, "192.0.2.8" },
	{ "brief.example", OS_DNS_MX, OS_DNS_OK, 600, "10 brief-host.example" },
	{ "brief-host.example", OS_DNS_A, OS_DNS_OK, 0, "192.0.2.8" },
	{ "brief-host.example", OS_DNS_AAAA, OS_DNS_NODATA, 900, "" },
};

static struct os_dns_query *asked[256];
static uint32_t asked_count, asked_ever;
static int64_t records_alive;

void os_dns_ask(struct os_loop *loop, struct os_dns_query *query)
{
	(void)loop;
	assert_true(asked_count < array_count(asked));
	asked[asked_count++] = query;
	asked_ever++;
}

void os_dns_release(struct os_dns_query *query)
{
	records_alive -= query->records != NULL;
	free(query->records);
	query->records = NULL;
}

static void fill_records(struct os_dns_query *query, const char *data)
{
	char *text = __real_strdup(data), *rest = text, *word;

	query->records = __real_calloc(64, sizeof(*query->records));
	records_alive++;
	while ((word = strsep(&rest, ",")) != NULL) {
		struct os_dns_record *record = &query->records[query->record_count++];

		word += strspn(word, " ");
		if (query->type != OS_DNS_MX) {
			assert_true(os_address_parse(word, 0, &record->address));
			continue;
		}
		record->preference = (uint16_t)strtoul(word, &word, 10);
		word++;
		strcpy(record->name, strcmp(word, ".") == 0 ? "" : word);
	}
	free(text);
}

/* What the zone does not name does not exist; what it names with another type has no data. */
static void answer_query(struct os_dns_query *query)
{
	query->status = OS_DNS_NXDOMAIN;
	query->ttl_s = 900;
	for (size_t i = 0; i < array_count(zone); i++) {
		if (strcmp(zone[i].name, query->name) != 0)
			continue;
		query->status = OS_DNS_NODATA;
		if (zone[i].type != query->type)
			continue;
		query->status = zone[i].status;
		query->ttl_s = zone[i].ttl_s;
		if (query->status == OS_DNS_OK)
			fill_records(query, zone[i].data);
		break;
	}
	query->op.done(&query->op);
}

/* The last asked is answered first: order must not matter. */
static void pump(void)
{
	while (asked_count > 0)
		answer_query(asked[--asked_count]);
}

/* ── the world of a test ──────────────────────────────────────────────────────────── */

static struct config_listener listeners[] = {
	{ .address = { .family = AF_INET, .port = 25, .ip = { 198, 51, 100, 25 } } },
	{ .address = { .family = AF_INET, .port = 25 } },
	{ .address = { .family = AF_UNIX } },
};
static struct config config = {
	.hostname = (char *)"MX.ours.example",
	.listeners = listeners,
	.listener_count = array_count(listeners),
	.dns_ttl_max_s = 3600,
	.dns_ttl_failed_s = 30,
};
static struct os_loop *loop;
static struct mx *mx;

static void advance_s(uint64_t seconds)
{
	now_ns += seconds * OS_NS_PER_S;
	os_loop_turn(loop, (struct os_mono){ 0 });
}

static int setup(void **state)
{
	char why[512];

	(void)state;
	if (loop == NULL && (os_backend_choose(why, sizeof(why)) != 0 ||
			     os_loop_create(&(struct os_loop_options){ 0 }, &loop) != 0))
		return -1;
	advance_s(1);
	asked_ever = 0;
	mx = mx_create(loop, &config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mx_destroy(mx);
	return records_alive == 0 ? 0 : -1;
}

static struct config_route route_mx = {
	.pattern = (char *)"*",
	.action = CONFIG_ROUTE_MX,
	.delivery = { .port = 25, .families = CONFIG_IPV4_FIRST },
};

struct waiting {
	struct mx_request request;
	struct mx_answer *answer;
	uint32_t calls;
};

static void on_answer(struct mx_request *request, struct mx_answer *answer)
{
	struct waiting *waiting = container_of(request, struct waiting, request);

	waiting->answer = answer;
	waiting->calls++;
}

static struct mx_answer *resolve(const char *domain, const struct config_route *route)
{
	struct waiting waiting = { .request.done = on_answer };
	struct mx_answer *answer = mx_resolve(mx, &waiting.request, span_text(domain), route);

	if (answer == NULL) {
		assert_int_equal(waiting.calls, 0);
		pump();
		assert_int_equal(waiting.calls, 1);
		answer = waiting.answer;
	}
	assert_true(mx_idle(mx));
	return answer;
}

/* "10 a.example:25 192.0.2.1 2001:db8::1; ..." or "fail 5.1.2 text" */
static const char *render(const struct mx_answer *answer)
{
	static char out[4096];
	char text[OS_ADDRESS_TEXT_MAX];
	size_t at = 0;

	out[0] = '\0';
	if (answer->status != MX_OK) {
		snprintf(out, sizeof(out), "%s %u.%u.%u %s",
			 answer->status == MX_DEFER ? "defer" : "fail", answer->enhanced / 10000,
			 answer->enhanced / 100 % 100, answer->enhanced % 100, answer->text);
		return out;
	}
	for (uint32_t i = 0; i < answer->host_count; i++) {
		const struct mx_host *host = &answer->hosts[i];

		at += (size_t)snprintf(out + at, sizeof(out) - at, "%s%u %s:%u", i ? "; " : "",
				       host->preference, host->name, host->port);
		for (uint32_t j = 0; j < host->address_count; j++) {
			assert_true(host->addresses[j].family == AF_UNIX ||
				    host->addresses[j].port == host->port);
			at += (size_t)snprintf(out + at, sizeof(out) - at, " %s",
					       os_address_text(&host->addresses[j], text));
		}
	}
	return out;
}

/* ── one destination, one answer ──────────────────────────────────────────────────── */

static const struct domain_case {
	const char *name, *domain, *wanted;
	enum config_families families; /* 0: IPv4 first, unless `ip4_only` */
	bool ip4_only, private_hosts;
	uint16_t port;
} domains[] = {
	{ .name = "hosts by preference, IPv4 first",
	  "two.example",
	  "10 a.example:25 192.0.2.1 2001:db8::1; 20 b.example:25 192.0.2.2 192.0.2.3" },
	{ .name = "IPv6 first",
	  "two.example",
	  "10 a.example:25 2001:db8::1 192.0.2.1; 20 b.example:25 192.0.2.2 192.0.2.3",
	  .families = CONFIG_IPV6_FIRST },
	{ .name = "IPv4 only",
	  "two.example",
	  "10 a.example:25 192.0.2.1; 20 b.example:25 192.0.2.2 192.0.2.3",
	  .ip4_only = true },
	{ .name = "IPv6 only leaves out a host without",
	  "two.example",
	  "10 a.example:25 2001:db8::1",
	  .families = CONFIG_IPV6_ONLY },
	{ .name = "the route's port",
	  "dot.example",
	  "10 a.example:2525 192.0.2.1 2001:db8::1",
	  .port = 2525 },
	{ .name = "case and a final dot do not matter",
	  "DOT.Example.",
	  "10 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "without MX the domain itself",
	  "implicit.example",
	  "0 implicit.example:25 192.0.2.9" },
	{ .name = "implicit host whose address is not known now",
	  "implicit2.example",
	  "defer 4.4.3 the DNS gave no answer about implicit2.example, a mail host of "
	  "implicit2.example" },
	{ .name = "neither MX nor address",
	  "empty.example",
	  "fail 5.4.4 no mail host of empty.example has an address" },
	{ .name = "the domain does not exist",
	  "nowhere.example",
	  "fail 5.1.2 the domain nowhere.example does not exist" },
	{ .name = "a failed MX question never leads to the A record",
	  "down.example",
	  "defer 4.4.3 the DNS gave no answer about the mail hosts of down.example" },
	{ .name = "null MX",
	  "null.example",
	  "fail 5.1.10 the domain null.example accepts no mail" },
	{ .name = "a null MX among others is skipped",
	  "dot.example",
	  "10 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "MX without address never leads to the A record",
	  "dangling.example",
	  "fail 5.4.4 no mail host of dangling.example has an address" },
	{ .name = "a host without address is skipped",
	  "half.example",
	  "20 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "no address, and one not known now",
	  "shaky.example",
	  "defer 4.4.3 the DNS gave no answer about servfail.example, a mail host of "
	  "shaky.example" },
	{ .name = "a better host not known now is skipped",
	  "partly.example",
	  "20 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "as a backup only the better hosts",
	  "backup.example",
	  "10 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "we are the best",
	  "ours.example",
	  "fail 5.4.6 mail for ours.example loops back to us: its best mail host is "
	  "mx.ours.example" },
	{ .name = "we are among the best",
	  "equal.example",
	  "fail 5.4.6 mail for equal.example loops back to us: its best mail host is a.example" },
	{ .name = "ourselves by a listener's address",
	  "alias.example",
	  "fail 5.4.6 mail for alias.example loops back to us: its best mail host is "
	  "alias-of-us.example" },
	{ .name = "that address with another port is not us",
	  "alias.example",
	  "10 alias-of-us.example:26 198.51.100.25; 20 a.example:26 192.0.2.1 2001:db8::1",
	  .port = 26 },
	{ .name = "loopback is us when we listen everywhere",
	  "loopback.example",
	  "fail 5.4.6 mail for loopback.example loops back to us: its best mail host is "
	  "localhost.example",
	  .private_hosts = true },
	{ .name = "better hosts than us not known now",
	  "shakybackup.example",
	  "defer 4.4.3 the DNS gave no answer about servfail.example, a mail host of "
	  "shakybackup.example" },
	{ .name = "private addresses are refused",
	  "private.example",
	  "fail 5.4.4 the mail hosts of private.example (inside.example) have only private or "
	  "reserved addresses" },
	{ .name = "private addresses if allowed",
	  "private.example",
	  "10 inside.example:25 10.1.2.3 ::ffff:10.1.2.3 64:ff9b::a01:203",
	  .private_hosts = true },
	{ .name = "a host with private addresses is skipped",
	  "mixed.example",
	  "20 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "a host named twice counts once",
	  "twice.example",
	  "10 a.example:25 192.0.2.1 2001:db8::1" },
	{ .name = "IPv4 literal", "[192.0.2.5]", "0 [192.0.2.5]:25 192.0.2.5" },
	{ .name = "IPv6 literal", "[IPv6:2001:db8::5]", "0 [ipv6:2001:db8::5]:25 2001:db8::5" },
	{ .name = "private literal",
	  "[10.0.0.1]",
	  "fail 5.4.4 the mail hosts of [10.0.0.1] ([10.0.0.1]) have only private or reserved "
	  "addresses" },
	{ .name = "literal of ourselves",
	  "[198.51.100.25]",
	  "fail 5.4.6 mail for [198.51.100.25] loops back to us: its best mail host is "
	  "[198.51.100.25]" },
	{ .name = "IPv6 without its prefix is no literal",
	  "[2001:db8::5]",
	  "fail 5.1.2 the address literal names no mail host" },
	{ .name = "IPv4 with the prefix is no literal",
	  "[IPv6:192.0.2.1]",
	  "fail 5.1.2 the address literal names no mail host" },
	{ .name = "a path is no literal",
	  "[/run/socket]",
	  "fail 5.1.2 the address literal names no mail host" },
	{ .name = "empty literal", "[]", "fail 5.1.2 the address literal names no mail host" },
	{ .name = "unfinished literal", "[", "fail 5.1.2 the address literal names no mail host" },
	{ .name = "no domain", "", "fail 5.1.2 the address has no domain" },
	{ .name = "empty label", "a..example", "fail 5.1.2 the address has no sound domain name" },
	{ .name = "only a dot", ".", "fail 5.1.2 the address has no sound domain name" },
	{ .name = "a U-label is asked for as its A-label",
	  "B\xc3\x9c"
	  "CHER.example",
	  "0 xn--bcher-kva.example:25 192.0.2.9" },
	{ .name = "not even UTF-8",
	  "b\xc3.example",
	  "fail 5.1.2 the address has no sound domain name" },
	{ .name = "an octet that is in no name",
	  "a?.example",
	  "fail 5.1.2 the address has no sound domain name" },
	{ .name = "label of 64",
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
	  "fail 5.1.2 the address has no sound domain name" },
};

static void domain_test(void **state)
{
	const struct domain_case *row = *state;
	struct config_route route = route_mx;

	if (row->families != 0 || row->ip4_only)
		route.delivery.families = row->families;
	route.delivery.private_hosts = row->private_hosts;
	if (row->port != 0)
		route.delivery.port = row->port;

	struct mx_answer *answer = resolve(row->domain, &route);
	assert_string_equal(render(answer), row->wanted);
	assert_true(answer->until.ns >= os_loop_mono(loop).ns + MX_TTL_MIN_S * OS_NS_PER_S);
	if (answer->status == MX_OK)
		assert_true(answer->fingerprint != 0);
	mx_answer_unref(answer);
	/* Known now, without another question. */
	uint32_t before = asked_ever;
	answer = mx_cached(mx, span_text(row->domain), &route);
	assert_non_null(answer);
	mx_answer_unref(answer);
	assert_int_equal(asked_ever, before);
}

/* ── configured hosts ─────────────────────────────────────────────────────────────── */

static const struct hosts_case {
	const char *name;
	struct config_host hosts[3];
	uint32_t count;
	const char *wanted;
} hosts[] = {
	{ "names and addresses in their order",
	  { { (char *)"B.example", 587 }, { (char *)"10.0.0.7", 2525 }, { (char *)"::1", 24 } },
	  3,
	  "0 b.example:587 192.0.2.2 192.0.2.3; 1 10.0.0.7:2525 10.0.0.7; 2 ::1:24 ::1" },
	{ "a UNIX socket", { { (char *)"/run/lmtp", 0 } }, 1, "0 /run/lmtp:0 /run/lmtp" },
	{ "MX records of a host's name do not count",
	  { { (char *)"implicit.example", 25 } },
	  1,
	  "0 implicit.example:25 192.0.2.9" },
	{ "a wrong name is the operator's, so mail waits",
	  { { (char *)"nowhere.example", 25 } },
	  1,
	  "defer 4.3.5 no host of route \"*\" has an address (nowhere.example)" },
	{ "our own name with another port is another program",
	  { { (char *)"mx.ours.example", 2424 } },
	  1,
	  "0 mx.ours.example:2424 203.0.113.77" },
	{ "a loop by configuration waits",
	  { { (char *)"127.0.0.1", 25 } },
	  1,
	  "defer 4.3.5 mail for route \"*\" loops back to us: its best mail host is 127.0.0.1" },
	{ "loopback with another port",
	  { { (char *)"127.0.0.1", 26 } },
	  1,
	  "0 127.0.0.1:26 127.0.0.1" },
};

static void hosts_test(void **state)
{
	const struct hosts_case *row = *state;
	struct config_route route = route_mx;

	route.action = CONFIG_ROUTE_HOSTS;
	route.hosts = (struct config_host *)row->hosts;
	route.host_count = row->count;
	struct mx_answer *answer = resolve("any.example", &route);
	assert_string_equal(render(answer), row->wanted);
	/* Every domain of the route has the same one. */
	struct mx_answer *second = mx_cached(mx, span_text("another.example"), &route);
	assert_ptr_equal(second, answer);
	mx_answer_unref(second);
	mx_answer_unref(answer);
}

/* ── time, sharing, order ─────────────────────────────────────────────────────────── */

static void expect_expiry(const char *domain, uint64_t seconds)
{
	struct mx_answer *answer = resolve(domain, &route_mx);

	assert_int_equal((answer->until.ns - os_loop_mono(loop).ns) / OS_NS_PER_S, seconds);
	mx_answer_unref(answer);
	advance_s(seconds - 1);
	answer = mx_cached(mx, span_text(domain), &route_mx);
	assert_non_null(answer);
	mx_answer_unref(answer);
	advance_s(1);
	assert_null(mx_cached(mx, span_text(domain), &route_mx));
}

static void smallest_ttl_counts(void **state)
{
	(void)state;
	expect_expiry("two.example", 300);
}

static void negative_ttl_counts(void **state)
{
	(void)state;
	expect_expiry("null.example", 600);
	expect_expiry("nowhere.example", 900);
	expect_expiry("implicit.example", 60);
}

static void failures_are_kept_shortly(void **state)
{
	(void)state;
	expect_expiry("down.example", 30);
	expect_expiry("partly.example", 30);
}

/* Whatever could not be allocated, the time to live of an answer that came is not that of one that
 * is missing. */
static void deferred_for_want_of_memory_is_kept_shortly(void **state)
{
	uint32_t deferred = 0;
	bool refused = true;

	(void)state;
	for (uint32_t after = 0; refused; after++) {
		memory_refuse(after, false);
		struct mx_answer *answer = resolve("two.example", &route_mx);

		refused = memory_refuse_end();
		if (answer->status == MX_DEFER) {
			assert_true(answer->until.ns <= now_ns + 30 * OS_NS_PER_S);
			deferred++;
		}
		mx_answer_unref(answer);
		advance_s(10000);
	}
	assert_true(deferred > 0);
}

static void ttl_is_capped_both_ways(void **state)
{
	(void)state;
	expect_expiry("long.example", 900); /* of the missing AAAA */
	route_mx.delivery.families = CONFIG_IPV4_ONLY;
	advance_s(10000);
	expect_expiry("long.example", 3600);
	route_mx.delivery.families = CONFIG_IPV4_FIRST;
	expect_expiry("brief.example", MX_TTL_MIN_S);
}

static void expired_names_alone_are_asked_again(void **state)
{
	(void)state;
	mx_answer_unref(resolve("brief.example", &route_mx));
	assert_int_equal(asked_ever, 3);
	advance_s(MX_TTL_MIN_S);
	mx_answer_unref(resolve("brief.example", &route_mx));
	assert_int_equal(asked_ever, 4);
}

static void requests_share_questions(void **state)
{
	(void)state;
	struct waiting first = { .request.done = on_answer }, second = first, third = first;

	assert_null(mx_resolve(mx, &first.request, span_text("two.example"), &route_mx));
	assert_null(mx_resolve(mx, &second.request, span_text("two.example"), &route_mx));
	assert_null(mx_resolve(mx, &third.request, span_text("twin.example"), &route_mx));
	assert_null(mx_cached(mx, span_text("two.example"), &route_mx));
	assert_int_equal(asked_ever, 2);
	assert_false(mx_idle(mx));
	pump();
	assert_int_equal(asked_ever, 6); /* two MX; A and AAAA of two hosts */
	assert_int_equal(first.calls + second.calls + third.calls, 3);
	assert_ptr_equal(first.answer, second.answer);
	assert_ptr_not_equal(first.answer, third.answer);
	mx_answer_unref(first.answer);
	mx_answer_unref(second.answer);
	mx_answer_unref(third.answer);
}

static void cancelled_request_is_not_called(void **state)
{
	(void)state;
	struct waiting waiting = { .request.done = on_answer };

	mx_cancel(&waiting.request);
	assert_null(mx_resolve(mx, &waiting.request, span_text("two.example"), &route_mx));
	mx_cancel(&waiting.request);
	mx_cancel(&waiting.request);
	pump();
	assert_int_equal(waiting.calls, 0);
}

/* An owner that asks again from inside `done`, and drops everything meanwhile. */
static void on_answer_ask_again(struct mx_request *request, struct mx_answer *answer)
{
	struct waiting *waiting = container_of(request, struct waiting, request);

	mx_answer_unref(answer);
	waiting->calls++;
	mx_configure(mx, &config);
	if (waiting->calls < 3) {
		answer = mx_resolve(mx, request, span_text("two.example"), &route_mx);
		waiting->calls += answer != NULL;
		mx_answer_unref(answer);
	}
}

static void request_may_ask_again_from_done(void **state)
{
	(void)state;
	struct waiting waiting = { .request.done = on_answer_ask_again }, second = waiting;

	assert_null(mx_resolve(mx, &waiting.request, span_text("two.example"), &route_mx));
	assert_null(mx_resolve(mx, &second.request, span_text("two.example"), &route_mx));
	pump();
	assert_true(waiting.calls >= 2 && second.calls >= 2);
}

static void reload_forgets_answers_and_still_serves_who_waits(void **state)
{
	(void)state;
	struct waiting waiting = { .request.done = on_answer };

	mx_answer_unref(resolve("implicit.example", &route_mx));
	assert_null(mx_resolve(mx, &waiting.request, span_text("two.example"), &route_mx));
	mx_configure(mx, &config);
	assert_null(mx_cached(mx, span_text("implicit.example"), &route_mx));
	pump();
	assert_int_equal(waiting.calls, 1);
	assert_int_equal(waiting.answer->status, MX_OK);
	mx_answer_unref(waiting.answer);
	assert_null(mx_cached(mx, span_text("two.example"), &route_mx));
}

static void same_hosts_have_the_same_fingerprint(void **state)
{
	(void)state;
	struct mx_answer *two = resolve("two.example", &route_mx);
	struct mx_answer *twin = resolve("twin.example", &route_mx);
	struct mx_answer *other = resolve("other.example", &route_mx);

	assert_true(two->fingerprint == twin->fingerprint);
	assert_true(two->fingerprint != other->fingerprint);
	mx_answer_unref(two);
	mx_answer_unref(twin);
	mx_answer_unref(other);
}

static void best_twenty_hosts_are_used(void **state)
{
	(void)state;
	struct waiting waiting = { .request.done = on_answer };

	assert_null(mx_resolve(mx, &waiting.request, span_text("many.example"), &route_mx));
	assert_int_equal(asked_count, 1);
	struct os_dns_query *query = asked[--asked_count];
	query->records = calloc(30, sizeof(*query->records));
	records_alive++;
	query->record_count = 30;
	query->ttl_s = 900;
	for (uint16_t i = 0; i < 30; i++) {
		query->records[i].preference = 100 - i;
		sprintf(query->records[i].name, "%c.example", "ab"[i % 2]);
		if (i < 28)
			sprintf(query->records[i].name, "h%02u.example", i);
	}
	query->op.done(&query->op);
	assert_int_equal(asked_count, 2 * MX_HOSTS_MAX);
	pump();
	assert_int_equal(waiting.calls, 1);
	/* Only the two best of the twenty have addresses. */
	assert_string_equal(render(waiting.answer), "71 b.example:25 192.0.2.2 192.0.2.3; "
						    "72 a.example:25 192.0.2.1 2001:db8::1");
	mx_answer_unref(waiting.answer);
}

static void order_shuffles_equals_only(void **state)
{
	(void)state;
	struct os_address v4[2] = { { .family = AF_INET }, { .family = AF_INET } };
	struct os_address mixed[2] = { { .family = AF_INET6 }, { .family = AF_INET } };
	struct mx_host answer_hosts[] = { { "a", 25, 10, 2, v4 },
					  { "b", 25, 20, 2, mixed },
					  { "c", 25, 20, 1, v4 } };
	struct mx_answer answer = { .host_count = 3, .hosts = answer_hosts };
	struct mx_attempt out[MX_ATTEMPTS_MAX];
	struct prng prng = { 42 };
	uint32_t b_first = 0, a1_first = 0;

	for (int i = 0; i < 1000; i++) {
		assert_int_equal(mx_order(&answer, &prng, out), 5);
		assert_int_equal(out[0].host, 0);
		assert_int_equal(out[1].host, 0);
		assert_int_equal(out[0].address + out[1].address, 1);
		a1_first += out[0].address;
		b_first += out[2].host == 1;
		uint32_t b = out[2].host == 1 ? 2 : 3;
		assert_true(out[b].host == 1 && out[b].address == 0);
		assert_true(out[b + 1].host == 1 && out[b + 1].address == 1);
	}
	assert_in_range(b_first, 400, 600);
	assert_in_range(a1_first, 400, 600);
}

/* ── the cache, and which addresses are public ────────────────────────────────────── */

struct item {
	struct mx_cache_node node;
	uint32_t number;
	bool evicted;
};

static bool item_equal(const struct mx_cache_node *node, const void *key)
{
	return container_of(node, struct item, node)->number == *(const uint32_t *)key;
}

static void item_evicted(struct mx_cache_node *node)
{
	container_of(node, struct item, node)->evicted = true;
}

/* Against a plain array; hashes collide on purpose. */
static void cache_finds_what_it_keeps(void **state)
{
	(void)state;
	static struct item items[500];
	struct mx_cache cache;
	struct prng prng = { 1 };

	assert_true(mx_cache_init(&cache, 100, item_equal, item_evicted));
	for (int round = 0; round < 20000; round++) {
		uint32_t number = (uint32_t)prng_below(&prng, array_count(items));
		struct item *item = &items[number];
		uint64_t hash = number % 50 * 5;
		struct mx_cache_node *found = mx_cache_find(&cache, hash, &number);

		assert_ptr_equal(found, item->node.kept ? &item->node : NULL);
		if (found == NULL) {
			*item = (struct item){ .number = number };
			assert_true(mx_cache_insert(&cache, &item->node, hash));
			mx_cache_idle(&cache, &item->node);
		} else if (prng_below(&prng, 3) == 0) {
			mx_cache_remove(&cache, found);
		}
		assert_true(cache.count <= 100);
	}
	mx_cache_deinit(&cache);
}

static void cache_evicts_the_longest_unused_idle_one(void **state)
{
	(void)state;
	struct item items[4] = {
		{ .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 }
	};
	struct mx_cache cache;

	assert_true(mx_cache_init(&cache, 2, item_equal, item_evicted));
	assert_true(mx_cache_insert(&cache, &items[0].node, 0));
	assert_true(mx_cache_insert(&cache, &items[1].node, 1));
	assert_false(mx_cache_insert(&cache, &items[2].node, 2)); /* both are busy */
	mx_cache_idle(&cache, &items[0].node);
	mx_cache_idle(&cache, &items[1].node);
	mx_cache_idle(&cache, &items[0].node);
	assert_true(mx_cache_insert(&cache, &items[3].node, 3));
	assert_true(items[1].evicted && !items[0].evicted);
	mx_cache_deinit(&cache);
	assert_true(items[0].evicted && !items[3].evicted);
}

static void special_addresses_are_not_public(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool public;
	} rows[] = {
		{ "8.8.8.8", true },
		{ "0.1.2.3", false },
		{ "10.0.0.1", false },
		{ "100.64.0.1", false },
		{ "100.128.0.1", true },
		{ "127.1.2.3", false },
		{ "169.254.1.1", false },
		{ "172.15.0.1", true },
		{ "172.31.255.1", false },
		{ "192.168.0.1", false },
		{ "192.169.0.1", true },
		{ "198.19.0.1", false },
		{ "224.0.0.1", false },
		{ "255.255.255.255", false },
		{ "223.255.255.1", true },
		{ "::", false },
		{ "::1", false },
		{ "::127.0.0.1", false },
		{ "::ffff:8.8.8.8", true },
		{ "::ffff:127.0.0.1", false },
		{ "fe80::1", false },
		{ "fd00::1", false },
		{ "fec0::1", false },
		{ "ff02::1", false },
		{ "2001:4860::1", true },
		{ "64:ff9b::8.8.8.8", true },
		{ "64:ff9b::10.0.0.1", false },
		{ "2002:7f00:1::", false },
		{ "2002:808:808::", true },
		{ "100::1", false },
		{ "64:ff9b:1::1", false },
	};

	for (size_t i = 0; i < array_count(rows); i++) {
		struct os_address address;

		assert_true(os_address_parse(rows[i].text, 25, &address));
		if (mx_address_public(&address) != rows[i].public)
			fail_msg("%s: wrong", rows[i].text);
	}
}

#define WITH_MX(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	static const struct CMUnitTest others[] = {
		WITH_MX(smallest_ttl_counts),
		WITH_MX(negative_ttl_counts),
		WITH_MX(failures_are_kept_shortly),
		WITH_MX(deferred_for_want_of_memory_is_kept_shortly),
		WITH_MX(ttl_is_capped_both_ways),
		WITH_MX(expired_names_alone_are_asked_again),
		WITH_MX(requests_share_questions),
		WITH_MX(cancelled_request_is_not_called),
		WITH_MX(request_may_ask_again_from_done),
		WITH_MX(reload_forgets_answers_and_still_serves_who_waits),
		WITH_MX(same_hosts_have_the_same_fingerprint),
		WITH_MX(best_twenty_hosts_are_used),
		cmocka_unit_test(order_shuffles_equals_only),
		cmocka_unit_test(cache_finds_what_it_keeps),
		cmocka_unit_test(cache_evicts_the_longest_unused_idle_one),
		cmocka_unit_test(special_addresses_are_not_public),
	};
	struct CMUnitTest tests[array_count(domains) + array_count(hosts)];

	for (size_t i = 0; i < array_count(domains); i++)
		tests[i] = (struct CMUnitTest){ domains[i].name, domain_test, setup, teardown,
						(void *)&domains[i] };
	for (size_t i = 0; i < array_count(hosts); i++)
		tests[array_count(domains) + i] =
			(struct CMUnitTest){ hosts[i].name, hosts_test, setup, teardown,
					     (void *)&hosts[i] };
	return cmocka_run_group_tests_name("mx answers", tests, NULL, NULL) +
	       cmocka_run_group_tests_name("mx", others, NULL, NULL);
}
