/*
 * dkim_cases - what it costs to sign a message of 4 KiB, and what of that is the signature's own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/cases/cases.h"
#include "engine/dkim/dkim.h"
#include "os/check.h"

enum { BODY_BYTES = 4096, PEM_BYTES_MAX = 16 << 10, NOW_S = 1700000000 };

struct dkim_world {
	struct dkim_store *store;
	struct dkim_key *key;
	struct dkim *dkim;
	char message[BODY_BYTES + 1024];
	size_t bytes;
};

static struct dkim_store *store_make(const struct dkim_text *pem)
{
	char path[] = "/tmp/dkim_cases.XXXXXX";
	int fd = mkstemp(path);
	struct config_dkim_key key = { .selector = "s1", .file = path };
	struct config_dkim_domain domain = { .name = "example.org", .keys = &key, .key_count = 1 };
	struct config config = { .dkim = { .domains = &domain, .domain_count = 1 } };
	char error[DKIM_ERROR_BYTES];
	struct dkim_store *store;

	assert(fd >= 0 && write(fd, pem->at, pem->len) == (ssize_t)pem->len);
	close(fd);
	store = dkim_store_create(&config, error, sizeof(error));
	unlink(path);
	assert(store);
	return store;
}

/* `argument`: enum dkim_kind. */
static void *begin_dkim(uint64_t argument)
{
	struct dkim_world *world = calloc(1, sizeof(*world));
	struct dkim_text pem;

	assert(world);
	dkim_text_init(&pem, PEM_BYTES_MAX);
	world->key = dkim_key_generate((enum dkim_kind)argument, &pem);
	world->store = store_make(&pem);
	world->dkim = dkim_create();
	assert(world->key && world->dkim);
	dkim_text_deinit(&pem);
	world->bytes = (size_t)snprintf(
		world->message, sizeof(world->message),
		"From: \"A sender\" <news@example.org>\r\nTo: somebody@example.com\r\n"
		"Subject: what a campaign says\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700\r\n"
		"Message-ID: <0123456789@example.org>\r\nMIME-Version: 1.0\r\n"
		"Content-Type: text/plain; charset=utf-8\r\n"
		"List-Unsubscribe: <https://example.org/u/0123456789>\r\n"
		"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n");
	for (size_t end = world->bytes + BODY_BYTES; world->bytes < end;)
		world->bytes += (size_t)snprintf(
			world->message + world->bytes, sizeof(world->message) - world->bytes,
			"A line as people write it, with words between single spaces here.\r\n");
	return world;
}

static void end_dkim(void *context)
{
	struct dkim_world *world = context;

	dkim_destroy(world->dkim);
	dkim_key_destroy(world->key);
	dkim_store_destroy(world->store);
	free(world);
}

/* All that a message costs. */
static uint64_t run_message(void *context)
{
	struct dkim_world *world = context;

	dkim_begin(world->dkim, dkim_keys_take(world->store));
	dkim_feed(world->dkim, span_of(world->message, world->bytes));
	if (dkim_end(world->dkim, NOW_S, NOW_S + 100) != DKIM_NOTHING)
		dkim_sign(world->dkim);
	dkim_let_go(world->dkim);
	assert(dkim_prefix(world->dkim).len > 0);
	return 1;
}

/* All but the signature. */
static uint64_t run_hash(void *context)
{
	struct dkim_world *world = context;

	dkim_begin(world->dkim, dkim_keys_take(world->store));
	dkim_feed(world->dkim, span_of(world->message, world->bytes));
	dkim_end(world->dkim, NOW_S, NOW_S + 100);
	dkim_let_go(world->dkim);
	return 1;
}

/* The library alone: of RSA, what OpenSSL takes. */
static uint64_t run_library(void *context)
{
	static const uint8_t digest[DKIM_DIGEST_BYTES] = { 1 };
	struct dkim_world *world = context;
	uint8_t signature[DKIM_SIGNATURE_BYTES_MAX];

	return dkim_key_sign(world->key, digest, signature) > 0;
}

const struct micro_case micro_dkim_cases[] = {
	{ "dkim/hash_4KiB", begin_dkim, run_hash, end_dkim, DKIM_ED25519, BODY_BYTES },
	{ "dkim/ed25519_4KiB", begin_dkim, run_message, end_dkim, DKIM_ED25519, BODY_BYTES },
	{ "dkim/ed25519_alone", begin_dkim, run_library, end_dkim, DKIM_ED25519, 0 },
	{ "dkim/rsa2048_4KiB", begin_dkim, run_message, end_dkim, DKIM_RSA, BODY_BYTES },
	{ "dkim/rsa2048_alone", begin_dkim, run_library, end_dkim, DKIM_RSA, 0 },
	{ 0 },
};
