/*
 * The DKIM record of a domain, from the DNS: accepted when a slow reader of its own accepts it,
 * whatever stands behind it; and the signature field that is made for such a domain: short lines,
 * and what was put into it comes out again. '@' in the input stands for the right key, as it
 * hardly comes by chance.
 *
 *   input: { kind of the key, octets of a signature }, text
 */
#include <stdlib.h>

#include "engine/dkim/record.h"
#include "engine/smtp/base64.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 1 << 20, NAMES_MAX = 200, SIGNATURE_MAX = 255 };

static struct {
	struct dkim_key *key;
	struct dkim_text public;
} keys[2];

static void keys_make(void)
{
	for (uint32_t kind = 0; kind < array_count(keys); kind++) {
		struct dkim_text pem;

		dkim_text_init(&pem, TEXT_MAX);
		keys[kind].key = dkim_key_generate(kind ? DKIM_ED25519 : DKIM_RSA, &pem);
		assert(keys[kind].key);
		dkim_text_init(&keys[kind].public, TEXT_MAX);
		dkim_key_public(keys[kind].key, &keys[kind].public);
		dkim_text_deinit(&pem);
	}
}

/* ── a slow reader ────────────────────────────────────────────────────────────────── */

static bool is_blank(char octet)
{
	return octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n';
}

/* Without blanks, at its ends or anywhere; in memory of its own. */
static struct span without_blanks(struct span text, bool anywhere)
{
	char *to = malloc(text.len + 1);
	size_t len = 0;

	for (size_t i = 0, last = text.len; i < text.len; i++) {
		while (last > i && is_blank(text.at[last - 1]))
			last--;
		if (i < last && (!is_blank(text.at[i]) || (len > 0 && !anywhere)))
			to[len++] = text.at[i];
	}
	return span_of(to, len);
}

/* The value of the first tag of that name, or NULL; the caller's. */
static struct span value_of(struct span record, char name)
{
	for (size_t at = 0, end; at < record.len; at = end + 1) {
		size_t equals;

		for (end = at; end < record.len && record.at[end] != ';';)
			end++;
		for (equals = at; equals < end && record.at[equals] != '=';)
			equals++;
		struct span found = without_blanks(span_of(record.at + at, equals - at), false);
		bool same = found.len == 1 && found.at[0] == name;
		size_t value = equals < end ? equals + 1 : end;

		free((char *)found.at);
		if (same)
			return without_blanks(span_of(record.at + value, end - value), name == 'p');
	}
	return span_of(NULL, 0);
}

static bool allows(struct span record, char name, const char *one, const char *other)
{
	struct span list = value_of(record, name);
	bool found = false;

	for (size_t at = 0, end; list.at && at < list.len; at = end + 1) {
		for (end = at; end < list.len && list.at[end] != ':';)
			end++;
		struct span word = without_blanks(span_of(list.at + at, end - at), false);

		found |= span_equal_nocase(word, span_text(one)) ||
			 span_equal_nocase(word, span_text(other));
		free((char *)word.at);
	}
	found |= !list.at;
	free((char *)list.at);
	return found;
}

static bool accepted_slowly(struct span record, uint32_t kind)
{
	struct span version = value_of(record, 'v'), type = value_of(record, 'k');
	struct span public = value_of(record, 'p'), all = without_blanks(record, true);
	bool first = all.len > 1 && all.at[0] == 'v' && all.at[1] == '=';
	bool good = (!version.at || (span_equal(version, span_text("DKIM1")) && first)) &&
		    span_equal(type.at ? type : span_text("rsa"),
			       span_text(kind ? "ed25519" : "rsa")) &&
		    allows(record, 'h', "sha256", "sha256") && allows(record, 's', "*", "email") &&
		    public.len > 0 && span_equal(public, dkim_text_span(&keys[kind].public));

	free((char *)version.at);
	free((char *)type.at);
	free((char *)public.at);
	free((char *)all.at);
	return good;
}

static void check_record(struct span text, uint32_t kind)
{
	static const char more[] = "; n=x";
	struct dkim_text record;
	const char *why;

	dkim_text_init(&record, TEXT_MAX);
	for (size_t i = 0; i < text.len; i++)
		dkim_text_add(&record, text.at[i] == '@' ? dkim_text_span(&keys[kind].public)
							 : span_of(text.at + i, 1));
	char *copy = malloc(record.len ? record.len : 1); /* exact: a step beyond is seen */

	if (record.len > 0)
		memcpy(copy, record.at, record.len);
	why = dkim_record_check(span_of(copy, record.len), keys[kind].key);
	assert((why == NULL) == accepted_slowly(span_of(copy, record.len), kind));
	assert(why || dkim_record_check(span_of(copy, record.len), keys[!kind].key));
	bool test = dkim_record_is_test(span_of(copy, record.len));

	free(copy);
	dkim_text_add(&record, span_text(more));
	assert(why == dkim_record_check(dkim_text_span(&record), keys[kind].key));
	assert(test == dkim_record_is_test(dkim_text_span(&record)));
	dkim_text_deinit(&record);
}

/* ── the field ────────────────────────────────────────────────────────────────────── */

/* What follows `tag` up to ';' or the end, without blanks; the caller's. */
static struct span written(struct span field, const char *tag)
{
	const char *at = memmem(field.at, field.len, tag, strlen(tag));

	assert(at);
	at += strlen(tag);
	size_t left = (size_t)(field.at + field.len - at);
	const char *end = memchr(at, ';', left);

	return without_blanks(span_of(at, end ? (size_t)(end - at) : left), true);
}

static void check_lines(struct span field)
{
	while (field.len > 0) {
		const char *end = memmem(field.at, field.len, "\r\n", 2);

		assert(end && end - field.at <= 78 && field.at[0] != '.');
		field = span_skip(field, (size_t)(end - field.at) + 2);
		assert(field.len == 0 || field.at[0] == '\t');
	}
}

static void check_field(struct span text, size_t signature_len)
{
	char names[NAMES_MAX], decoded[SIGNATURE_MAX + 3];
	uint8_t hash[DKIM_DIGEST_BYTES] = { 0 };
	struct dkim_tags tags = { "rsa-sha256", DKIM_RELAXED, DKIM_SIMPLE, "d.test", "s", 0,
				  1000000,	{ names, 0 }, hash };
	struct dkim_text out;
	struct span got;
	size_t len;

	for (size_t i = 0; i < text.len && i < sizeof(names); i++)
		names[tags.names.len++] =
			(char)(i % 30 == 29 || text.at[i] % 11 == 0 ? ':'
								    : 'a' + (text.at[i] & 15));
	signature_len = signature_len < text.len ? signature_len : text.len;
	memcpy(hash, text.at, text.len < sizeof(hash) ? text.len : sizeof(hash));
	dkim_text_init(&out, TEXT_MAX);
	dkim_tags_write(&tags, &out);
	dkim_tags_sign(span_of(text.at, signature_len), &out);
	check_lines(dkim_text_span(&out));
	if (tags.names.len > 0) {
		got = written(dkim_text_span(&out), " h=");
		assert(span_equal(got, tags.names));
		free((char *)got.at);
	}
	got = written(dkim_text_span(&out), "\tb=");
	assert(base64_decode(got, decoded, &len));
	assert(span_equal(span_of(decoded, len), span_of(text.at, signature_len)));
	free((char *)got.at);
	dkim_text_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text;

	if (size < 2 || size > 4096)
		return 0;
	if (!keys[0].key)
		keys_make();
	text = span_of(data + 2, size - 2);
	check_record(text, data[0] & 1);
	check_field(text, data[1]);
	return 0;
}
