#include "bench/wire_tls.h"

#include <stdlib.h>

#include "bench/options.h"
#include "engine/config/config.h"

struct tls_contexts *wire_tls_contexts(const char *files)
{
	char error[1024], *copy = files ? strdup(files) : NULL, *comma = NULL;
	struct config_certificate certificate = { .chain = copy };
	struct config config = {
		.certificates = &certificate,
		.certificate_count = files != NULL,
		.tls_ca_file = (char *)"/dev/null",
	};
	struct tls_contexts *contexts;

	if (copy)
		comma = strchr(copy, ',');
	if (copy && !comma)
		fail("--tls CHAIN,KEY");
	if (comma) {
		*comma = '\0';
		certificate.key = comma + 1;
	}
	contexts = tls_contexts_create(&config, error, sizeof(error));
	if (!contexts)
		fail("%s", error);
	free(copy);
	return contexts;
}

struct tls *wire_tls_accept(struct tls_contexts *contexts)
{
	return contexts ? tls_accept(contexts) : NULL;
}

struct tls *wire_tls_connect(struct tls_contexts *contexts)
{
	struct tls_policy policy = { .level = TLS_ENCRYPT, .name = "bench.test" };

	return contexts ? tls_connect(contexts, &policy, NULL, os_wall_now()) : NULL;
}
