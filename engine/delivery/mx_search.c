/*
 * mx_search - see mx_search.h.
 *
 * The judgement, once every question is answered:
 *
 *   cut    candidates that are ourselves, and all of the same or a worse preference
 *   keep   of the others, those with a usable address        ──► some: MX_OK
 *   none:  nothing was left after the cut                    ──► 5.4.6
 *          a question about one of them failed               ──► 4.4.3, deferred
 *          they have no address, or only refused ones        ──► 5.4.4
 */
#include "engine/delivery/mx_search.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "os/check.h"

enum {
	ENHANCED_NO_DOMAIN = 50102,
	ENHANCED_NULL_MX = 50110,
	ENHANCED_NO_ADDRESS = 50404,
	ENHANCED_LOOP = 50406,
	ENHANCED_DNS = 40403,
	ENHANCED_CONFIGURED = 40305, /* what the operator wrote is never the sender's fault */
};

enum { LOOKUPS_MAX = 2 }; /* A and AAAA */

struct search;

struct pending {
	struct mx_waiter waiter;
	struct search *search;
};

struct candidate {
	char name[MX_NAMES_NAME_BYTES];
	uint16_t port, preference;
	struct os_address fixed; /* AF_UNSPEC: the lookups tell */
	struct mx_lookup *lookups[LOOKUPS_MAX];
	struct pending pending[LOOKUPS_MAX];
	/* Judged: */
	bool self, failed, refused;
	uint32_t address_count;
};

struct search {
	struct mx_names *names;
	const struct mx_self *self;
	void (*done)(void *context, struct mx_answer *answer);
	void *context;
	char domain[MX_NAMES_NAME_BYTES];
	char subject[MX_NAMES_NAME_BYTES + 16]; /* of failure texts */
	/* From the route: */
	bool configured; /* hosts of the configuration: no MX, no filter, no final failure */
	bool private_hosts;
	uint16_t port;
	enum os_dns_type families[LOOKUPS_MAX];
	uint32_t family_count;

	uint32_t waiting; /* questions not answered */
	struct mx_lookup *mx;
	struct pending mx_pending;
	uint64_t fingerprint;
	struct candidate *candidates; /* MX_HOSTS_MAX */
	uint32_t candidate_count;
};

/* ── answers ──────────────────────────────────────────────────────────────────────── */

static struct os_mono after_s(const struct search *search, uint32_t seconds)
{
	return os_mono_add_ms(os_loop_mono(search->names->loop), UINT64_C(1000) * seconds);
}

/* When the first of the answers behind it runs out. */
static struct os_mono search_until(const struct search *search)
{
	struct os_mono until = after_s(search, search->names->ttl_max_s);

	if (search->mx != NULL && search->mx->until.ns < until.ns)
		until = search->mx->until;
	for (uint32_t i = 0; i < search->candidate_count; i++) {
		for (uint32_t j = 0; j < LOOKUPS_MAX; j++) {
			const struct mx_lookup *lookup = search->candidates[i].lookups[j];

			if (lookup != NULL && lookup->until.ns < until.ns)
				until = lookup->until;
		}
	}
	return until;
}

static struct mx_answer *answer_failure(const struct search *search, uint16_t enhanced,
					const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static struct mx_answer *answer_failure(const struct search *search, uint16_t enhanced,
					const char *format, ...)
{
	struct mx_answer *answer = calloc(1, sizeof(*answer) + MX_TEXT_MAX);
	char *text = (char *)(answer + 1);
	struct os_mono soon = after_s(search, MX_TTL_MIN_S);
	va_list arguments;

	if (answer == NULL)
		return mx_names_no_memory(search->names);
	va_start(arguments, format);
	vsnprintf(text, MX_TEXT_MAX, format, arguments);
	va_end(arguments);
	*answer = (struct mx_answer){
		.status = enhanced / 10000 == 4 ? MX_DEFER : MX_FAIL,
		.until = search_until(search),
		.enhanced = enhanced,
		.text = text,
		.references = 1,
	};
	if (answer->until.ns < soon.ns)
		answer->until = soon;
	return answer;
}

/* ── judging the candidates ───────────────────────────────────────────────────────── */

/* Calls `each` for every address of a candidate, preferred family first, with its port. */
static void each_address(const struct search *search, struct candidate *candidate,
			 void (*each)(const struct search *search, struct candidate *candidate,
				      const struct os_address *address, void *context),
			 void *context)
{
	if (candidate->fixed.family != AF_UNSPEC) {
		each(search, candidate, &candidate->fixed, context);
		return;
	}
	for (uint32_t i = 0; i < search->family_count; i++) {
		const struct mx_lookup *lookup = candidate->lookups[i];

		for (uint32_t j = 0; j < lookup->count; j++) {
			struct os_address address = lookup->addresses[j];

			address.port = candidate->port;
			each(search, candidate, &address, context);
		}
	}
}

static bool address_usable(const struct search *search, const struct os_address *address)
{
	return search->configured || search->private_hosts || mx_address_public(address);
}

static void judge_address(const struct search *search, struct candidate *candidate,
			  const struct os_address *address, void *context)
{
	(void)context;
	if (mx_self_address(search->self, address))
		candidate->self = true;
	else if (!address_usable(search, address))
		candidate->refused = true;
	else if (candidate->address_count < MX_ADDRESSES_MAX)
		candidate->address_count++;
}

static void judge_candidate(const struct search *search, struct candidate *candidate)
{
	/* A configured host may well be another program on this machine. */
	candidate->self = mx_self_name(search->self, candidate->name) &&
			  (!search->configured || mx_self_port(search->self, candidate->port));
	for (uint32_t i = 0; i < LOOKUPS_MAX; i++) {
		const struct mx_lookup *lookup = candidate->lookups[i];

		candidate->failed |= lookup != NULL && lookup->status == OS_DNS_FAILED;
	}
	each_address(search, candidate, judge_address, NULL);
}

/* How many candidates are better than ourselves; they are sorted. */
static uint32_t cut_ourselves(const struct search *search)
{
	uint32_t left = search->candidate_count;

	for (uint32_t i = 0; i < search->candidate_count; i++) {
		if (search->candidates[i].self) {
			left = i;
			break;
		}
	}
	while (left < search->candidate_count && left > 0 &&
	       search->candidates[left - 1].preference == search->candidates[left].preference)
		left--;
	return left;
}

static struct mx_answer *answer_nothing_usable(const struct search *search, uint32_t left)
{
	const struct candidate *failed = NULL, *refused = NULL;
	bool configured = search->configured;

	for (uint32_t i = left; i-- > 0;) {
		if (search->candidates[i].failed)
			failed = &search->candidates[i];
		if (search->candidates[i].refused)
			refused = &search->candidates[i];
	}
	if (left == 0)
		return answer_failure(search, configured ? ENHANCED_CONFIGURED : ENHANCED_LOOP,
				      "mail for %s loops back to us: its best mail host is %.255s",
				      search->subject, search->candidates[0].name);
	if (failed != NULL)
		return answer_failure(search, ENHANCED_DNS,
				      "the DNS gave no answer about %.255s, a mail host of %s",
				      failed->name, search->subject);
	if (configured)
		return answer_failure(search, ENHANCED_CONFIGURED,
				      "no host of %s has an address (%.255s)", search->subject,
				      search->candidates[0].name);
	if (refused != NULL)
		return answer_failure(search, ENHANCED_NO_ADDRESS,
				      "the mail hosts of %s (%.255s) have only private or "
				      "reserved addresses",
				      search->subject, refused->name);
	return answer_failure(search, ENHANCED_NO_ADDRESS, "no mail host of %s has an address",
			      search->subject);
}

/* ── the answer with hosts: one block, filled from the front ─────────────────────── */

static void write_address(const struct search *search, struct candidate *candidate,
			  const struct os_address *address, void *context)
{
	struct os_address **next = context;

	if (candidate->address_count == MX_ADDRESSES_MAX || !address_usable(search, address))
		return;
	*(*next)++ = *address;
	candidate->address_count++;
}

/* Room for the hosts that have addresses; NULL: none has. Without memory a deferral. */
static struct mx_answer *answer_alloc(const struct search *search, uint32_t left)
{
	uint32_t hosts = 0, addresses = 0;
	size_t name_bytes = 0;

	for (uint32_t i = 0; i < left; i++) {
		const struct candidate *candidate = &search->candidates[i];

		if (candidate->address_count == 0)
			continue;
		hosts++;
		addresses += candidate->address_count;
		name_bytes += strlen(candidate->name) + 1;
	}
	if (hosts == 0)
		return NULL;

	struct mx_answer *answer = malloc(sizeof(*answer) + hosts * sizeof(struct mx_host) +
					  addresses * sizeof(struct os_address) + name_bytes);
	if (answer == NULL)
		return mx_names_no_memory(search->names);
	*answer = (struct mx_answer){ .status = MX_OK,
				      .until = search_until(search),
				      .fingerprint = search->fingerprint,
				      .host_count = hosts,
				      .hosts = (struct mx_host *)(answer + 1),
				      .references = 1 };
	return answer;
}

static void answer_fill(const struct search *search, uint32_t left, struct mx_answer *answer)
{
	struct mx_host *host = (struct mx_host *)(answer + 1);
	struct os_address *address = (struct os_address *)(host + answer->host_count);
	uint32_t total = 0;

	for (uint32_t i = 0; i < left; i++)
		total += search->candidates[i].address_count;
	char *name = (char *)(address + total);
	for (uint32_t i = 0; i < left; i++) {
		struct candidate *candidate = &search->candidates[i];
		const struct os_address *first = address;

		if (candidate->address_count == 0)
			continue;
		candidate->address_count = 0;
		each_address(search, candidate, write_address, &address);
		*host++ = (struct mx_host){ .name = strcpy(name, candidate->name),
					    .port = candidate->port,
					    .preference = candidate->preference,
					    .address_count = (uint16_t)(address - first),
					    .addresses = first };
		name += strlen(name) + 1;
	}
	assert(host == answer->hosts + answer->host_count);
}

static struct mx_answer *judge(struct search *search)
{
	for (uint32_t i = 0; i < search->candidate_count; i++)
		judge_candidate(search, &search->candidates[i]);

	uint32_t left = cut_ourselves(search);
	struct mx_answer *answer = answer_alloc(search, left);

	if (answer == NULL)
		return answer_nothing_usable(search, left);
	if (answer->status == MX_OK)
		answer_fill(search, left, answer);
	return answer;
}

/* ── candidates ───────────────────────────────────────────────────────────────────── */

static void add_candidate(struct search *search, const char *name, uint16_t port,
			  uint16_t preference)
{
	/* In sorted order, so the same set gives the same number. */
	search->fingerprint = XXH3_64bits_withSeed(
		name, strlen(name), search->fingerprint ^ ((uint64_t)port << 16) ^ preference);
	if (search->fingerprint == 0)
		search->fingerprint = 1;
	if (search->candidate_count == MX_HOSTS_MAX)
		return;

	struct candidate *candidate = &search->candidates[search->candidate_count++];
	snprintf(candidate->name, sizeof(candidate->name), "%s", name);
	candidate->port = port;
	candidate->preference = preference;
}

/* Our route's hosts, in their order. */
static void add_configured(struct search *search, const struct config_route *route)
{
	for (uint32_t i = 0; i < route->host_count; i++) {
		const struct config_host *host = &route->hosts[i];
		uint32_t at = search->candidate_count;

		add_candidate(search, host->name, host->port, (uint16_t)(i < 65535 ? i : 65535));
		if (at == search->candidate_count)
			continue;
		struct candidate *candidate = &search->candidates[at];
		if (os_address_parse(candidate->name, host->port, &candidate->fixed))
			continue;
		for (char *c = candidate->name; *c != '\0'; c++) {
			if (*c >= 'A' && *c <= 'Z')
				*c += 'a' - 'A';
		}
	}
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]"; false: no such literal. */
static bool add_literal(struct search *search)
{
	char text[MX_NAMES_NAME_BYTES];
	size_t len = strlen(search->domain);
	struct os_address address;
	bool ip6 = span_starts_nocase(span_text(search->domain), "[ipv6:");
	size_t skip = ip6 ? 6 : 1;

	if (len < skip + 2 || search->domain[len - 1] != ']')
		return false;
	memcpy(text, search->domain + skip, len - skip - 1);
	text[len - skip - 1] = '\0';
	if (strchr(text, '%') != NULL || !os_address_parse(text, search->port, &address) ||
	    address.family != (ip6 ? AF_INET6 : AF_INET))
		return false;
	add_candidate(search, search->domain, search->port, 0);
	search->candidates[0].fixed = address;
	return true;
}

/* Labels of letters, digits, '-' and '_' that the DNS can be asked for. */
static bool domain_sound(const char *domain)
{
	size_t label = 0;
	const char *at = domain;

	for (; *at != '\0'; at++) {
		bool octet_sound = (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') ||
				   *at == '-' || *at == '_';

		if (*at == '.' ? label == 0 : (!octet_sound || label == 63))
			return false;
		label = *at == '.' ? 0 : label + 1;
	}
	return label > 0 && at - domain <= 253;
}

/* What the MX answer says: candidates, or an answer that is final or none. */
static struct mx_answer *read_mx(struct search *search)
{
	const struct mx_lookup *mx = search->mx;

	switch (mx->status) {
	case OS_DNS_FAILED:
		return answer_failure(search, ENHANCED_DNS,
				      "the DNS gave no answer about the mail hosts of %s",
				      search->subject);
	case OS_DNS_NXDOMAIN:
		return answer_failure(search, ENHANCED_NO_DOMAIN, "the domain %s does not exist",
				      search->subject);
	case OS_DNS_NODATA:
		add_candidate(search, search->domain, search->port, 0);
		return NULL;
	case OS_DNS_OK:
		break;
	}
	for (uint32_t i = 0; i < mx->count; i++) {
		/* "." among others says nothing. */
		if (mx->targets[i].name[0] != '\0')
			add_candidate(search, mx->targets[i].name, search->port,
				      mx->targets[i].preference);
	}
	if (search->candidate_count == 0)
		return answer_failure(search, ENHANCED_NULL_MX, "the domain %s accepts no mail",
				      search->subject);
	return NULL;
}

/* ── the steps ────────────────────────────────────────────────────────────────────── */

static struct search *search_create(void)
{
	struct search *search = calloc(1, sizeof(*search));

	if (search == NULL)
		return NULL;
	search->candidates = calloc(MX_HOSTS_MAX, sizeof(*search->candidates));
	if (search->candidates != NULL)
		return search;
	free(search);
	return NULL;
}

static void search_destroy(struct search *search)
{
	for (uint32_t i = 0; i < search->candidate_count; i++) {
		for (uint32_t j = 0; j < LOOKUPS_MAX; j++)
			mx_names_put(search->candidates[i].lookups[j]);
	}
	mx_names_put(search->mx);
	free(search->candidates);
	free(search);
}

static struct mx_lookup *search_ask(struct search *search, struct pending *pending,
				    const char *name, enum os_dns_type type,
				    void (*known)(struct mx_waiter *waiter))
{
	struct mx_lookup *lookup;

	pending->search = search;
	pending->waiter.known = known;
	lookup = mx_names_get(search->names, name, type, &pending->waiter);
	search->waiting += !lookup->known;
	return lookup;
}

static void search_finish(struct search *search, struct mx_answer *answer)
{
	search->done(search->context, answer);
	search_destroy(search);
}

static void on_address(struct mx_waiter *waiter)
{
	struct search *search = container_of(waiter, struct pending, waiter)->search;

	assert(search->waiting > 0);
	if (--search->waiting == 0)
		search_finish(search, judge(search));
}

/* The answer if every address is known already; else NULL. */
static struct mx_answer *ask_addresses(struct search *search)
{
	for (uint32_t i = 0; i < search->candidate_count; i++) {
		struct candidate *candidate = &search->candidates[i];

		if (candidate->fixed.family != AF_UNSPEC)
			continue;
		for (uint32_t j = 0; j < search->family_count; j++)
			candidate->lookups[j] =
				search_ask(search, &candidate->pending[j], candidate->name,
					   search->families[j], on_address);
	}
	return search->waiting == 0 ? judge(search) : NULL;
}

static struct mx_answer *after_mx(struct search *search)
{
	struct mx_answer *answer = read_mx(search);

	return answer != NULL ? answer : ask_addresses(search);
}

static void on_mx(struct mx_waiter *waiter)
{
	struct search *search = container_of(waiter, struct pending, waiter)->search;

	assert(search->waiting == 1);
	search->waiting = 0;

	struct mx_answer *answer = after_mx(search);
	if (answer != NULL)
		search_finish(search, answer);
}

static struct mx_answer *search_step(struct search *search, const struct config_route *route)
{
	if (search->configured) {
		add_configured(search, route);
		return ask_addresses(search);
	}
	if (search->domain[0] == '[') {
		if (add_literal(search))
			return ask_addresses(search);
		return answer_failure(search, ENHANCED_NO_DOMAIN,
				      "the address literal names no mail host");
	}
	if (search->domain[0] == '\0')
		return answer_failure(search, ENHANCED_NO_DOMAIN, "the address has no domain");
	if (!domain_sound(search->domain))
		return answer_failure(search, ENHANCED_NO_DOMAIN,
				      "the address has no sound domain name");
	search->mx = search_ask(search, &search->mx_pending, search->domain, OS_DNS_MX, on_mx);
	return search->waiting == 0 ? after_mx(search) : NULL;
}

static void set_policy(struct search *search, const struct config_route *route)
{
	const struct config_delivery *delivery = &route->delivery;

	assert(route->action == CONFIG_ROUTE_MX || route->action == CONFIG_ROUTE_HOSTS);
	search->configured = route->action == CONFIG_ROUTE_HOSTS;
	search->private_hosts = delivery->private_hosts;
	search->port = delivery->port;
	search->family_count = 2;
	switch (delivery->families) {
	case CONFIG_IPV4_ONLY:
		search->family_count = 1; /* fall through */
	case CONFIG_IPV4_FIRST:
		search->families[0] = OS_DNS_A;
		search->families[1] = OS_DNS_AAAA;
		break;
	case CONFIG_IPV6_ONLY:
		search->family_count = 1; /* fall through */
	case CONFIG_IPV6_FIRST:
		search->families[0] = OS_DNS_AAAA;
		search->families[1] = OS_DNS_A;
		break;
	}
	if (search->configured)
		snprintf(search->subject, sizeof(search->subject), "route \"%s\"", route->pattern);
	else
		snprintf(search->subject, sizeof(search->subject), "%s", search->domain);
}

struct mx_answer *mx_search_begin(struct mx_names *names, const struct mx_self *self,
				  const char *domain, const struct config_route *route,
				  void (*done)(void *context, struct mx_answer *answer),
				  void *context)
{
	struct search *search = search_create();

	if (search == NULL)
		return mx_names_no_memory(names);
	assert(strlen(domain) < sizeof(search->domain));
	search->names = names;
	search->self = self;
	search->done = done;
	search->context = context;
	strcpy(search->domain, domain);
	set_policy(search, route);

	struct mx_answer *answer = search_step(search, route);
	if (answer != NULL)
		search_destroy(search);
	return answer;
}
