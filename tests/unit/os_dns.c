/*
 * DNS: packets made by hand, and the resolver thread against a tiny server of our own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/dns_answer.h"
#include "os/os.h"

/* ── packets ──────────────────────────────────────────────────────────────────────── */

enum { QR = 0x8000, AA = 0x0400, TC = 0x0200, RA = 0x0080, AD = 0x0020 };
enum { SERVFAIL = 2, NXDOMAIN = 3 };
enum { NS = 2, CNAME = 5, SOA = 6 };

struct packet {
	unsigned char bytes[4096];
	size_t length;
};

static void put16(struct packet *packet, unsigned value)
{
	packet->bytes[packet->length++] = (unsigned char)(value >> 8);
	packet->bytes[packet->length++] = (unsigned char)value;
}

static void put32(struct packet *packet, uint32_t value)
{
	put16(packet, value >> 16);
	put16(packet, value & 0xffff);
}

static void put_name(struct packet *packet, const char *name)
{
	while (*name != '\0') {
		size_t label = strcspn(name, ".");

		packet->bytes[packet->length++] = (unsigned char)label;
		memcpy(packet->bytes + packet->length, name, label);
		packet->length += label;
		name += label + (name[label] == '.');
	}
	packet->bytes[packet->length++] = 0;
}

/* One record: the data are a name, an address or an MX, as the type wants. */
struct entry {
	const char *owner; /* NULL: no more */
	int type;
	uint32_t ttl_s;
	const char *data;
	unsigned number; /* MX: preference; SOA: minimum; TXT, TLSA: octets cut off the end */
};

static void put_entry(struct packet *packet, const struct entry *entry)
{
	size_t length_at;

	put_name(packet, entry->owner);
	put16(packet, (unsigned)entry->type);
	put16(packet, 1);
	put32(packet, entry->ttl_s);
	length_at = packet->length;
	put16(packet, 0);
	switch (entry->type) {
	case OS_DNS_A:
		packet->length +=
			4 * (size_t)inet_pton(AF_INET, entry->data, packet->bytes + packet->length);
		break;
	case OS_DNS_AAAA:
		packet->length += 16 * (size_t)inet_pton(AF_INET6, entry->data,
							 packet->bytes + packet->length);
		break;
	case OS_DNS_MX:
		put16(packet, entry->number);
		put_name(packet, entry->data);
		break;
	case SOA:
		put_name(packet, entry->data);
		put_name(packet, "hostmaster");
		for (int i = 0; i < 4; i++)
			put32(packet, 1);
		put32(packet, entry->number);
		break;
	case OS_DNS_TXT: /* a string for each label, and an empty one */
	case OS_DNS_TLSA:
		put_name(packet, entry->data);
		packet->length -= entry->number;
		break;
	default:
		put_name(packet, entry->data);
	}
	packet->bytes[length_at] = (unsigned char)((packet->length - length_at - 2) >> 8);
	packet->bytes[length_at + 1] = (unsigned char)(packet->length - length_at - 2);
}

#define ENTRIES_MAX 5

struct response {
	unsigned flags;
	struct entry answer[ENTRIES_MAX], authority[ENTRIES_MAX];
};

static void packet_make(struct packet *packet, unsigned id, const char *name, int type,
			const struct response *response)
{
	unsigned counts[2] = { 0, 0 };

	while (counts[0] < ENTRIES_MAX && response->answer[counts[0]].owner != NULL)
		counts[0]++;
	while (counts[1] < ENTRIES_MAX && response->authority[counts[1]].owner != NULL)
		counts[1]++;
	packet->length = 0;
	put16(packet, id);
	put16(packet, response->flags);
	put16(packet, 1);
	put16(packet, counts[0]);
	put16(packet, counts[1]);
	put16(packet, 0);
	put_name(packet, name);
	put16(packet, (unsigned)type);
	put16(packet, 1);
	for (unsigned i = 0; i < counts[0]; i++)
		put_entry(packet, &response->answer[i]);
	for (unsigned i = 0; i < counts[1]; i++)
		put_entry(packet, &response->authority[i]);
}

/* ── the table ────────────────────────────────────────────────────────────────────── */

static const struct answer_case {
	const char *name;
	const char *question;
	enum os_dns_type type;
	struct response response;
	enum os_dns_status status;
	uint32_t ttl_s;
	bool secure;
	const char *records; /* "10 mx.a.test;" or "192.0.2.1;" for each, in order */
} answer_cases[] = {
	{ "one address",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA, { { "a.test", OS_DNS_A, 300, "192.0.2.1", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  300,
	  false,
	  "192.0.2.1;" },
	{ "the smallest TTL counts",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "a.test", OS_DNS_A, 300, "192.0.2.1", 0 },
	      { "a.test", OS_DNS_A, 100, "192.0.2.2", 0 } },
	    { { 0 } } },
	  OS_DNS_OK,
	  100,
	  false,
	  "192.0.2.1;192.0.2.2;" },
	{ "a TTL with its highest bit set is zero",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA, { { "a.test", OS_DNS_A, 0x80000001, "192.0.2.1", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  0,
	  false,
	  "192.0.2.1;" },
	{ "IPv6",
	  "a.test",
	  OS_DNS_AAAA,
	  { QR | RA, { { "a.test", OS_DNS_AAAA, 5, "2001:db8::1", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  5,
	  false,
	  "2001:db8::1;" },
	{ "MX names are lower case without final dot",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA,
	    { { "A.Test", OS_DNS_MX, 60, "MX1.A.test", 10 },
	      { "a.test", OS_DNS_MX, 70, "mx2.a.test", 20 } },
	    { { 0 } } },
	  OS_DNS_OK,
	  60,
	  false,
	  "10 mx1.a.test;20 mx2.a.test;" },
	{ "null MX is one record with no name",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA, { { "a.test", OS_DNS_MX, 60, "", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  60,
	  false,
	  "0 ;" },
	{ "the AD bit",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA | AD, { { "a.test", OS_DNS_A, 300, "192.0.2.1", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  300,
	  true,
	  "192.0.2.1;" },
	{ "a CNAME is followed, with the chain's smallest TTL",
	  "w.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "w.test", CNAME, 20, "B.test", 0 },
	      { "b.test", CNAME, 90, "c.test", 0 },
	      { "c.test", OS_DNS_A, 300, "192.0.2.3", 0 } },
	    { { 0 } } },
	  OS_DNS_OK,
	  20,
	  false,
	  "192.0.2.3;" },
	{ "a CNAME chain out of order",
	  "w.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "c.test", OS_DNS_A, 300, "192.0.2.3", 0 },
	      { "b.test", CNAME, 90, "c.test", 0 },
	      { "w.test", CNAME, 200, "b.test", 0 } },
	    { { 0 } } },
	  OS_DNS_OK,
	  90,
	  false,
	  "192.0.2.3;" },
	{ "a loop of CNAMEs",
	  "w.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "w.test", CNAME, 20, "b.test", 0 }, { "b.test", CNAME, 90, "w.test", 0 } },
	    { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "records of another name do not count",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "evil.test", OS_DNS_A, 300, "192.0.2.66", 0 } },
	    { { "test", SOA, 50, "ns.test", 40 } } },
	  OS_DNS_NODATA,
	  40,
	  false,
	  "" },
	{ "no data: the SOA's minimum",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA, { { 0 } }, { { "test", SOA, 900, "ns.test", 60 } } },
	  OS_DNS_NODATA,
	  60,
	  false,
	  "" },
	{ "no data: the SOA's TTL, if smaller",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA | AD, { { 0 } }, { { "test", SOA, 30, "ns.test", 60 } } },
	  OS_DNS_NODATA,
	  30,
	  true,
	  "" },
	{ "no data without SOA is not to be kept",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA, { { 0 } }, { { 0 } } },
	  OS_DNS_NODATA,
	  0,
	  false,
	  "" },
	{ "no data behind a CNAME",
	  "w.test",
	  OS_DNS_MX,
	  { QR | RA,
	    { { "w.test", CNAME, 20, "b.test", 0 } },
	    { { "test", SOA, 30, "ns.test", 60 } } },
	  OS_DNS_NODATA,
	  20,
	  false,
	  "" },
	{ "no such name",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA | NXDOMAIN, { { 0 } }, { { "test", SOA, 900, "ns.test", 60 } } },
	  OS_DNS_NXDOMAIN,
	  60,
	  false,
	  "" },
	{ "a CNAME to no such name",
	  "w.test",
	  OS_DNS_MX,
	  { QR | RA | NXDOMAIN,
	    { { "w.test", CNAME, 900, "b.test", 0 } },
	    { { "test", SOA, 900, "ns.test", 60 } } },
	  OS_DNS_NXDOMAIN,
	  60,
	  false,
	  "" },
	{ "server failure",
	  "a.test",
	  OS_DNS_MX,
	  { QR | RA | SERVFAIL, { { 0 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "a referral is no answer",
	  "a.test",
	  OS_DNS_MX,
	  { QR, { { 0 } }, { { "test", NS, 900, "ns.test", 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "a truncated answer is no answer",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA | TC, { { "a.test", OS_DNS_A, 300, "192.0.2.1", 0 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "a question is no answer",
	  "a.test",
	  OS_DNS_A,
	  { RA, { { "a.test", OS_DNS_A, 300, "192.0.2.1", 0 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "an address of the wrong length",
	  "a.test",
	  OS_DNS_A,
	  { QR | RA | AD, { { "a.test", OS_DNS_A, 300, "", 0 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "the strings of a text record are joined",
	  "s._domainkey.a.test",
	  OS_DNS_TXT,
	  { QR | RA,
	    { { "s._domainkey.a.test", OS_DNS_TXT, 300, "v=DKIM1;.p=abc", 0 },
	      { "s._domainkey.a.test", OS_DNS_TXT, 200, "other", 1 } },
	    { { 0 } } },
	  OS_DNS_OK,
	  200,
	  false,
	  "v=DKIM1;p=abc;other;" },
	{ "an empty text",
	  "a.test",
	  OS_DNS_TXT,
	  { QR | RA, { { "a.test", OS_DNS_TXT, 300, "", 0 } }, { { 0 } } },
	  OS_DNS_OK,
	  300,
	  false,
	  ";" },
	{ "a text longer than its record",
	  "a.test",
	  OS_DNS_TXT,
	  { QR | RA, { { "a.test", OS_DNS_TXT, 300, "one.two", 2 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "a text record without any string",
	  "a.test",
	  OS_DNS_TXT,
	  { QR | RA, { { "a.test", OS_DNS_TXT, 300, "", 1 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
	{ "TLSA comes as it is",
	  "a.test",
	  OS_DNS_TLSA,
	  { QR | RA | AD, { { "a.test", OS_DNS_TLSA, 300, "abc", 1 } }, { { 0 } } },
	  OS_DNS_OK,
	  300,
	  true,
	  "3 abc;" },
	{ "TLSA with nothing to match",
	  "a.test",
	  OS_DNS_TLSA,
	  { QR | RA | AD, { { "a.test", OS_DNS_TLSA, 300, "ab", 1 } }, { { 0 } } },
	  OS_DNS_FAILED,
	  0,
	  false,
	  "" },
};

static void records_print(const struct os_dns_query *query, char out[static 1024])
{
	out[0] = '\0';
	for (uint32_t i = 0; i < query->record_count; i++) {
		const struct os_dns_record *record = &query->records[i];
		char text[OS_ADDRESS_TEXT_MAX];
		size_t length = strlen(out);

		if (query->type == OS_DNS_TXT)
			snprintf(out + length, 1024 - length, "%.*s;", SPAN_ARG(record->data));
		else if (query->type == OS_DNS_TLSA)
			snprintf(out + length, 1024 - length, "%d %.*s;", record->data.at[0],
				 (int)record->data.len - 1, record->data.at + 1);
		else if (query->type == OS_DNS_MX)
			snprintf(out + length, 1024 - length, "%u %s;", record->preference,
				 record->name);
		else
			snprintf(out + length, 1024 - length, "%s;",
				 os_address_text(&record->address, text));
	}
}

static void check_answer(void **state)
{
	const struct answer_case *row = *state;
	struct os_dns_query query = { .type = row->type };
	struct packet packet;
	char records[1024];

	strcpy(query.name, row->question);
	packet_make(&packet, 1, row->question, (int)row->type, &row->response);
	dns_answer_read(&query, packet.bytes, packet.length);
	assert_int_equal(query.status, row->status);
	assert_int_equal(query.ttl_s, row->ttl_s);
	assert_int_equal(query.secure, row->secure);
	records_print(&query, records);
	assert_string_equal(records, row->records);
	os_dns_release(&query);
}

/* Every packet of the table, cut anywhere, or with any one byte changed: no crash, no leak. */
static void damaged_packets_are_survived(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_count(answer_cases); i++) {
		const struct answer_case *row = &answer_cases[i];
		struct packet packet;

		packet_make(&packet, 1, row->question, (int)row->type, &row->response);
		for (size_t at = 0; at < packet.length; at++) {
			struct os_dns_query query = { .type = row->type };
			unsigned char *cut = malloc(at + 1); /* a sanitizer sees its end */

			strcpy(query.name, row->question);
			memcpy(cut, packet.bytes, at);
			dns_answer_read(&query, cut, at);
			assert_int_equal(query.status, OS_DNS_FAILED);
			free(cut);
			for (int bit = 0; bit < 8; bit++) {
				packet.bytes[at] ^= (unsigned char)(1 << bit);
				dns_answer_read(&query, packet.bytes, packet.length);
				os_dns_release(&query);
				packet.bytes[at] ^= (unsigned char)(1 << bit);
			}
		}
	}
}

/* ── live ─────────────────────────────────────────────────────────────────────────── */

/* Answers each question by the row of this name and type; has no answer to others. */
static const struct live_row {
	const char *question;
	int type;
	struct response response;
} live_rows[] = {
	{ "mx.live.test",
	  OS_DNS_MX,
	  { QR | RA | AD, { { "mx.live.test", OS_DNS_MX, 77, "Host.live.test", 5 } }, { { 0 } } } },
	{ "www.live.test",
	  OS_DNS_A,
	  { QR | RA,
	    { { "www.live.test", CNAME, 50, "host.live.test", 0 },
	      { "host.live.test", OS_DNS_A, 60, "192.0.2.7", 0 } },
	    { { 0 } } } },
	{ "host.live.test",
	  OS_DNS_AAAA,
	  { QR | RA, { { 0 } }, { { "test", SOA, 30, "ns.test", 60 } } } },
	{ "gone.live.test",
	  OS_DNS_MX,
	  { QR | RA | NXDOMAIN, { { 0 } }, { { "test", SOA, 90, "ns.test", 60 } } } },
	{ "broken.live.test", OS_DNS_MX, { QR | RA | SERVFAIL, { { 0 } }, { { 0 } } } },
};

static int server_fd;
static atomic_int silent_count, ad_asked_count;

static void server_reply(const unsigned char *question, size_t length, struct packet *reply)
{
	char name[256] = "";
	size_t at = 12;

	while (at < length && question[at] != 0) {
		if (name[0] != '\0')
			strcat(name, ".");
		strncat(name, (const char *)question + at + 1, question[at]);
		at += 1 + (size_t)question[at];
	}
	reply->length = 0;
	if (question[3] & AD)
		atomic_fetch_add(&ad_asked_count, 1);
	for (size_t i = 0; i < array_count(live_rows); i++)
		if (strcmp(live_rows[i].question, name) == 0 &&
		    live_rows[i].type == question[at + 2])
			packet_make(reply, (unsigned)(question[0] << 8 | question[1]), name,
				    live_rows[i].type, &live_rows[i].response);
	if (reply->length == 0)
		atomic_fetch_add(&silent_count, 1);
}

static void server_main(void *unused)
{
	(void)unused;
	for (;;) {
		struct sockaddr_in from;
		socklen_t from_length = sizeof(from);
		unsigned char question[1500];
		struct packet reply;
		ssize_t got = recvfrom(server_fd, question, sizeof(question), 0,
				       (struct sockaddr *)&from, &from_length);

		if (got <= 4)
			return; /* the test's word of farewell */
		server_reply(question, (size_t)got, &reply);
		if (reply.length > 0)
			sendto(server_fd, reply.bytes, reply.length, 0, (struct sockaddr *)&from,
			       from_length);
	}
}

static struct os_loop *loop;
static int answered;

static void on_answer(struct os_op *op)
{
	(void)op;
	answered++;
}

static void query_set(struct os_dns_query *query, const char *name, enum os_dns_type type)
{
	*query = (struct os_dns_query){ .op.done = on_answer, .type = type };
	strcpy(query->name, name);
}

static void ask_all(struct os_dns_query *queries, int count)
{
	answered = 0;
	for (int i = 0; i < count; i++)
		os_dns_ask(loop, &queries[i]);
	while (answered < count)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 10000));
}

static void check_live_answers(void)
{
	struct os_dns_query q[7];

	query_set(&q[0], "mx.live.test", OS_DNS_MX);
	query_set(&q[1], "www.live.test", OS_DNS_A);
	query_set(&q[2], "host.live.test", OS_DNS_AAAA);
	query_set(&q[3], "gone.live.test", OS_DNS_MX);
	query_set(&q[4], "broken.live.test", OS_DNS_MX);
	query_set(&q[5], "silent.live.test", OS_DNS_MX);
	query_set(&q[6], "a..test", OS_DNS_MX);
	ask_all(q, 7);

	assert_int_equal(q[0].status, OS_DNS_OK);
	assert_int_equal(q[0].record_count, 1);
	assert_string_equal(q[0].records[0].name, "host.live.test");
	assert_int_equal(q[0].records[0].preference, 5);
	assert_int_equal(q[0].ttl_s, 77);
	assert_true(q[0].secure); /* the server is on 127.0.0.1 */
	assert_int_equal(q[1].status, OS_DNS_OK);
	assert_int_equal(q[1].ttl_s, 50);
	assert_int_equal(q[1].records[0].address.ip[3], 7);
	assert_false(q[1].secure);
	assert_int_equal(q[2].status, OS_DNS_NODATA);
	assert_int_equal(q[2].ttl_s, 30);
	assert_int_equal(q[3].status, OS_DNS_NXDOMAIN);
	assert_int_equal(q[3].ttl_s, 60);
	assert_int_equal(q[4].status, OS_DNS_FAILED);
	assert_int_equal(q[5].status, OS_DNS_FAILED);
	assert_int_equal(q[6].status, OS_DNS_NXDOMAIN); /* cannot be asked */
	for (int i = 0; i < 60000 && atomic_load(&silent_count) < 2; i++)
		usleep(1000);				 /* the server may be behind */
	assert_int_equal(atomic_load(&silent_count), 2); /* as many tries as told */
	assert_true(atomic_load(&ad_asked_count) >= 5);
	for (int i = 0; i < 7; i++)
		os_dns_release(&q[i]);
}

static void check_many_at_once(void)
{
	enum { MANY = 200 };
	static struct os_dns_query queries[MANY];

	for (int i = 0; i < MANY; i++)
		query_set(&queries[i], "www.live.test", OS_DNS_A);
	ask_all(queries, MANY);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(queries[i].status, OS_DNS_OK);
		os_dns_release(&queries[i]);
	}
}

static void failed_by(void (*call)(void))
{
	struct os_mono start = os_mono_now();
	struct os_dns_query query;

	query_set(&query, "silent.live.test", OS_DNS_A);
	answered = 0;
	os_dns_ask(loop, &query);
	call();
	while (answered == 0)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 10000));
	assert_int_equal(query.status, OS_DNS_FAILED);
	/* Not by its 2 tries of 1.5 s, the second of which takes twice as long. */
	assert_true(os_mono_now().ns - start.ns < 2 * OS_NS_PER_S);
}

static void nothing(void)
{
}

static void an_end_answers_what_is_open(void)
{
	failed_by(os_dns_give_up);
	failed_by(nothing); /* asked afterwards */
	os_dns_stop();
}

static void a_stop_answers_what_is_open(void)
{
	failed_by(os_dns_stop);
}

static void a_live_server_is_asked(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	struct os_dns_options options = { .timeout_ms = 1500, .tries = 2 };
	struct os_thread *server;
	char servers[64];

	(void)state;
	server_fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(server_fd, (struct sockaddr *)&address, length), 0);
	assert_int_equal(getsockname(server_fd, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(os_thread_start(&server, "server", server_main, NULL), 0);
	snprintf(servers, sizeof(servers), " 127.0.0.1:%d ", ntohs(address.sin_port));
	options.servers = servers;
	assert_int_equal(os_loop_create(NULL, &loop), 0);
	assert_int_equal(os_dns_start(&options), 0);
	check_live_answers();
	check_many_at_once();
	a_stop_answers_what_is_open();
	assert_int_equal(os_dns_start(&options), 0);
	an_end_answers_what_is_open();
	os_loop_destroy(loop);
	sendto(server_fd, "bye", 3, 0, (struct sockaddr *)&address, length);
	os_thread_join(server);
	close(server_fd);
}

static void wrong_servers_are_refused(void **state)
{
	const struct os_dns_options options = { .servers = "not an address" };

	(void)state;
	assert_int_equal(os_dns_start(&options), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damaged_packets_are_survived),
		cmocka_unit_test(wrong_servers_are_refused),
		cmocka_unit_test(a_live_server_is_asked),
	};
	struct CMUnitTest rows[array_count(answer_cases)];
	char why[256];
	int failed;

	for (size_t i = 0; i < array_count(rows); i++)
		rows[i] = (struct CMUnitTest){ answer_cases[i].name, check_answer, NULL, NULL,
					       (void *)&answer_cases[i] };
	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	failed = cmocka_run_group_tests_name("os_dns_answer", rows, NULL, NULL);
	return failed | cmocka_run_group_tests_name("os_dns", tests, NULL, NULL);
}
