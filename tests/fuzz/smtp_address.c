/*
 * What an address parses to parses to itself, and stays within its limits.
 */
#include "engine/smtp/address.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct smtp_address *address)
{
	struct span text = smtp_address_span(address);
	struct smtp_address again;

	assert(address->len <= SMTP_ADDRESS_MAX && address->domain_at <= address->len);
	assert(!memchr(text.at, '\r', text.len) && !memchr(text.at, '\n', text.len));
	if (address->domain_at == address->len)
		return;
	assert(smtp_address_parse(text, true, &again) == SMTP_ADDRESS_OK);
	assert(span_equal(smtp_address_span(&again), text));
	assert(again.domain_at == address->domain_at && again.utf8 == address->utf8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct smtp_address address;
	struct span text = span_of(data, size), rest;

	if (smtp_path_parse(text, true, &address, &rest) == SMTP_ADDRESS_OK) {
		assert(rest.at >= text.at && rest.at + rest.len == text.at + text.len);
		check_again(&address);
	}
	if (smtp_address_parse(text, true, &address) == SMTP_ADDRESS_OK)
		check_again(&address);
	return 0;
}
