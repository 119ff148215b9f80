/* Any packet is answered with a verdict, and what it names is a name. Its question is made to fit
 * the one that was asked, so that the answers behind it are reached. */
#include "os/dns_answer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct os_dns_query *query)
{
	assert(query->status <= OS_DNS_FAILED);
	assert((query->status == OS_DNS_OK) == (query->record_count > 0));
	assert(query->status != OS_DNS_FAILED || query->ttl_s == 0);
	for (uint32_t i = 0; query->records && i < query->record_count; i++) {
		const struct os_dns_record *record = &query->records[i];
		size_t len = strnlen(record->name, sizeof(record->name));

		assert(len < sizeof(record->name));
		if (query->type == OS_DNS_MX)
			assert(len == 0 || record->name[len - 1] != '.');
		if (query->type == OS_DNS_A)
			assert(record->address.family == AF_INET);
		if (query->type == OS_DNS_AAAA)
			assert(record->address.family == AF_INET6);
	}
}

static void ask(enum os_dns_type type, const uint8_t *data, size_t size)
{
	static const unsigned char head[] = { 0, 1, 0x81, 0x80, 0, 1 };
	static const unsigned char question[] = "\1a\7example";
	struct os_dns_query query = { .name = "a.example", .type = type };
	size_t fixed = 12 + sizeof(question) + 4, bytes = size < 6 ? size : size - 6 + fixed;
	unsigned char *packet = malloc(bytes + 1);

	if (size < 6) {
		memcpy(packet, data, size);
	} else {
		memcpy(packet, head, sizeof(head));
		memcpy(packet + 6, data, 6); /* how many records */
		packet[3] = (unsigned char)(0x80 | (data[0] >> 4));
		packet[6] = packet[8] = packet[10] = 0;
		memcpy(packet + 12, question, sizeof(question));
		memcpy(packet + 12 + sizeof(question), (char[]){ 0, (char)type, 0, 1 }, 4);
		memcpy(packet + fixed, data + 6, size - 6);
	}
	dns_answer_read(&query, packet, bytes);
	check(&query);
	os_dns_release(&query);
	dns_answer_read(&query, data, size);
	check(&query);
	os_dns_release(&query);
	free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum os_dns_type types[] = { OS_DNS_A, OS_DNS_MX, OS_DNS_AAAA, OS_DNS_TXT,
						  OS_DNS_TLSA };

	if (size > 65535 - 64)
		return 0;
	for (size_t i = 0; i < array_count(types); i++)
		ask(types[i], data, size);
	return 0;
}
