#include "engine/inbound/proxy.h"

#include "engine/smtp/command.h"
#include "os/check.h"

/* Version 2, after the signature: version and command, family and transport, length. */
enum {
	V2_SIGNATURE = 12,
	V2_FIXED = 16,
	V2_LOCAL = 0x20,
	V2_PROXY = 0x21,
	V2_TLV_FIXED = 3,
};

static const char v1_signature[] = "PROXY ";
static const char v2_signature[] = "\r\n\r\n\0\r\nQUIT\n";

/* Does `bytes` begin like that, as far as it goes? */
static bool begins(struct span bytes, const char *signature, size_t len)
{
	return memcmp(bytes.at, signature, bytes.len < len ? bytes.len : len) == 0;
}

static enum proxy_status malformed(const char **why_out, const char *why)
{
	*why_out = why;
	return PROXY_MALFORMED;
}

/* ── version 1 ────────────────────────────────────────────────────────────────────── */

/* The next word, cut off with the one blank behind it. */
static struct span word_next(struct span *line)
{
	const char *blank = line->len > 0 ? memchr(line->at, ' ', line->len) : NULL;
	struct span word = span_of(line->at, blank ? (size_t)(blank - line->at) : line->len);

	*line = span_skip(*line, word.len + (blank != NULL));
	return word;
}

static bool v1_address(struct span word, sa_family_t family, struct os_address *out)
{
	char text[OS_ADDRESS_TEXT_MAX];

	if (word.len >= sizeof(text) || memchr(word.at, '%', word.len))
		return false;
	memcpy(text, word.at, word.len);
	text[word.len] = '\0';
	return strlen(text) == word.len && os_address_parse(text, 0, out) && out->family == family;
}

static bool v1_port(struct span word, uint16_t *out)
{
	uint64_t number;

	if (word.len > 5 || (word.len > 1 && word.at[0] == '0') ||
	    !smtp_number_parse(word, &number) || number > UINT16_MAX)
		return false;
	*out = (uint16_t)number;
	return true;
}

/* "TCP4 192.0.2.1 198.51.100.1 56324 25" */
static bool v1_line(struct span line, struct os_address *client_out)
{
	struct span protocol = word_next(&line);
	sa_family_t family = AF_INET;
	struct os_address client, server;
	uint16_t port;

	if (span_equal(protocol, span_text("UNKNOWN")))
		return true;
	if (span_equal(protocol, span_text("TCP6")))
		family = AF_INET6;
	else if (!span_equal(protocol, span_text("TCP4")))
		return false;
	if (!v1_address(word_next(&line), family, &client) ||
	    !v1_address(word_next(&line), family, &server) || !v1_port(word_next(&line), &port) ||
	    !v1_port(line, &server.port))
		return false;
	client.port = port;
	*client_out = client;
	return true;
}

static enum proxy_status v1_parse(struct span bytes, struct proxy_header *out, const char **why_out)
{
	size_t len = bytes.len < PROXY_V1_MAX ? bytes.len : PROXY_V1_MAX;
	const char *lf = memchr(bytes.at, '\n', len);
	struct os_address client = { .family = AF_UNSPEC };

	if (!lf)
		return len == PROXY_V1_MAX ? malformed(why_out, "a line of more than 107 octets")
					   : PROXY_MORE;
	len = (size_t)(lf - bytes.at);
	if (lf[-1] != '\r')
		return malformed(why_out, "its line does not end in CRLF");
	if (len - 1 < strlen(v1_signature) ||
	    !v1_line(span_of(bytes.at + strlen(v1_signature), len - 1 - strlen(v1_signature)),
		     &client))
		return malformed(why_out, "not a protocol, two addresses and two ports");
	*out = (struct proxy_header){ .bytes = len + 1, .client = client };
	return PROXY_WHOLE;
}

/* ── version 2 ────────────────────────────────────────────────────────────────────── */

static uint16_t number16(const char *at)
{
	return (uint16_t)((uint8_t)at[0] << 8 | (uint8_t)at[1]);
}

/* How its addresses lie: both addresses, then both ports. */
static const struct v2_family {
	uint8_t code; /* family and transport */
	sa_family_t family;
	uint8_t ip_bytes;
	uint8_t bytes; /* of all of them */
} v2_families[] = {
	{ 0x00, AF_UNSPEC, 0, 0 },
	{ 0x11, AF_INET, 4, 12 },
	{ 0x21, AF_INET6, 16, 36 },
	{ 0x31, AF_UNSPEC, 0, 216 }, /* two paths, which mean something on the proxy only */
};

static const struct v2_family *v2_family_find(uint8_t code)
{
	for (size_t i = 0; i < array_count(v2_families); i++)
		if (v2_families[i].code == code)
			return &v2_families[i];
	return NULL;
}

/* Type, length and value each, to the end. */
static bool v2_tlvs_fit(struct span tlvs)
{
	while (tlvs.len >= V2_TLV_FIXED) {
		size_t len = V2_TLV_FIXED + (size_t)number16(tlvs.at + 1);

		if (len > tlvs.len)
			return false;
		tlvs = span_skip(tlvs, len);
	}
	return tlvs.len == 0;
}

/* PROXY: `rest` is what the length spans. NULL, or what is wrong. */
static const char *v2_client(uint8_t code, struct span rest, struct os_address *out)
{
	const struct v2_family *family = v2_family_find(code);

	if (!family)
		return "a family or transport that is no stream of IPv4, IPv6 or UNIX";
	if (family->code == 0)
		return NULL; /* all of it is to be ignored */
	if (rest.len < family->bytes)
		return "too short for its addresses";
	if (!v2_tlvs_fit(span_skip(rest, family->bytes)))
		return "a TLV that runs past its end";
	if (family->family == AF_UNSPEC)
		return NULL;
	out->family = family->family;
	memcpy(out->ip, rest.at, family->ip_bytes);
	out->port = number16(rest.at + (size_t)2 * family->ip_bytes);
	return NULL;
}

static enum proxy_status v2_parse(struct span bytes, struct proxy_header *out, const char **why_out)
{
	struct os_address client = { .family = AF_UNSPEC };
	const char *why = NULL;
	size_t len;

	if (bytes.len > V2_SIGNATURE && (uint8_t)bytes.at[V2_SIGNATURE] != V2_LOCAL &&
	    (uint8_t)bytes.at[V2_SIGNATURE] != V2_PROXY)
		return malformed(why_out, "a version or command that is not known");
	if (bytes.len < V2_FIXED)
		return PROXY_MORE;
	len = V2_FIXED + (size_t)number16(bytes.at + V2_FIXED - 2);
	if (len > PROXY_HEADER_MAX)
		return malformed(why_out, "more than 4096 octets");
	if (bytes.len < len)
		return PROXY_MORE;
	if ((uint8_t)bytes.at[V2_SIGNATURE] == V2_PROXY)
		why = v2_client((uint8_t)bytes.at[V2_SIGNATURE + 1],
				span_of(bytes.at + V2_FIXED, len - V2_FIXED), &client);
	if (why)
		return malformed(why_out, why);
	*out = (struct proxy_header){
		.bytes = len,
		.local = (uint8_t)bytes.at[V2_SIGNATURE] == V2_LOCAL,
		.client = client,
	};
	return PROXY_WHOLE;
}

enum proxy_status proxy_parse(struct span bytes, struct proxy_header *out, const char **why_out)
{
	enum proxy_status status;

	if (bytes.len == 0)
		return PROXY_MORE;
	if (begins(bytes, v1_signature, strlen(v1_signature)))
		status = v1_parse(bytes, out, why_out);
	else if (begins(bytes, v2_signature, V2_SIGNATURE))
		status = v2_parse(bytes, out, why_out);
	else
		return malformed(why_out, "no PROXY header");
	if (status == PROXY_WHOLE)
		os_address_unmap(&out->client); /* came to a dual-stack socket by IPv4 */
	return status;
}
