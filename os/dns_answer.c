#include <arpa/nameser.h>
#include <ctype.h>
#include <resolv.h>
#include <stdlib.h>

#include "os/dns_answer.h"

#define CNAMES_MAX 16 /* a longer chain is a loop */

/* A walk along the CNAMEs of one response. */
struct answer {
	ns_msg message;
	char name[256]; /* where the chain has come to */
	uint32_t ttl_s; /* the smallest seen */
};

/* Lower case, no final dot; false if it does not fit, which no real name does not. */
static bool name_copy(char out[static 256], const char *name)
{
	size_t length = strlen(name);

	if (length > 0 && name[length - 1] == '.')
		length--;
	if (length >= 256)
		return false;
	for (size_t i = 0; i < length; i++)
		out[i] = (char)tolower((unsigned char)name[i]);
	out[length] = '\0';
	return true;
}

/* The name that begins at `at`, inside the message. */
static bool name_expand(const struct answer *answer, const unsigned char *at, char out[static 256])
{
	char text[NS_MAXDNAME];

	return dn_expand(ns_msg_base(answer->message), ns_msg_end(answer->message), at, text,
			 sizeof(text)) >= 0 &&
	       name_copy(out, text);
}

static uint32_t ttl_of(ns_rr record)
{
	uint32_t ttl = ns_rr_ttl(record);

	return ttl > INT32_MAX ? 0 : ttl; /* RFC 2181, 8 */
}

static bool is_at(const struct answer *answer, ns_rr record, int type)
{
	char owner[256];

	return ns_rr_class(record) == ns_c_in && (int)ns_rr_type(record) == type &&
	       name_copy(owner, ns_rr_name(record)) && strcmp(owner, answer->name) == 0;
}

/* The n-th record of a section; every one was seen to be readable by answer_is_sound(). */
static ns_rr record_at(struct answer *answer, ns_sect section, int index)
{
	ns_rr record = { 0 };
	int failed = ns_parserr(&answer->message, section, index, &record);

	assert(failed == 0);
	return record;
}

static int record_count(const struct answer *answer, ns_sect section)
{
	return ns_msg_count(answer->message, section);
}

static bool answer_is_sound(struct answer *answer, const unsigned char *packet, size_t bytes)
{
	static const ns_sect sections[] = { ns_s_an, ns_s_ns };
	ns_rr record;

	if (bytes > NS_MAXMSG || ns_initparse(packet, (int)bytes, &answer->message) != 0)
		return false;
	if (!ns_msg_getflag(answer->message, ns_f_qr) || ns_msg_getflag(answer->message, ns_f_tc))
		return false;
	for (size_t s = 0; s < array_count(sections); s++)
		for (int i = 0; i < record_count(answer, sections[s]); i++)
			if (ns_parserr(&answer->message, sections[s], i, &record) != 0)
				return false;
	return true;
}

/* Goes on from answer->name by one CNAME. */
static bool follow_cname(struct answer *answer)
{
	for (int i = 0; i < record_count(answer, ns_s_an); i++) {
		ns_rr record = record_at(answer, ns_s_an, i);
		char target[256];

		if (!is_at(answer, record, ns_t_cname) ||
		    !name_expand(answer, ns_rr_rdata(record), target))
			continue;
		strcpy(answer->name, target);
		if (ttl_of(record) < answer->ttl_s)
			answer->ttl_s = ttl_of(record);
		return true;
	}
	return false;
}

/* Joins the strings of a TXT record. False: one is longer than the rest of the record. */
static bool strings_join(const unsigned char *data, size_t length, char *room, struct span *out)
{
	size_t used = 0;

	while (length > 0) {
		size_t bytes = data[0];

		if (bytes + 1 > length)
			return false;
		memcpy(room + used, data + 1, bytes);
		used += bytes;
		data += bytes + 1;
		length -= bytes + 1;
	}
	*out = span_of(room, used);
	return true;
}

/* False if the data are not what the type says. `room`: for as many octets as they have. */
static bool record_read(const struct answer *answer, ns_rr from, struct os_dns_record *to,
			char *room)
{
	const unsigned char *data = ns_rr_rdata(from);
	size_t length = ns_rr_rdlen(from);

	*to = (struct os_dns_record){ 0 };
	switch ((enum os_dns_type)ns_rr_type(from)) {
	case OS_DNS_A:
		to->address.family = AF_INET;
		memcpy(to->address.ip, data, length == 4 ? 4 : 0);
		return length == 4;
	case OS_DNS_AAAA:
		to->address.family = AF_INET6;
		memcpy(to->address.ip, data, length == 16 ? 16 : 0);
		return length == 16;
	case OS_DNS_MX:
		if (length < 3)
			return false;
		to->preference = (uint16_t)ns_get16(data);
		return name_expand(answer, data + 2, to->name);
	case OS_DNS_TXT:
		return length > 0 && strings_join(data, length, room, &to->data);
	case OS_DNS_TLSA:
		memcpy(room, data, length);
		to->data = span_of(room, length);
		return length > 3; /* usage, selector, type, and what is to match */
	}
	return false;
}

/* Of all records of the answer. */
static size_t data_bytes(struct answer *answer)
{
	size_t bytes = 0;

	for (int i = 0; i < record_count(answer, ns_s_an); i++)
		bytes += ns_rr_rdlen(record_at(answer, ns_s_an, i));
	return bytes;
}

/* The records of the type at the end of the chain; false if one is garbage. */
static bool records_read(struct answer *answer, struct os_dns_query *query)
{
	int in_all = record_count(answer, ns_s_an);
	size_t records_bytes = ((size_t)in_all + 1) * sizeof(struct os_dns_record);
	struct os_dns_record *records = calloc(1, records_bytes + data_bytes(answer));
	char *room = (char *)records + records_bytes; /* what `data` of the records points to */
	uint32_t count = 0;
	bool sound = records != NULL;

	for (int i = 0; i < in_all && sound; i++) {
		ns_rr record = record_at(answer, ns_s_an, i);

		if (!is_at(answer, record, (int)query->type))
			continue;
		sound = record_read(answer, record, &records[count++], room);
		room += ns_rr_rdlen(record);
		if (ttl_of(record) < answer->ttl_s)
			answer->ttl_s = ttl_of(record);
	}
	if (!sound || count == 0) {
		free(records);
		return sound;
	}
	query->records = records;
	query->record_count = count;
	return true;
}

/* How long "no" holds: the smaller of the SOA's TTL and its last field (RFC 2308, 5). */
static bool negative_ttl(struct answer *answer, uint32_t *ttl_out)
{
	for (int i = 0; i < record_count(answer, ns_s_ns); i++) {
		ns_rr record = record_at(answer, ns_s_ns, i);
		const unsigned char *data = ns_rr_rdata(record);
		uint32_t minimum, ttl = ttl_of(record);

		if (ns_rr_type(record) != ns_t_soa || ns_rr_rdlen(record) < 22)
			continue;
		minimum = (uint32_t)ns_get32(data + ns_rr_rdlen(record) - 4);
		*ttl_out = ttl < minimum ? ttl : minimum;
		return true;
	}
	return false;
}

/* A server that answers only with the names of others has not answered. */
static bool is_referral(struct answer *answer)
{
	if (record_count(answer, ns_s_an) > 0 || ns_msg_getflag(answer->message, ns_f_aa))
		return false;
	for (int i = 0; i < record_count(answer, ns_s_ns); i++)
		if (ns_rr_type(record_at(answer, ns_s_ns, i)) == ns_t_ns)
			return true;
	return false;
}

static void negative_set(struct answer *answer, struct os_dns_query *query,
			 enum os_dns_status status)
{
	uint32_t ttl_s = 0;

	if (!negative_ttl(answer, &ttl_s) && status == OS_DNS_NODATA && is_referral(answer))
		status = OS_DNS_FAILED;
	dns_answer_set(query, status, ttl_s < answer->ttl_s ? ttl_s : answer->ttl_s);
}

void dns_answer_set(struct os_dns_query *query, enum os_dns_status status, uint32_t ttl_s)
{
	query->status = status;
	query->ttl_s = status == OS_DNS_FAILED ? 0 : ttl_s;
	query->record_count = 0;
	query->records = NULL;
	if (status == OS_DNS_FAILED)
		query->secure = false;
}

void dns_answer_read(struct os_dns_query *query, const unsigned char *packet, size_t bytes)
{
	struct answer answer = { .ttl_s = UINT32_MAX };
	int code, cnames = 0;

	query->secure = false;
	dns_answer_set(query, OS_DNS_FAILED, 0);
	if (!name_copy(answer.name, query->name) || !answer_is_sound(&answer, packet, bytes))
		return;
	code = ns_msg_getflag(answer.message, ns_f_rcode);
	if (code != ns_r_noerror && code != ns_r_nxdomain)
		return;
	while (follow_cname(&answer))
		if (++cnames > CNAMES_MAX)
			return;
	query->secure = ns_msg_getflag(answer.message, ns_f_ad) != 0;
	if (code == ns_r_nxdomain) {
		negative_set(&answer, query, OS_DNS_NXDOMAIN);
	} else if (!records_read(&answer, query)) {
		dns_answer_set(query, OS_DNS_FAILED, 0);
	} else if (query->record_count == 0) {
		negative_set(&answer, query, OS_DNS_NODATA);
	} else {
		query->status = OS_DNS_OK;
		query->ttl_s = answer.ttl_s;
	}
}
