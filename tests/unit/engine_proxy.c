/* The header of the PROXY protocol: each row is fed whole, with the client's first octets behind
 * it, and cut off at every octet: short of its end it must ask for more, or refuse. */
#include "engine/inbound/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/check.h"

#define V2	    "\r\n\r\n\0\r\nQUIT\n"
#define V4	    "\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x00\x19" /* 192.0.2.1:56324 */
#define HALF6	    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0"
#define V6	    HALF6 "\x01" HALF6 "\x02\xdc\x04\x00\x19" /* [2001:db8::1]:56324 */
#define ZERO8	    "\0\0\0\0\0\0\0\0"
#define MAPPED	    ZERO8 "\0\0\xff\xff\x7f\0\0\x01" ZERO8 "\0\0\xff\xff\x7f\0\0\x02\xdc\x04\x00\x19"
#define ZERO72	    ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8
#define BYTES(text) (text), sizeof(text) - 1

static const struct proxy_case {
	const char *name, *bytes;
	size_t len;
	enum proxy_status status;
	const char *client; /* NULL: not known; "local": the proxy itself */
	uint16_t port;
} cases[] = {
	{ "version 1, IPv4", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n"), PROXY_WHOLE,
	  "192.0.2.1", 56324 },
	{ "version 1, IPv6", BYTES("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"), PROXY_WHOLE,
	  "2001:db8::1", 65535 },
	{ "version 1, mapped IPv4 is IPv4", BYTES("PROXY TCP6 ::ffff:127.0.0.1 ::1 1 25\r\n"),
	  PROXY_WHOLE, "127.0.0.1", 1 },
	{ "version 1, UNKNOWN alone", BYTES("PROXY UNKNOWN\r\n"), PROXY_WHOLE, NULL, 0 },
	{ "version 1, UNKNOWN with anything behind it is ignored",
	  BYTES("PROXY UNKNOWN ffff:f...f:ffff ::1 65535 65535\r\n"), PROXY_WHOLE, NULL, 0 },
	{ "version 1, the longest line",
	  BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
	  PROXY_WHOLE, NULL, 0 },
	{ "version 1, longer than 107 octets",
	  BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, bare LF", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, IPv6 addresses under TCP4", BYTES("PROXY TCP4 ::1 ::2 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, IPv4 addresses under TCP6", BYTES("PROXY TCP6 192.0.2.1 192.0.2.2 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, a path", BYTES("PROXY TCP4 /tmp/a /tmp/b 1 25\r\n"), PROXY_MALFORMED, NULL,
	  0 },
	{ "version 1, an interface", BYTES("PROXY TCP6 fe80::1%lo fe80::2%lo 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, NUL in an address", BYTES("PROXY TCP4 192.0.2.1\0 198.51.100.1 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, two blanks", BYTES("PROXY TCP4  192.0.2.1 198.51.100.1 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, a blank at the end", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 1 25 \r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, a word too many", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 1 25 0\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, a port is missing", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, port above 65535", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, port with a zero before it",
	  BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 01 25\r\n"), PROXY_MALFORMED, NULL, 0 },
	{ "version 1, port with a sign", BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 +1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, UDP", BYTES("PROXY UDP4 192.0.2.1 198.51.100.1 1 25\r\n"), PROXY_MALFORMED,
	  NULL, 0 },
	{ "version 1, in lower case", BYTES("proxy TCP4 192.0.2.1 198.51.100.1 1 25\r\n"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 1, nothing behind PROXY", BYTES("PROXY \r\n"), PROXY_MALFORMED, NULL, 0 },

	{ "version 2, IPv4", BYTES(V2 "\x21\x11\x00\x0c" V4), PROXY_WHOLE, "192.0.2.1", 56324 },
	{ "version 2, IPv6", BYTES(V2 "\x21\x21\x00\x24" V6), PROXY_WHOLE, "2001:db8::1", 56324 },
	{ "version 2, mapped IPv4 is IPv4", BYTES(V2 "\x21\x21\x00\x24" MAPPED), PROXY_WHOLE,
	  "127.0.0.1", 56324 },
	{ "version 2, UNIX: no address", BYTES(V2 "\x21\x31\x00\xd8" ZERO72 ZERO72 ZERO72),
	  PROXY_WHOLE, NULL, 0 },
	{ "version 2, UNSPEC: what follows is ignored", BYTES(V2 "\x21\x00\x00\x03\xff\xff\xff"),
	  PROXY_WHOLE, NULL, 0 },
	{ "version 2, LOCAL", BYTES(V2 "\x20\x00\x00\x00"), PROXY_WHOLE, "local", 0 },
	{ "version 2, LOCAL: family and addresses are ignored", BYTES(V2 "\x20\x11\x00\x0c" V4),
	  PROXY_WHOLE, "local", 0 },
	{ "version 2, TLVs are skipped",
	  BYTES(V2 "\x21\x11\x00\x15" V4 "\x04\x00\x00"
		   "\x02\x00\x03"
		   "a.b"),
	  PROXY_WHOLE, "192.0.2.1", 56324 },
	{ "version 2, a wrong checksum is ignored",
	  BYTES(V2 "\x21\x11\x00\x13" V4 "\x03\x00\x04\xde\xad\xbe\xef"), PROXY_WHOLE, "192.0.2.1",
	  56324 },
	{ "version 2, a TLV runs past the end", BYTES(V2 "\x21\x11\x00\x10" V4 "\x04\x00\x02\x00"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 2, half of a TLV's head", BYTES(V2 "\x21\x11\x00\x0e" V4 "\x04\x00"),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 2, IPv4 in too few octets", BYTES(V2 "\x21\x11\x00\x0b" V4), PROXY_MALFORMED,
	  NULL, 0 },
	{ "version 2, IPv6 in IPv4's octets", BYTES(V2 "\x21\x21\x00\x0c" V4), PROXY_MALFORMED,
	  NULL, 0 },
	{ "version 2, UNIX in too few octets", BYTES(V2 "\x21\x31\x00\x24" V6), PROXY_MALFORMED,
	  NULL, 0 },
	{ "version 2, IPv4 over UDP", BYTES(V2 "\x21\x12\x00\x0c" V4), PROXY_MALFORMED, NULL, 0 },
	{ "version 2, a family that is not known", BYTES(V2 "\x21\x41\x00\x0c" V4), PROXY_MALFORMED,
	  NULL, 0 },
	{ "version 2, a command that is not known", BYTES(V2 "\x22\x11\x00\x0c" V4),
	  PROXY_MALFORMED, NULL, 0 },
	{ "version 2 that says version 1", BYTES(V2 "\x11\x11\x00\x0c" V4), PROXY_MALFORMED, NULL,
	  0 },
	{ "version 2, longer than is read", BYTES(V2 "\x21\x11\x0f\xf1" V4), PROXY_MALFORMED, NULL,
	  0 },
	{ "version 2, wrong in its last octet of signature",
	  BYTES("\r\n\r\n\0\r\nQUIT\r\x21\x11\x00\x0c" V4), PROXY_MALFORMED, NULL, 0 },

	{ "no header, but SMTP", BYTES("EHLO a\r\n"), PROXY_MALFORMED, NULL, 0 },
	{ "no header, but TLS", BYTES("\x16\x03\x01"), PROXY_MALFORMED, NULL, 0 },
	{ "nothing yet", BYTES(""), PROXY_MORE, NULL, 0 },
};

/* On the heap, so that a sanitizer sees whoever reads on. */
static enum proxy_status parse(const char *bytes, size_t len, struct proxy_header *out)
{
	char *copy = malloc(len + 1);
	const char *why = NULL;
	enum proxy_status status;

	memcpy(copy, bytes, len);
	copy = realloc(copy, len > 0 ? len : 1);
	status = proxy_parse(span_of(copy, len), out, &why);
	assert_int_equal(why != NULL, status == PROXY_MALFORMED);
	free(copy);
	return status;
}

static void check_whole(const struct proxy_case *row, const struct proxy_header *header)
{
	char text[OS_ADDRESS_TEXT_MAX];

	assert_int_equal(header->bytes, row->len);
	assert_int_equal(header->local, row->client && strcmp(row->client, "local") == 0);
	if (!row->client || header->local) {
		assert_int_equal(header->client.family, AF_UNSPEC);
		return;
	}
	assert_string_equal(os_address_text(&header->client, text), row->client);
	assert_int_equal(header->client.port, row->port);
}

static void check_row(void **state)
{
	const struct proxy_case *row = *state;
	struct proxy_header header = { 0 };
	char longer[512];
	bool refused = false;

	assert_int_equal(parse(row->bytes, row->len, &header), row->status);
	if (row->status == PROXY_WHOLE) {
		check_whole(row, &header);
		memcpy(longer, row->bytes, row->len);
		memcpy(longer + row->len, "EHLO a\r\n", 8);
		assert_int_equal(parse(longer, row->len + 8, &header), PROXY_WHOLE);
		check_whole(row, &header);
	}
	for (size_t len = 0; len < row->len; len++) {
		enum proxy_status status = parse(row->bytes, len, &header);

		/* Once refused, always refused; and never whole before its end. */
		assert_int_not_equal(status, PROXY_WHOLE);
		assert_true(!refused || status == PROXY_MALFORMED);
		refused |= status == PROXY_MALFORMED;
	}
	assert_true(!refused || row->status == PROXY_MALFORMED);
}

/* All of what is read, in one TLV. */
static void longest_header(void **state)
{
	char bytes[PROXY_HEADER_MAX] = V2 "\x21\x11\x0f\xf0" V4 "\x05\x0f\xe1";
	struct proxy_header header = { 0 };

	(void)state;
	assert_int_equal(parse(bytes, sizeof(bytes) - 1, &header), PROXY_MORE);
	assert_int_equal(parse(bytes, sizeof(bytes), &header), PROXY_WHOLE);
	assert_int_equal(header.bytes, PROXY_HEADER_MAX);
}

int main(void)
{
	struct CMUnitTest rows[array_count(cases) + 1];

	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = check_row,
					       .initial_state = (void *)&cases[i] };
	rows[array_count(cases)] = (struct CMUnitTest){ .name = "version 2, 4096 octets",
							.test_func = longest_header };
	return cmocka_run_group_tests_name("proxy", rows, NULL, NULL);
}
