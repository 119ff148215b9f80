#include "bench/options.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

atomic_bool bench_stopping;

noreturn void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(2);
}

uint64_t option_number(const char *name, const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (*text == '\0' || *end != '\0')
		fail("%s: not a number: %s", name, text);
	return value;
}

struct os_address option_address(const char *text)
{
	struct os_address address;
	char host[OS_ADDRESS_TEXT_MAX];
	const char *colon = strrchr(text, ':');
	size_t length;

	if (text[0] == '/' && os_address_parse(text, 0, &address))
		return address;
	if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
		fail("not an address and a port: %s", text);
	length = (size_t)(colon - text);
	if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	}
	memcpy(host, text, length);
	host[length] = '\0';
	if (!os_address_parse(host, (uint16_t)option_number("port", colon + 1), &address))
		fail("not an address: %s", host);
	return address;
}

void bench_start(void)
{
	char why[256];

	os_signals_block();
	os_limits_raise();
	if (os_backend_choose(why, sizeof(why)) != 0)
		fail("%s", why);
}

struct os_loop *bench_loop(void)
{
	struct os_loop *loop;
	int failed = os_loop_create(NULL, &loop);

	if (failed != 0)
		fail("no loop: %s", strerror(-failed));
	return loop;
}

static void signals_main(void *context)
{
	for (;;) {
		int got = os_signal_wait((struct os_mono){ UINT64_MAX });

		if (got != SIGTERM && got != SIGINT)
			continue;
		if (atomic_exchange(&bench_stopping, true))
			_exit(1);
		if (context != NULL)
			os_loop_wake(context);
	}
}

void bench_stop_on_signal(struct os_loop *loop)
{
	struct os_thread *thread; /* lives as long as the process */
	int failed = os_thread_start(&thread, "signals", signals_main, loop);

	if (failed != 0)
		fail("no thread: %s", strerror(-failed));
}
