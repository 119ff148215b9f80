/*
 * A PROXY header says the same whatever follows it, and is not whole a single octet earlier.
 */
#include "engine/inbound/proxy.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header header, again;
	const char *why = NULL;
	enum proxy_status status = proxy_parse(span_of(data, size), &header, &why);

	assert((why != NULL) == (status == PROXY_MALFORMED));
	if (status == PROXY_MORE)
		assert(size < PROXY_HEADER_MAX);
	if (status != PROXY_WHOLE)
		return 0;
	assert(header.bytes > 0 && header.bytes <= size && header.bytes <= PROXY_HEADER_MAX);
	assert(header.client.family == AF_UNSPEC || header.client.family == AF_INET ||
	       header.client.family == AF_INET6);
	assert(proxy_parse(span_of(data, header.bytes), &again, &why) == PROXY_WHOLE);
	assert(os_address_equal(&header.client, &again.client));
	assert(proxy_parse(span_of(data, header.bytes - 1), &again, &why) == PROXY_MORE);
	return 0;
}
