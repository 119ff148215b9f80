/*
 * choose - which backend the loops of this process have.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/backend.h"

#define REASON_BYTES 320

/* The best first. */
static const struct os_backend *const backends[] = { &os_backend_uring, &os_backend_epoll };

int os_backend_use(const char *name, char *why_out, size_t why_bytes)
{
	for (size_t i = 0; i < array_count(backends); i++) {
		int failed;

		if (strcmp(backends[i]->name, name) != 0)
			continue;
		failed = backends[i]->probe(why_out, why_bytes);
		if (failed == 0)
			loop_backend_set(backends[i]);
		return failed;
	}
	snprintf(why_out, why_bytes, "there is no '%s' to reach the kernel by: io_uring or epoll",
		 name);
	return -EINVAL;
}

int os_backend_choose(char *why_out, size_t why_bytes)
{
	const char *wanted = getenv("STAFETTE_IO");
	char refusal[REASON_BYTES], found[REASON_BYTES];
	int failed;

	if (wanted != NULL && wanted[0] != '\0' && strcmp(wanted, "auto") != 0)
		return os_backend_use(wanted, why_out, why_bytes);
	if (os_backend_use(os_backend_uring.name, why_out, why_bytes) == 0)
		return 0;
	snprintf(refusal, sizeof(refusal), "%s", why_out);
	failed = os_backend_use(os_backend_epoll.name, found, sizeof(found));
	snprintf(why_out, why_bytes, failed == 0 ? "%s, because %s" : "%s; and %s", found, refusal);
	return failed;
}
