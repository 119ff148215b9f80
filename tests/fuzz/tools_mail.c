/*
 * What a program hands to sendmail(1): a message on standard input, and addresses. Read whole and
 * in pieces it is the same, and read again it is itself; what is composed of it is fit for SMTP
 * and needs nothing more; an address that was found is found again by itself.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/smtp/scan.h"
#include "os/check.h"
#include "tools/mail_address.h"
#include "tools/mail_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECES_MAX = 16, BYTES_MAX = 1 << 20 };

/* ── addresses ────────────────────────────────────────────────────────────────────── */

struct found {
	char address[MAIL_ADDRESS_BYTES];
	uint32_t count;
};

static void on_again(void *context, const char *address)
{
	struct found *found = context;

	assert(strcmp(found->address, address) == 0);
	found->count++;
}

static void on_address(void *context, const char *address)
{
	struct found found = { .count = 0 };

	assert(address[0] != '\0' && strlen(address) < sizeof(found.address));
	strcpy(found.address, address);
	assert(mail_addresses(span_text(address), on_again, &found) && found.count == 1);
	++*(uint32_t *)context;
}

static bool check_addresses(struct span text)
{
	char *copy = malloc(text.len + 1); /* exact: a step beyond is seen */
	uint32_t count = 0;
	bool good;

	if (text.len > 0)
		memcpy(copy, text.at, text.len);
	copy = realloc(copy, text.len ? text.len : 1);
	good = mail_addresses(span_of(copy, text.len), on_address, &count);
	free(copy);
	return good;
}

static bool on_field(void *context, struct span name, struct span value)
{
	(void)context;
	assert(name.len >= 2 && value.len >= 2);
	check_addresses(value);
	return true;
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

/* Each packet is what one read() gets. */
static int read_pieces(struct span text, size_t piece, bool dot_ends, struct mail_text *out)
{
	int ends[2], result;

	assert(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
	for (size_t at = 0; at < text.len; at += piece) {
		size_t len = text.len - at < piece ? text.len - at : piece;

		assert(send(ends[1], text.at + at, len, MSG_DONTWAIT) == (ssize_t)len);
	}
	close(ends[1]);
	result = mail_message_read(ends[0], dot_ends, BYTES_MAX, out);
	close(ends[0]);
	return result;
}

static struct span span_in(const struct mail_text *text)
{
	return span_of(text->bytes, text->len);
}

static void check_lines(struct span text)
{
	struct smtp_scan scan;

	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, text);
	smtp_scan_finish(&scan);
	assert(!scan.bare_cr && !scan.bare_lf);
	assert(text.len == 0 || smtp_scan_ends_in_crlf(&scan));
}

static void check_composed(struct span given)
{
	static const struct mail_recipient_fields fields = { .field = on_field };
	static const struct mail_identity identity = { .address = "me@h",
						       .full_name = "J\xc3\xb6rg \"",
						       .id = "id@h" };
	struct mail_text text = { 0 }, again = { 0 };

	assert(mail_message_compose(given, &identity, &fields, &text));
	check_lines(span_in(&text));
	assert(memmem(text.bytes, text.len, "\r\n\r\n", 4));
	assert(mail_message_compose(span_in(&text), &identity, NULL, &again));
	assert(span_equal(span_in(&text), span_in(&again)));
	mail_text_release(&text);
	mail_text_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mail_text whole = { 0 }, pieces = { 0 }, again = { 0 };
	struct span text = span_of(data + 1, size - 1);
	bool dot_ends;
	size_t piece;

	if (size < 1 || size > 32 << 10)
		return 0;
	dot_ends = data[0] & 1;
	piece = (data[0] >> 1) + 1u;
	piece = piece * PIECES_MAX < text.len ? text.len / PIECES_MAX + 1 : piece;
	check_addresses(text);
	assert(read_pieces(text, text.len + 1, dot_ends, &whole) == 0);
	assert(read_pieces(text, piece, dot_ends, &pieces) == 0);
	assert(span_equal(span_in(&whole), span_in(&pieces)));
	check_lines(span_in(&whole));
	assert(read_pieces(span_in(&whole), whole.len + 1, dot_ends, &again) == 0);
	assert(span_equal(span_in(&whole), span_in(&again)));
	check_composed(span_in(&whole));
	mail_text_release(&whole);
	mail_text_release(&pieces);
	mail_text_release(&again);
	return 0;
}
