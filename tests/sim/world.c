/*
 * world - see world.h.
 */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/client.h"
#include "tests/sim/disk.h"
#include "tests/sim/dns.h"
#include "tests/sim/dropper.h"
#include "tests/sim/fiber.h"
#include "tests/sim/peer.h"
#include "tests/sim/signed.h"
#include "tests/sim/weather.h"

enum {
	SMTP_PORT = 25,
	LMTP_PORT = 24,
	TTL_S = 300,
	CHANGED_TTL_S = 5,
	REPORT_DAYS = 30,
	REPORT_DAYS_LEAPT = 365, /* more than the clock leaps by: no report is given up */
};

static struct world_plan *world; /* in the arena */

const struct world_plan *world_plan(void)
{
	assert(world);
	return world;
}

/* ── the plan ─────────────────────────────────────────────────────────────────────── */

static void host_name(char out[static 64], const char *domain, uint32_t host)
{
	snprintf(out, 64, "mx%u.%s", host, domain);
}

static void draw_hosts(struct world_domain *domain, uint32_t count)
{
	bool lmtp = domain->kind == WORLD_LMTP;

	domain->host_count = count;
	for (uint32_t i = 0; (lmtp || domain->kind == WORLD_GOOD) && i < count; i++) {
		struct peer_traits traits;
		char name[64];

		host_name(name, domain->name, i);
		if (lmtp)
			peer_traits_draw_lmtp(&traits, name);
		else
			peer_traits_draw(&traits, name);
		domain->hosts[i] = peer_create(&traits);
	}
}

static void draw_domain(struct world_domain *domain, uint32_t index)
{
	uint64_t lot = sim_below(20);

	snprintf(domain->name, sizeof(domain->name), "d%u.test", index);
	domain->kind = index == 0 || lot < 9 ? WORLD_GOOD
		       : lot < 12	     ? WORLD_LMTP
		       : lot < 15	     ? WORLD_SHARED
		       : lot < 18	     ? WORLD_DEAD
		       : lot < 19	     ? WORLD_NULL_MX
					     : WORLD_MISSING;
	if (sim_below(3) == 0)
		domain->vanishing = (enum world_vanishing)sim_below(WORLD_VANISHING_COUNT);
	draw_hosts(domain, (uint32_t)sim_between(1, WORLD_HOSTS_MAX));
}

static void draw_delivery(void)
{
	static const uint32_t depths[] = { 1, 2, 8, 32 };

	world->stream_depth = depths[sim_below(array_count(depths))];
	world->connections_max = (uint32_t)sim_between(1, 8);
}

void world_draw(void)
{
	world = arena_alloc(sizeof(*world));
	world->domain_count = weather()->domains;
	for (uint32_t i = 0; i < world->domain_count; i++)
		draw_domain(&world->domains[i], i);
	world->senders = (struct world_domain){ .name = WORLD_SENDER_DOMAIN, .kind = WORLD_GOOD };
	draw_hosts(&world->senders, 1);
	world->expire_s = (uint32_t)sim_between(1800, 7200);
	world->warn_s = sim_below(3) == 0 ? 0 : (uint32_t)sim_between(20, world->expire_s / 2);
	world->outcome_sync_ms = sim_below(2) == 0 ? 5 : (uint32_t)sim_between(1, 200);
	world->evacuate_after_s = sim_below(2) == 0 ? 1 : (uint32_t)sim_between(1, 60);
	world->retry_cap_s = (uint32_t)sim_between(20, 120);
	draw_delivery();
	world->key_count = world->expire_s % (SIGNED_KEYS_MAX + 1);
}

/* ── the configuration ────────────────────────────────────────────────────────────── */

static int write_routes(char *text, size_t size)
{
	int bytes = 0;

	for (uint32_t i = 0; i < world->domain_count; i++) {
		const struct world_domain *domain = &world->domains[i];

		if (domain->kind != WORLD_LMTP)
			continue;
		bytes += snprintf(text + bytes, size - (size_t)bytes,
				  "route \"%s\" {\nlmtp = true\nhosts = {", domain->name);
		for (uint32_t host = 0; host < domain->host_count; host++)
			bytes += snprintf(text + bytes, size - (size_t)bytes, "%s\"mx%u.%s:%u\"",
					  host > 0 ? ", " : "", host, domain->name, LMTP_PORT);
		bytes += snprintf(text + bytes, size - (size_t)bytes, "}\n}\n");
	}
	return bytes;
}

static void write_configuration(void)
{
	static const char *const signing[] = { WORLD_SENDER_DOMAIN, WORLD_RELAY };
	char text[4096];
	int bytes = snprintf(
		text, sizeof(text),
		"hostname = \"" WORLD_RELAY "\"\n"
		"listen = {\"127.0.0.1:25\"}\n"
		"spool = \"/spool\"\n"
		"delivery_log = \"/log/delivery.log\"\n"
		"workers = %u\n"
		"node = 7\n"
		"drain = \"5s\"\n"
		"session_idle = \"60s\"\n"
		"session_block = \"60s\"\n"
		"memory_bytes = \"16M\"\n"
		"outcome_sync = \"%ums\"\n"
		"evacuate_after = \"%us\"\n"
		"segment_bytes = \"1M\"\n"
		"journal_bytes = \"1M\"\n"
		"dns { ttl_failed = \"5s\" }\n"
		"delivery {\n"
		"private_hosts = true\n"
		"stream_depth = %u\n"
		"connections_max = %u\n"
		"connect = \"5s\"\n"
		"retry_first = \"2s\"\n"
		"retry_base = \"5s\"\n"
		"retry_cap = \"%us\"\n"
		"probe = \"2s\"\n"
		"expire = \"%us\"\n"
		"warn = \"%us\"\n"
		"report_expire = \"%ud\"\n"
		"timeouts { greeting = \"20s\" hello = \"20s\" mail = \"20s\" rcpt = \"20s\" "
		"data = \"20s\" block = \"20s\" final = \"60s\" quit = \"2s\" }\n"
		"}\n",
		weather()->workers[weather_life() % array_count(weather()->workers)],
		world->outcome_sync_ms, world->evacuate_after_s, world->stream_depth,
		world->connections_max, world->retry_cap_s, world->expire_s, world->warn_s,
		weather()->clock_leaps > 0 ? REPORT_DAYS_LEAPT : REPORT_DAYS);

	bytes += write_routes(text + bytes, sizeof(text) - (size_t)bytes);
	bytes += signed_configure(world->key_count, signing, array_count(signing), text + bytes,
				  sizeof(text) - (size_t)bytes);
	assert(bytes > 0 && (size_t)bytes < sizeof(text));
	disk_put("/etc/stafette.conf", text, (size_t)bytes);
}

void world_reconfigure(void)
{
	draw_delivery();
	write_configuration();
}

/* ── names and hosts ──────────────────────────────────────────────────────────────── */

static struct os_address host_address(uint32_t domain, uint32_t host, uint16_t port)
{
	struct os_address address;
	char text[OS_ADDRESS_TEXT_MAX];

	snprintf(text, sizeof(text), "10.0.%u.%u", domain, host + 1);
	os_address_parse(text, port, &address);
	return address;
}

static void answer(const char *name, enum os_dns_type type, const struct os_dns_record *records,
		   uint32_t count)
{
	struct sim_dns_answer all = {
		.status = OS_DNS_OK,
		.ttl_s = weather()->dns_changes > 0 ? CHANGED_TTL_S : TTL_S,
		.record_count = count,
		.records = records,
	};

	sim_dns_set(name, type, &all);
}

/* One more, for a while. */
static void answer_also(const char *name, enum os_dns_type type,
			const struct os_dns_record *records, uint32_t count)
{
	struct sim_dns_answer other = { .status = OS_DNS_OK,
					.ttl_s = CHANGED_TTL_S,
					.record_count = count,
					.records = records };

	sim_dns_also(name, type, &other);
}

static void mx_records(const struct world_domain *owner,
		       struct os_dns_record records[static WORLD_HOSTS_MAX])
{
	memset(records, 0, WORLD_HOSTS_MAX * sizeof(*records));
	for (uint32_t i = 0; i < owner->host_count; i++) {
		records[i].preference = (uint16_t)(10 + 10 * (i / 2));
		host_name(records[i].name, owner->name, i);
	}
}

/* Who takes the mail of `domain` when it moves: any host takes any. */
static const struct world_domain *sister_of(const struct world_domain *domain)
{
	for (uint32_t i = 0; i < world->domain_count; i++)
		if (world->domains[i].kind == WORLD_GOOD && &world->domains[i] != domain)
			return &world->domains[i];
	return &world->senders;
}

static const struct os_dns_record null_mx = { .preference = 0, .name = "" };

static void answer_vanished(struct world_domain *domain)
{
	struct sim_dns_answer gone = {
		.status = domain->vanishing == WORLD_VANISHES	? OS_DNS_NXDOMAIN
			  : domain->vanishing == WORLD_LOSES_MX ? OS_DNS_NODATA
								: OS_DNS_OK,
		.ttl_s = CHANGED_TTL_S,
		.first_ns = &domain->vanished_ns,
	};

	if (gone.status == OS_DNS_OK) {
		gone.records = &null_mx;
		gone.record_count = 1;
	}
	sim_dns_also(domain->name, OS_DNS_MX, &gone);
}

/* The MX records of `domain` point to the hosts of `owner`; at times to fewer of them, to those of
 * another domain, or to none. */
static void answer_mx(struct world_domain *domain, const struct world_domain *owner)
{
	const struct world_domain *sister = sister_of(owner);
	struct os_dns_record records[WORLD_HOSTS_MAX];

	mx_records(owner, records);
	answer(domain->name, OS_DNS_MX, records, owner->host_count);
	answer_also(domain->name, OS_DNS_MX, records, 1);
	mx_records(sister, records);
	answer_also(domain->name, OS_DNS_MX, records, sister->host_count);
	if (domain->vanishing != WORLD_STAYS)
		answer_vanished(domain);
}

/* At times a host's name leads to the next one; that of the last to nobody. */
static void answer_address(const struct world_domain *domain, uint32_t index, uint32_t host,
			   uint16_t port)
{
	struct os_dns_record own = { .address = host_address(index, host, port) };
	struct os_dns_record next = { .address = host_address(index, host + 1, port) };
	char name[64];

	host_name(name, domain->name, host);
	answer(name, OS_DNS_A, &own, 1);
	answer_also(name, OS_DNS_A, &next, 1);
	if (domain->hosts[host])
		peer_open(domain->hosts[host], &own.address);
}

static void start_hosts(struct world_domain *domain, uint32_t index)
{
	uint16_t port = domain->kind == WORLD_LMTP ? LMTP_PORT : SMTP_PORT;

	if (domain->kind != WORLD_LMTP)
		answer_mx(domain, domain);
	for (uint32_t i = 0; i < domain->host_count; i++)
		answer_address(domain, index, i, port);
}

static void start_domain(uint32_t index)
{
	struct world_domain *domain = &world->domains[index];

	switch (domain->kind) {
	case WORLD_GOOD:
	case WORLD_LMTP:
	case WORLD_DEAD:
		start_hosts(domain, index);
		break;
	case WORLD_SHARED:
		answer_mx(domain, &world->domains[0]);
		break;
	case WORLD_NULL_MX:
		answer(domain->name, OS_DNS_MX, &null_mx, 1);
		break;
	case WORLD_MISSING:
		break;
	}
}

void world_start(void)
{
	write_configuration();
	for (uint32_t i = 0; i < world->domain_count; i++)
		start_domain(i);
	start_hosts(&world->senders, WORLD_DOMAINS_MAX);
	clients_start();
	dropper_start();
}
