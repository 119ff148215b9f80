/*
 * validity - are our certificates in their time? See tls_out_of_date() in tls.h.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>

#include "engine/config/config.h"
#include "engine/tls/tls.h"

enum { FILE_BYTES_MAX = 4 << 20 };

/* The first certificate in the file. NULL: none can be read; tls_contexts_create() has said why. */
static X509 *leaf_read(const char *path)
{
	char *bytes;
	size_t count;
	X509 *leaf;
	BIO *bio;

	if (os_file_load(OS_CURRENT_FOLDER, path, FILE_BYTES_MAX, &bytes, &count) < 0)
		return NULL;
	bio = BIO_new_mem_buf(bytes, (int)count);
	leaf = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	ERR_clear_error();
	BIO_free(bio);
	free(bytes);
	return leaf;
}

const char *tls_out_of_date(const struct config *config, bool *expired_out)
{
	time_t now = (time_t)os_wall_seconds(os_wall_now());

	for (uint32_t i = 0; i < config->certificate_count; i++) {
		X509 *leaf = leaf_read(config->certificates[i].chain);
		bool expired = leaf && X509_cmp_time(X509_get0_notAfter(leaf), &now) < 0;
		bool early = leaf && X509_cmp_time(X509_get0_notBefore(leaf), &now) > 0;

		X509_free(leaf);
		*expired_out = expired;
		if (expired || early)
			return config->certificates[i].chain;
	}
	return NULL;
}
