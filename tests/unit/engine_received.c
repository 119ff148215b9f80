/* received: the trace line, and dates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "engine/inbound/received.h"
#include "os/check.h"

static const struct line_case {
	const char *name, *greeting, *client, *recipient, *tls, *user;
	bool smtp, utf8, authenticated;
	const char *wanted;
} lines[] = {
	{ .name = "a single recipient is named",
	  .greeting = "client.example",
	  .client = "192.0.2.1",
	  .recipient = "user@example.org",
	  .wanted = "Received: from client.example ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTP id 0000000000001\r\n"
		    "\tfor <user@example.org>; Sun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "several recipients are not",
	  .greeting = "client.example",
	  .client = "192.0.2.1",
	  .wanted = "Received: from client.example ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTP id 0000000000001;\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "HELO is SMTP, IPv6 has its prefix",
	  .greeting = "[IPv6:2001:db8::1]",
	  .client = "2001:db8::1",
	  .smtp = true,
	  .wanted = "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"
		    "\tby mx.example.com (stafette) with SMTP id 0000000000001;\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "TLS and a login are told",
	  .greeting = "c",
	  .client = "192.0.2.1",
	  .authenticated = true,
	  .tls = "TLSv1.3 TLS_AES_256_GCM_SHA384",
	  .wanted = "Received: from c ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTPSA id 0000000000001\r\n"
		    "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384);\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "who logged in, where it is to be shown",
	  .greeting = "c",
	  .client = "192.0.2.1",
	  .authenticated = true,
	  .user = "ann+x@b.example) (evil\r\n",
	  .wanted = "Received: from c ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTPA id 0000000000001\r\n"
		    "\t(authenticated as ann+x@b.example???evil?"
		    "?);\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "a UTF-8 recipient in a UTF8SMTP transaction",
	  .greeting = "c",
	  .client = "192.0.2.1",
	  .utf8 = true,
	  .recipient = "j\xc3\xbcrgen@example.org",
	  .wanted = "Received: from c ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with UTF8SMTP id 0000000000001\r\n"
		    "\tfor <j\xc3\xbcrgen@example.org>; Sun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "a UTF-8 recipient elsewhere is left out",
	  .greeting = "c",
	  .client = "192.0.2.1",
	  .recipient = "j\xc3\xbcrgen@example.org",
	  .wanted = "Received: from c ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTP id 0000000000001;\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "a greeting cannot begin a line or end a comment",
	  .greeting = "a\r\nBcc: b) (\xff",
	  .client = "192.0.2.1",
	  .wanted = "Received: from a??Bcc:?b???? ([192.0.2.1])\r\n"
		    "\tby mx.example.com (stafette) with ESMTP id 0000000000001;\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
	{ .name = "a UNIX socket is local",
	  .greeting = "",
	  .client = "/run/s",
	  .wanted = "Received: from local (local)\r\n"
		    "\tby mx.example.com (stafette) with ESMTP id 0000000000001;\r\n"
		    "\tSun, 22 Nov 2026 01:04:35 +0000\r\n" },
};

static void line_test(void **state)
{
	const struct line_case *row = *state;
	struct received_clock clock = { 0 };
	struct os_address client;
	char out[RECEIVED_BYTES_MAX + 1];

	assert_true(os_address_parse(row->client, 25, &client));
	struct received received = {
		.greeting = span_text(row->greeting),
		.client = &client,
		.hostname = "mx.example.com",
		.extended = !row->smtp,
		.utf8 = row->utf8,
		.authenticated = row->authenticated,
		.tls = span_text(row->tls != NULL ? row->tls : ""),
		.user = span_text(row->user != NULL ? row->user : ""),
		.id = "0000000000001",
		.recipient = span_text(row->recipient != NULL ? row->recipient : ""),
		.when = { INT64_C(1795309475) * OS_US_PER_S + 5 },
	};
	out[received_line(&received, &clock, out)] = '\0';
	assert_string_equal(out, row->wanted);
}

static void longest_line_fits(void **state)
{
	(void)state;
	static char big[70000];
	struct received_clock clock = { 0 };
	struct os_address client = { .family = AF_INET6, .ip = { 0x20, 1, 0xd, 0xb8 } };
	char out[RECEIVED_BYTES_MAX];

	memset(big, 'x', sizeof(big) - 1);
	struct received received = {
		.greeting = span_of(big, 65000),
		.client = &client,
		.hostname = big,
		.tls = span_of(big, 65000),
		.user = span_of(big, 65000),
		.id = big,
		.utf8 = true,
		.authenticated = true,
		.recipient = span_of(big, 512),
	};
	memset(client.ip + 4, 0xff, 12);
	assert_in_range(received_line(&received, &clock, out), 1000, RECEIVED_BYTES_MAX);
}

/* Against the C library, over leap years and ends of months. */
static void dates_agree_with_libc(void **state)
{
	(void)state;
	for (int64_t second = 0; second < INT64_C(8000000000); second += 86400 * 3 + 4567) {
		char ours[RECEIVED_DATE_BYTES], theirs[64];
		time_t time = second;
		struct tm tm;

		gmtime_r(&time, &tm);
		strftime(theirs, sizeof(theirs), "%a, %-d %b %Y %H:%M:%S +0000", &tm);
		received_date((struct os_wall){ second * OS_US_PER_S }, ours);
		assert_string_equal(ours, theirs);
	}
}

static void dates_at_the_edges(void **state)
{
	(void)state;
	char out[RECEIVED_DATE_BYTES];

	received_date((struct os_wall){ -1 }, out);
	assert_string_equal(out, "Thu, 1 Jan 1970 00:00:00 +0000");
	received_date((struct os_wall){ INT64_MAX }, out);
	assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 +0000");
}

static void date_is_made_anew_each_second(void **state)
{
	(void)state;
	struct received_clock clock = { 0 };

	assert_string_equal(received_date_cached(&clock, (struct os_wall){ 5 }),
			    "Thu, 1 Jan 1970 00:00:00 +0000");
	assert_string_equal(received_date_cached(&clock, (struct os_wall){ 999999 }),
			    "Thu, 1 Jan 1970 00:00:00 +0000");
	assert_string_equal(received_date_cached(&clock, (struct os_wall){ 1000000 }),
			    "Thu, 1 Jan 1970 00:00:01 +0000");
}

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(longest_line_fits),
		cmocka_unit_test(dates_agree_with_libc),
		cmocka_unit_test(dates_at_the_edges),
		cmocka_unit_test(date_is_made_anew_each_second),
	};
	struct CMUnitTest tests[array_count(lines)];

	for (size_t i = 0; i < array_count(lines); i++)
		tests[i] = (struct CMUnitTest){ .name = lines[i].name,
						.test_func = line_test,
						.initial_state = (void *)&lines[i] };
	return cmocka_run_group_tests_name("received lines", tests, NULL, NULL) +
	       cmocka_run_group_tests_name("received", others, NULL, NULL);
}
