#include "bench/pattern.h"

#include <stdio.h>

#include "bench/options.h"
#include "os/prng.h"

#define PLACEHOLDER "################"

/* What queues see: mostly notices, some newsletters, few attachments. */
static const struct mixed_share {
	size_t bytes;
	uint32_t share;
} mixed[PATTERN_KIND_COUNT] = {
	{ 2000, 30 }, { 5000, 30 }, { 20000, 25 }, { 75000, 12 }, { 300000, 2 }, { 1500000, 1 },
};

static const char line[] =
	"The quick brown fox jumps over the lazy dog, and the relay takes the mail on.\r\n";
#define LINE_LENGTH (sizeof(line) - 1)

static void text_fill(char *at, size_t count)
{
	/* The rest that is no whole line comes first, as one short line. */
	for (size_t rest = count % LINE_LENGTH; rest > 0; rest--) {
		*at = rest == 2 ? '\r' : rest == 1 ? '\n' : '-';
		at++;
	}
	for (size_t i = 0; i < count / LINE_LENGTH; i++)
		memcpy(at + i * LINE_LENGTH, line, LINE_LENGTH);
}

static void kind_init(struct pattern_kind *kind, size_t bytes, uint32_t share, const char *from)
{
	char head[2048];
	int length = snprintf(head, sizeof(head),
			      "X-Bench-Id: " PLACEHOLDER "\r\n"
			      "From: Bench <%s>\r\n"
			      "To: undisclosed-recipients:;\r\n"
			      "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
			      "Message-ID: <" PLACEHOLDER "@bench.test>\r\n"
			      "Subject: bench " PLACEHOLDER "\r\n"
			      "MIME-Version: 1.0\r\n"
			      "Content-Type: text/plain; charset=utf-8\r\n\r\n",
			      from);
	const char *found;
	size_t index = 0;

	if (length >= (int)sizeof(head) || bytes < (size_t)length + 4)
		fail("a message has at least %d bytes", length + 4);
	/* A short line of one byte would be a bare LF. */
	if ((bytes - (size_t)length) % LINE_LENGTH == 1)
		bytes++;
	kind->text = malloc(bytes);
	assert(kind->text != NULL);
	kind->length = bytes;
	kind->share = share;
	memcpy(kind->text, head, (size_t)length);
	text_fill(kind->text + length, bytes - (size_t)length);
	for (found = head; (found = strstr(found, PLACEHOLDER)) != NULL; found++)
		kind->id_at[index++] = (size_t)(found - head);
	assert(index == array_count(kind->id_at));
}

void pattern_init(struct pattern *pattern, const char *sizes, const char *from)
{
	pattern->kind_count = 1;
	if (strcmp(sizes, "mixed") != 0) {
		kind_init(&pattern->kinds[0], option_number("size", sizes), 100, from);
		return;
	}
	pattern->kind_count = PATTERN_KIND_COUNT;
	for (size_t i = 0; i < PATTERN_KIND_COUNT; i++)
		kind_init(&pattern->kinds[i], mixed[i].bytes, mixed[i].share, from);
}

const struct pattern_kind *pattern_kind(const struct pattern *pattern, uint64_t number)
{
	struct prng prng = { number };
	uint64_t draw;

	if (pattern->kind_count == 1)
		return &pattern->kinds[0];
	draw = prng_below(&prng, 100);
	for (uint32_t i = 0;; i++) {
		if (draw < pattern->kinds[i].share)
			return &pattern->kinds[i];
		draw -= pattern->kinds[i].share;
	}
}

void pattern_id_text(uint64_t id, char out[static PATTERN_ID_LENGTH])
{
	for (int i = PATTERN_ID_LENGTH - 1; i >= 0; i--, id >>= 4)
		out[i] = "0123456789abcdef"[id & 15];
}

void pattern_put(const struct pattern_kind *kind, uint64_t id, struct buffer *out)
{
	char *at = buffer_space(out, kind->length);
	char text[PATTERN_ID_LENGTH];

	pattern_id_text(id, text);
	memcpy(at, kind->text, kind->length);
	for (size_t i = 0; i < array_count(kind->id_at); i++)
		memcpy(at + kind->id_at[i], text, sizeof(text));
	out->length += kind->length;
}
