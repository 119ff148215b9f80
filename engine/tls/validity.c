/*
 * validity - are our certificates in their time? See tls_set_out_of_date() in tls.h.
 */
#include <openssl/x509.h>

#include "engine/config/config.h"
#include "engine/tls/private.h"
#include "os/check.h"

const char *tls_set_out_of_date(const struct tls_set *set, const struct config *config,
				bool *expired_out)
{
	time_t now = (time_t)os_wall_seconds(os_wall_now());

	assert(set->server_count == config->certificate_count);
	for (uint32_t i = 0; i < set->server_count; i++) {
		const X509 *leaf = SSL_CTX_get0_certificate(set->servers[i]);
		bool expired = X509_cmp_time(X509_get0_notAfter(leaf), &now) < 0;
		bool early = X509_cmp_time(X509_get0_notBefore(leaf), &now) > 0;

		*expired_out = expired;
		if (expired || early)
			return config->certificates[i].chain;
	}
	return NULL;
}
