/*
 * signed - see signed.h.
 */
#include "tests/sim/signed.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "os/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/rfc8463.h"

enum {
	FIELDS_MAX = 64,
	NAME_BYTES = 64,
	SIGNATURE_BYTES_MAX = 256,
	EDWARDS_BYTES = 64,
	DIGEST_BYTES = 32,
	FIELD_BYTES_MAX = 4096,
};

/* ── the keys ─────────────────────────────────────────────────────────────────────── */

static const struct {
	const char *algorithm, *selector, *path, *pem;
} keys_known[SIGNED_KEYS_MAX] = {
	{ "ed25519-sha256", "brisbane", "/etc/brisbane.pem", rfc8463_edwards },
	{ "rsa-sha256", "test", "/etc/test.pem", rfc8463_rsa },
};

static EVP_PKEY *key_read(uint32_t index)
{
	static EVP_PKEY *read[SIGNED_KEYS_MAX];

	if (read[index] == NULL) {
		BIO *bio = BIO_new_mem_buf(keys_known[index].pem, -1);

		read[index] = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
		assert(read[index]);
		BIO_free(bio);
	}
	return read[index];
}

void signed_prepare(void)
{
	for (uint32_t i = 0; i < SIGNED_KEYS_MAX; i++)
		key_read(i);
	SSL_CTX_free(SSL_CTX_new(TLS_client_method()));
}

int signed_configure(uint32_t keys, const char *const *domains, uint32_t count, char *text,
		     size_t size)
{
	int bytes = 0;

	assert(keys <= SIGNED_KEYS_MAX && size > 0);
	for (uint32_t i = 0; i < keys; i++)
		disk_put(keys_known[i].path, keys_known[i].pem, strlen(keys_known[i].pem));
	if (keys == 0)
		return 0;
	bytes += snprintf(text, size, "dkim {\n");
	for (uint32_t i = 0; i < count; i++) {
		bytes += snprintf(text + bytes, size - (size_t)bytes,
				  "domain \"%s\" {\nheader = \"simple\"\nbody = \"simple\"\n",
				  domains[i]);
		for (uint32_t k = 0; k < keys; k++)
			bytes += snprintf(text + bytes, size - (size_t)bytes,
					  "key \"%s\" { file = \"%s\" }\n", keys_known[k].selector,
					  keys_known[k].path);
		bytes += snprintf(text + bytes, size - (size_t)bytes, "}\n");
	}
	return bytes + snprintf(text + bytes, size - (size_t)bytes, "}\n");
}

/* ── fields ───────────────────────────────────────────────────────────────────────── */

struct piece {
	const char *at;
	size_t bytes;
};

/* A field with its folds and its line end; empty: there is none. */
static struct piece field_at(const char *at, const char *end)
{
	struct piece field = { .at = at };

	if (at >= end || *at == '\r')
		return field;
	do {
		const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);

		at = line != NULL ? line + 2 : end;
	} while (at < end && (*at == ' ' || *at == '\t'));
	field.bytes = (size_t)(at - field.at);
	return field;
}

static bool is_named(struct piece field, const char *name)
{
	size_t bytes = strlen(name);

	return field.bytes > bytes && strncasecmp(field.at, name, bytes) == 0 &&
	       field.at[bytes] == ':';
}

/* The value of a tag of a signature: between "tag=" and the next semicolon, as it stands there. */
static struct piece tag_of(struct piece field, const char *tag, const char *what)
{
	const char *end = field.at + field.bytes, *at = memchr(field.at, ':', field.bytes) + 1;
	size_t bytes = strlen(tag);

	while (at < end) {
		const char *stop = memchr(at, ';', (size_t)(end - at));

		stop = stop ? stop : end;
		at += strspn(at, " \t\r\n");
		if (strncmp(at, tag, bytes) == 0 && at[bytes] == '=')
			return (struct piece){ at + bytes + 1, (size_t)(stop - at) - bytes - 1 };
		at = stop + 1;
	}
	sim_finding("%s: a signature without %s=", what, tag);
}

static bool tag_is(struct piece value, const char *text)
{
	return value.bytes == strlen(text) && memcmp(value.at, text, value.bytes) == 0;
}

/* Of base64 with white space in it; how many octets. */
static size_t decode(struct piece value, uint8_t *out, size_t out_max, const char *what)
{
	char text[FIELD_BYTES_MAX] = "";
	uint8_t octets[FIELD_BYTES_MAX];
	int length = 0, padding = 0, bytes;

	for (size_t i = 0; i < value.bytes && length < FIELD_BYTES_MAX; i++) {
		if (strchr(" \t\r\n", value.at[i]) != NULL)
			continue;
		text[length++] = value.at[i];
		padding += value.at[i] == '=';
	}
	bytes = length > 0 ? EVP_DecodeBlock(octets, (const unsigned char *)text, length) : -1;
	bytes -= padding;
	if (bytes < 0 || (size_t)bytes > out_max)
		sim_finding("%s: a signature with %.20s, which is no base64", what, value.at);
	memcpy(out, octets, (size_t)bytes);
	return (size_t)bytes;
}

/* ── the body ─────────────────────────────────────────────────────────────────────── */

/* RFC 6376, 3.4.3: without empty lines at its end, but never without a line end. */
static struct piece body_of(const char *text, size_t bytes, const char *what)
{
	static const struct piece line_end = { "\r\n", 2 };
	const char *blank = memmem(text, bytes, "\r\n\r\n", 4);
	struct piece body;

	if (blank == NULL)
		sim_finding("%s is signed and has no body", what);
	body = (struct piece){ blank + 4, bytes - (size_t)(blank + 4 - text) };
	while (body.bytes >= 4 && memcmp(body.at + body.bytes - 4, "\r\n\r\n", 4) == 0)
		body.bytes -= 2;
	return body.bytes > 0 ? body : line_end;
}

static void check_body(struct piece signature, struct piece body, const char *what)
{
	uint8_t digest[DIGEST_BYTES], said[DIGEST_BYTES];
	int good = EVP_Digest(body.at, body.bytes, digest, NULL, EVP_sha256(), NULL);

	assert(good);
	if (decode(tag_of(signature, "bh", what), said, sizeof(said), what) != DIGEST_BYTES ||
	    memcmp(digest, said, DIGEST_BYTES) != 0)
		sim_finding("%s: the body is not the one that was signed", what);
}

/* ── the header ───────────────────────────────────────────────────────────────────── */

struct header {
	struct piece fields[FIELDS_MAX];
	bool used[FIELDS_MAX];
	uint32_t count;
};

static void header_read(struct header *header, const char *text, size_t bytes, const char *what)
{
	const char *end = text + bytes;

	*header = (struct header){ 0 };
	for (;;) {
		struct piece field = field_at(text, end);

		if (field.bytes == 0)
			return;
		if (header->count == FIELDS_MAX)
			sim_finding("%s has too many fields", what);
		header->fields[header->count++] = field;
		text += field.bytes;
	}
}

/* The lowest of that name which h= has not named yet; one that is not there adds nothing. */
static void add_named(EVP_MD_CTX *hash, struct header *header, const char *name)
{
	for (uint32_t i = header->count; i > 0; i--) {
		if (header->used[i - 1] || !is_named(header->fields[i - 1], name))
			continue;
		header->used[i - 1] = true;
		EVP_DigestUpdate(hash, header->fields[i - 1].at, header->fields[i - 1].bytes);
		return;
	}
}

static void add_fields(EVP_MD_CTX *hash, struct header *header, struct piece names,
		       const char *what)
{
	const char *at = names.at, *end = names.at + names.bytes;

	while (at < end) {
		char name[NAME_BYTES];
		size_t length;

		at += strspn(at, ": \t\r\n");
		length = strcspn(at, ":; \t\r\n");
		if (length == 0 || length >= sizeof(name))
			sim_finding("%s: a signature with a strange h=", what);
		memcpy(name, at, length);
		name[length] = '\0';
		add_named(hash, header, name);
		at += length;
	}
}

/* Of the fields that h= names, and of the signature itself without its value and line end. */
static void digest_header(struct header *header, struct piece signature,
			  uint8_t digest[static DIGEST_BYTES], const char *what)
{
	EVP_MD_CTX *hash = EVP_MD_CTX_new();
	struct piece value = tag_of(signature, "b", what);
	const char *behind = value.at + value.bytes;
	size_t rest = (size_t)(signature.at + signature.bytes - behind);

	assert(hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL));
	add_fields(hash, header, tag_of(signature, "h", what), what);
	EVP_DigestUpdate(hash, signature.at, (size_t)(value.at - signature.at));
	if (rest >= 2)
		EVP_DigestUpdate(hash, behind, rest - 2);
	EVP_DigestFinal_ex(hash, digest, NULL);
	EVP_MD_CTX_free(hash);
}

/* There is but one signature of a digest (RFC 8032, 5.1.6), and making it costs a third of what
 * verifying it does. */
static bool verify_edwards(EVP_PKEY *key, const uint8_t *digest, const uint8_t *value, size_t bytes)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t only[EDWARDS_BYTES];
	size_t made = sizeof(only);
	bool good = EVP_DigestSignInit(context, NULL, NULL, NULL, key) > 0 &&
		    EVP_DigestSign(context, only, &made, digest, DIGEST_BYTES) > 0;

	assert(good);
	EVP_MD_CTX_free(context);
	return bytes == made && memcmp(value, only, made) == 0;
}

static bool verify_rsa(EVP_PKEY *key, const uint8_t *digest, const uint8_t *value, size_t bytes)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
	bool good = EVP_PKEY_verify_init(context) > 0 &&
		    EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) > 0 &&
		    EVP_PKEY_verify(context, value, bytes, digest, DIGEST_BYTES) > 0;

	EVP_PKEY_CTX_free(context);
	return good;
}

static void check_header(struct piece signature, uint32_t key, struct header header,
			 const char *what)
{
	uint8_t digest[DIGEST_BYTES], value[SIGNATURE_BYTES_MAX];
	size_t bytes = decode(tag_of(signature, "b", what), value, sizeof(value), what);
	bool good;

	digest_header(&header, signature, digest, what);
	good = key == 0 ? verify_edwards(key_read(key), digest, value, bytes)
			: verify_rsa(key_read(key), digest, value, bytes);
	if (!good)
		sim_finding("%s: the %s signature does not fit", what, keys_known[key].algorithm);
}

/* ── all of a copy ────────────────────────────────────────────────────────────────── */

static uint32_t key_of(struct piece signature, uint32_t keys, const char *what)
{
	struct piece algorithm = tag_of(signature, "a", what);
	struct piece selector = tag_of(signature, "s", what);

	for (uint32_t i = 0; i < keys; i++)
		if (tag_is(algorithm, keys_known[i].algorithm) &&
		    tag_is(selector, keys_known[i].selector))
			return i;
	sim_finding("%s: a signature with a key that nobody has", what);
}

const char *signed_check(uint32_t keys, const char *what, const char *text, size_t bytes)
{
	const char *end = text + bytes, *rest = text;
	struct piece signatures[SIGNED_KEYS_MAX];
	uint32_t count = 0, seen = 0;
	struct header header;
	struct piece field;

	for (; field = field_at(rest, end), is_named(field, "DKIM-Signature");
	     rest += field.bytes) {
		if (count == keys)
			sim_finding("%s has more signatures than there are keys", what);
		signatures[count++] = field;
	}
	if (keys == 0)
		return rest;
	header_read(&header, rest, (size_t)(end - rest), what);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t key = key_of(signatures[i], keys, what);

		check_body(signatures[i], body_of(rest, (size_t)(end - rest), what), what);
		check_header(signatures[i], key, header, what);
		seen |= UINT32_C(1) << key;
	}
	if (seen != (UINT32_C(1) << keys) - 1)
		sim_finding("%s lacks a signature", what);
	return rest;
}
