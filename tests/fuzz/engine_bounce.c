/*
 * Reports about hostile mail from hostile peers: whatever the message, the names and the words
 * are, the report is lines of ASCII or UTF-8 that end in CRLF, with one closing boundary.
 */
#include "engine/report/bounce.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/inbound/received.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char report[1 << 20];
static size_t report_len;

static void append(void *context, struct span bytes)
{
	(void)context;
	assert(report_len + bytes.len < sizeof(report));
	memcpy(report + report_len, bytes.at, bytes.len);
	report_len += bytes.len;
}

/* The next text of the input: up to a byte 0xff. */
static struct span field(struct span *rest)
{
	const char *end = rest->len > 0 ? memchr(rest->at, 0xff, rest->len) : NULL;
	struct span text = span_of(rest->at, end ? (size_t)(end - rest->at) : rest->len);

	*rest = span_skip(*rest, end ? text.len + 1 : text.len);
	return text;
}

/* Lines of at most `max`, no bare CR or LF, no NUL. True if some octet is above 127. */
static bool check_lines(const char *text, size_t len, size_t max)
{
	size_t line = 0;
	bool eightbit = false;

	for (size_t i = 0; i < len; i++) {
		assert(text[i] != '\0');
		eightbit |= (uint8_t)text[i] > 127;
		assert(text[i] != '\r' || (i + 1 < len && text[i + 1] == '\n'));
		if (text[i] != '\n')
			continue;
		assert(i > 0 && text[i - 1] == '\r' && i + 1 - line <= max);
		line = i + 1;
	}
	assert(line == len);
	return eightbit;
}

/* How often the report says that its last part is over. */
static uint32_t count_ends(void)
{
	static const char key[] = "\tboundary=\"";
	const char *at = memmem(report, report_len, key, strlen(key));
	char line[256];
	uint32_t count = 0;

	assert(at != NULL);
	at += strlen(key);
	snprintf(line, sizeof(line), "\r\n--%.*s--\r\n", (int)strcspn(at, "\""), at);
	while ((at = memmem(at, report_len - (size_t)(at - report), line, strlen(line))) != NULL) {
		count++;
		at++;
	}
	return count;
}

static void check_received(struct span greeting, struct span recipient, bool utf8)
{
	static struct received_clock clock;
	char line[RECEIVED_BYTES_MAX];
	struct received received = {
		.greeting = greeting,
		.client = &(struct os_address){ .family = AF_INET, .ip = { 192, 0, 2, 1 } },
		.hostname = "mx.example",
		.extended = true,
		.utf8 = utf8,
		.id = "R1",
		.recipient = recipient,
		.when = { INT64_C(1795309475) * OS_US_PER_S },
	};
	size_t len = received_line(&received, &clock, line);

	assert(len <= sizeof(line));
	assert(!check_lines(line, len, 1000) || utf8);
	for (size_t i = 0; i + 1 < len; i++) /* one field: each further line is folded */
		assert(line[i] != '\n' || line[i + 1] == ' ' || line[i + 1] == '\t');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data + 1, size - 1);
	struct bounce_result result;

	if (size < 2)
		return 0;
	struct bounce_recipient recipient = {
		.kind = data[0] % BOUNCE_KINDS,
		.address = field(&rest),
		.orcpt = field(&rest),
		.host = field(&rest),
		.text = field(&rest),
		.enhanced = 50101,
		.reply = data[0] & 1 ? 550 : 0,
		.expired = data[0] & 2,
	};
	struct bounce bounce = {
		.hostname = "mx.example",
		.id = "R1",
		.now = { INT64_C(1795309480) * OS_US_PER_S },
		.original_id = "M1",
		.sender = span_text("s@example.com"),
		.envid = field(&rest),
		.ret = data[0] & 4 ? 'H' : 'F',
		.utf8 = data[0] & 8,
		.body = rest,
		.body_bytes = rest.len + (data[0] & 16 ? 100000 : 0),
		.recipients = &recipient,
		.recipient_count = 1,
	};

	report_len = 0;
	bounce_compose(&bounce, append, NULL, &result);
	assert(result.bytes == report_len);
	assert(check_lines(report, report_len, 1000) == result.eightbit);
	assert(count_ends() == 1);
	check_received(recipient.host, recipient.address, data[0] & 8);
	return 0;
}
