/* Domains in letters beyond ASCII: the A-labels of A-labels are themselves, fit the DNS, and hold
 * nothing that could end a line of a command. */
#include <stdlib.h>

#include "engine/idn.h"
#include "os/check.h"
#include "os/os.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_domain(struct span domain)
{
	char first[IDN_DOMAIN_BYTES], again[IDN_DOMAIN_BYTES];
	bool ascii = true;

	for (size_t i = 0; i < domain.len; i++)
		ascii &= (uint8_t)domain.at[i] < 0x80;
	if (!idn_to_ascii(domain, first))
		return;
	assert(strlen(first) < sizeof(first));
	for (const char *at = first; *at && !ascii; at++)
		assert(*at > ' ' && *at < 0x7f);
	assert(idn_to_ascii(span_text(first), again) && strcmp(first, again) == 0);
}

static void check_address(struct span text)
{
	struct smtp_address address, out;

	if (smtp_address_parse(text, true, &address) != SMTP_ADDRESS_OK ||
	    address.domain_at == address.len)
		return;
	if (!idn_address(&address, &out))
		return;
	assert(out.len <= SMTP_ADDRESS_MAX && out.domain_at == address.domain_at);
	assert(memcmp(out.text, address.text, out.domain_at) == 0);
	for (uint32_t i = out.domain_at; i < out.len; i++)
		assert(out.text[i] > ' ' && (uint8_t)out.text[i] < 0x7f);
}

/* An IP address as text: what is read is written, and read as the same. */
static void check_ip(const char *text)
{
	struct os_address address, again;
	char out[OS_ADDRESS_TEXT_MAX];

	if (!os_address_parse(text, 25, &address))
		return;
	assert(os_address_parse(os_address_text(&address, out), 25, &again));
	assert(os_address_equal(&address, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	check_domain(span_of(text, size));
	check_address(span_of(text, size));
	check_ip(text);
	free(text);
	return 0;
}
