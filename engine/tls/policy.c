#include "engine/tls/policy.h"

#include "engine/config/config.h"

enum { SUBMISSIONS_PORT = 465 }; /* RFC 8314, 7.3: TLS from the first byte on */

struct tls_policy tls_policy_decide(const struct config_delivery *how, const char *host,
				    uint16_t port, bool failed)
{
	struct tls_policy policy = {
		.level = how->tls,
		.implicit = how->tls_implicit || port == SUBMISSIONS_PORT,
		.name = how->tls_name[0] != '\0' ? how->tls_name : host,
	};

	if (policy.level == TLS_NONE)
		policy.implicit = false;
	else if (policy.implicit && policy.level == TLS_MAY)
		policy.level = TLS_ENCRYPT; /* there is no other way into such a port */
	else if (policy.level == TLS_MAY && failed)
		policy.level = TLS_NONE;
	return policy;
}
