/*
 * idn - see idn.h. libidn2 does the work; ASCII, nearly all there is, does not go through it.
 */
#include "engine/idn.h"

#include <idn2.h>

#include "os/check.h"

enum {
	LABEL_MAX = 63,
	INPUT_MAX = 1024, /* UTF-8 is longer than what it maps to, but not without limit */
};

static bool is_ascii(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.at[i] > 127)
			return false;
	}
	return true;
}

/* False: too long. */
static bool ascii_lower(struct span domain, char out[static IDN_DOMAIN_BYTES])
{
	size_t label = 0;

	if (domain.len >= IDN_DOMAIN_BYTES)
		return false;
	for (size_t i = 0; i < domain.len; i++) {
		char c = domain.at[i];

		label = c == '.' ? 0 : label + 1;
		if (label > LABEL_MAX)
			return false;
		out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
	}
	out[domain.len] = '\0';
	return true;
}

/* Labels of letters, digits, '-' and '_'. Mapping may have made others of what was harmless: a
 * fullwidth '@', or a label that vanished. IDN2_USE_STD3_ASCII_RULES would not refuse those
 * but drop them, which makes it another's domain. */
static bool is_sound(const char *domain)
{
	for (const char *at = domain; *at != '\0'; at++) {
		if (*at == '.' ? at == domain || at[-1] == '.'
			       : !((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') ||
				   *at == '-' || *at == '_'))
			return false;
	}
	return true;
}

bool idn_to_ascii(struct span domain, char out[static IDN_DOMAIN_BYTES])
{
	char text[INPUT_MAX + 1];
	uint8_t *found;
	bool good;

	if (domain.len > INPUT_MAX ||
	    (domain.len > 0 && memchr(domain.at, '\0', domain.len) != NULL))
		return false;
	if (is_ascii(domain))
		return ascii_lower(domain, out);
	memcpy(text, domain.at, domain.len);
	text[domain.len] = '\0';
	if (idn2_lookup_u8((const uint8_t *)text, &found, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) !=
	    IDN2_OK)
		return false;
	good = is_sound((const char *)found) && ascii_lower(span_text((const char *)found), out);
	idn2_free(found);
	return good;
}

bool idn_address(const struct smtp_address *address, struct smtp_address *out)
{
	struct span domain = smtp_address_domain(address);
	char text[SMTP_ADDRESS_MAX + IDN_DOMAIN_BYTES];

	if (is_ascii(domain)) {
		*out = *address;
		return true;
	}
	memcpy(text, address->text, address->domain_at);
	if (!idn_to_ascii(domain, text + address->domain_at))
		return false;
	/* Read again, for the limits of a path and whether it is still UTF-8. */
	return smtp_address_parse(span_text(text), true, out) == SMTP_ADDRESS_OK;
}
