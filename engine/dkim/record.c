#include "engine/dkim/record.h"

enum { PUBLIC_BYTES_MAX = 2048 };

static const char *kind_name(const struct dkim_key *key)
{
	return dkim_key_kind(key) == DKIM_RSA ? "rsa" : "ed25519";
}

void dkim_record_write(const struct dkim_key *key, struct dkim_text *out)
{
	dkim_text_add(out, span_text("v=DKIM1; k="));
	dkim_text_add(out, span_text(kind_name(key)));
	dkim_text_add(out, span_text("; p="));
	dkim_key_public(key, out);
}

static bool is_blank(char octet)
{
	return memchr(" \t\r\n", octet, 4) != NULL;
}

static struct span trim(struct span text)
{
	while (text.len > 0 && is_blank(text.at[0]))
		text = span_skip(text, 1);
	while (text.len > 0 && is_blank(text.at[text.len - 1]))
		text.len--;
	return text;
}

/* Takes what is before the next separator off `rest`. */
static struct span next(struct span *rest, char separator)
{
	const char *end = memchr(rest->at, separator, rest->len);
	size_t len = end ? (size_t)(end - rest->at) : rest->len;
	struct span part = span_of(rest->at, len);

	*rest = span_skip(*rest, end ? len + 1 : len);
	return trim(part);
}

/* The value of a tag; at == NULL if there is none. */
static struct span tag_of(struct span record, char name)
{
	while (record.len > 0) {
		struct span tag = next(&record, ';');
		struct span found = next(&tag, '=');

		if (found.len == 1 && found.at[0] == name)
			return trim(tag);
	}
	return span_of(NULL, 0);
}

static bool begins_with_tag(struct span record, char name)
{
	struct span found = next(&record, '=');

	return found.len == 1 && found.at[0] == name;
}

/* Is one of the words, between colons, that one? */
static bool has_word(struct span list, const char *word)
{
	while (list.len > 0)
		if (span_equal_nocase(next(&list, ':'), span_text(word)))
			return true;
	return false;
}

/* Both in base64, `published` perhaps with white space in it. */
static bool same_key(struct span published, struct span ours)
{
	size_t at = 0;

	for (size_t i = 0; i < published.len; i++) {
		if (is_blank(published.at[i]))
			continue;
		if (at == ours.len || published.at[i] != ours.at[at++])
			return false;
	}
	return at == ours.len;
}

const char *dkim_record_check(struct span record, const struct dkim_key *key)
{
	struct span version = tag_of(record, 'v'), kind = tag_of(record, 'k');
	struct span hashes = tag_of(record, 'h'), services = tag_of(record, 's');
	struct span public = tag_of(record, 'p');
	struct dkim_text ours;
	bool same;

	if (version.at &&
	    (!span_equal(version, span_text("DKIM1")) || !begins_with_tag(record, 'v')))
		return "it does not begin with v=DKIM1";
	if (!public.at)
		return "it has no key";
	if (public.len == 0)
		return "its key is revoked (p= is empty)";
	if (!span_equal(kind.at ? kind : span_text("rsa"), span_text(kind_name(key))))
		return "its key is of another kind";
	if (hashes.at && !has_word(hashes, "sha256"))
		return "it does not allow sha256 (h=)";
	if (services.at && !has_word(services, "*") && !has_word(services, "email"))
		return "it is not for e-mail (s=)";
	dkim_text_init(&ours, PUBLIC_BYTES_MAX);
	dkim_key_public(key, &ours);
	same = !ours.failed && same_key(public, dkim_text_span(&ours));
	dkim_text_deinit(&ours);
	return same ? NULL : "it has another key";
}

bool dkim_record_is_test(struct span record)
{
	return has_word(tag_of(record, 't'), "y");
}
