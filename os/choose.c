/*
 * choose - which backend the loops of this process have.
 */
#include "os/backend.h"

int os_backend_choose(char *why_out, size_t why_bytes)
{
	int failed = os_backend_uring.probe(why_out, why_bytes);

	if (failed == 0)
		loop_backend_set(&os_backend_uring);
	return failed;
}
