/*
 * DKIM with keys: the published example, which key signs which message, key files, records, and
 * the same signature however a message comes in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/dkim/dkim.h"
#include "engine/dkim/header.h"
#include "engine/dkim/record.h"
#include "os/check.h"
#include "tests/sim/rfc8463.h"

enum { TEXT_MAX = 1 << 20, NOW_S = 1700000000, KEEP_S = NOW_S + 1000 };

/* Of the message in RFC 8463, appendix A.3, what its signatures cover: h= has each name once more
 * for two fields that are not there. */
static const char rfc_fields[] = "from:Joe SixPack <joe@football.example.com>\r\n"
				 "to:Suzie Q <suzie@shopping.example.net>\r\n"
				 "subject:Is dinner ready?\r\n"
				 "date:Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
				 "message-id:<20030712040037.46341.5F8J@football.example.com>\r\n";
static const char rfc_body[] = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";

static char folder[] = "/tmp/engine_dkim.XXXXXX";

/* ── files ────────────────────────────────────────────────────────────────────────── */

static const char *path_of(const char *name)
{
	static char paths[4][80];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", folder, name);
	return paths[turn];
}

static const char *file_make(const char *name, const char *text, mode_t mode)
{
	const char *path = path_of(name);
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

static int set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	file_make("e.pem", rfc8463_edwards, 0600);
	file_make("r.pem", rfc8463_rsa, 0640);
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = { "e.pem", "r.pem", "bad.pem", "conf", "new.pem" };

	(void)state;
	for (size_t i = 0; i < array_count(names); i++)
		unlink(path_of(names[i]));
	return rmdir(folder);
}

/* `%s` in the text is the folder, at most four times. */
static struct config *config_make(const char *format)
{
	char text[2048], error[1024];
	struct config *config;

	/* NOLINTNEXTLINE(clang-diagnostic-format-nonliteral) */
	snprintf(text, sizeof(text), format, folder, folder, folder, folder);
	config = config_load(file_make("conf", text, 0600), error, sizeof(error));
	if (!config)
		fail_msg("%s", error);
	return config;
}

static struct dkim_store *store_make(const char *format)
{
	char error[1024];
	struct config *config = config_make(format);
	struct dkim_store *store = dkim_store_create(config, error, sizeof(error));

	config_destroy(config); /* it is not needed any more */
	if (!store)
		fail_msg("%s", error);
	return store;
}

static struct dkim_key *key_load(const char *name)
{
	char error[DKIM_ERROR_BYTES];
	struct dkim_key *key = dkim_key_load(path_of(name), error);

	if (!key)
		fail_msg("%s", error);
	return key;
}

/* ── the example of RFC 8463 ──────────────────────────────────────────────────────── */

static void on_body(void *context, struct span bytes)
{
	dkim_hash_add(context, bytes);
}

static void the_body_hash_of_rfc_8463(void **state)
{
	struct dkim_hash *hash = dkim_hash_create();
	uint8_t digest[DKIM_DIGEST_BYTES];
	struct dkim_body body;
	struct dkim_text text;

	(void)state;
	dkim_text_init(&text, TEXT_MAX);
	for (int round = 0; round < 2; round++) { /* a hash is used again */
		dkim_text_reset(&text);
		dkim_hash_begin(hash);
		dkim_body_init(&body, DKIM_RELAXED, on_body, hash);
		dkim_body_feed(&body, span_text(rfc_body));
		dkim_body_end(&body);
		dkim_hash_end(hash, digest);
		dkim_base64(span_of(digest, sizeof(digest)), &text);
		assert_int_equal(text.len, 44);
		assert_memory_equal(text.at, "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=", 44);
	}
	dkim_text_deinit(&text);
	dkim_hash_destroy(hash);
}

static void check_rfc_signature(const char *file, const char *field, const char *expected)
{
	struct dkim_key *key = key_load(file);
	struct dkim_hash *hash = dkim_hash_create();
	uint8_t digest[DKIM_DIGEST_BYTES], signature[DKIM_SIGNATURE_BYTES_MAX];
	struct dkim_text text;
	size_t bytes;

	dkim_text_init(&text, TEXT_MAX);
	dkim_text_add(&text, span_text(rfc_fields));
	dkim_canon_field(DKIM_RELAXED, span_text(field), &text);
	dkim_hash_begin(hash);
	dkim_hash_add(hash, dkim_text_span(&text));
	dkim_hash_end(hash, digest);
	bytes = dkim_key_sign(key, digest, signature);
	dkim_text_reset(&text);
	dkim_base64(span_of(signature, bytes), &text);
	assert_int_equal(text.len, strlen(expected));
	assert_memory_equal(text.at, expected, text.len);
	dkim_text_deinit(&text);
	dkim_hash_destroy(hash);
	dkim_key_destroy(key);
}

static void the_ed25519_signature_of_rfc_8463(void **state)
{
	(void)state;
	check_rfc_signature(
		"e.pem",
		"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
		" d=football.example.com; i=@football.example.com;\r\n"
		" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
		" subject : date : message-id : from : subject : date;\r\n"
		" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
		" b=",
		"/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+"
		"eXdp1Q1Dw==");
}

static void the_rsa_signature_of_rfc_8463(void **state)
{
	(void)state;
	check_rfc_signature(
		"r.pem",
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
		" d=football.example.com; i=@football.example.com;\r\n"
		" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
		" date : message-id : from : subject : date;\r\n"
		" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
		" b=",
		"F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3DhCVlUrSjV4BwcVcOF6+"
		"FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2JzdA+L10TeYt9BgDfQNZtKdN1WO//"
		"KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=");
}

/* ── whole messages ───────────────────────────────────────────────────────────────── */

static const char two_domains[] =
	"dkim {\n"
	" default = \"other.test\"\n"
	" domain \"example.org\" { subdomains = true\n"
	"  key \"e1\" { file = \"%s/e.pem\" } key \"r1\" { file = \"%s/r.pem\" } }\n"
	" domain \"other.test\" { header = \"simple\" body = \"simple\"\n"
	"  key \"e2\" { file = \"%s/e.pem\" } }\n"
	" domain \"deep.example.org\" { key \"e3\" { file = \"%s/e.pem\" } }\n"
	"}\n";

static enum dkim_work sign(struct dkim *dkim, struct dkim_store *store, struct span message,
			   size_t piece)
{
	enum dkim_work work;

	dkim_begin(dkim, dkim_keys_take(store));
	for (size_t at = 0; at < message.len; at += piece)
		dkim_feed(dkim, span_of(message.at + at,
					message.len - at < piece ? message.len - at : piece));
	work = dkim_end(dkim, NOW_S, KEEP_S);
	if (work != DKIM_NOTHING)
		dkim_sign(dkim);
	dkim_let_go(dkim);
	return work;
}

static const struct message_case {
	const char *name, *message;
	enum dkim_work work;
	const char *outcome;
} messages[] = {
	{ "all keys of the domain", "From: a@example.org\r\n\r\nx\r\n", DKIM_LONG,
	  "example.org e1 r1" },
	{ "a domain below it", "From: a@x.Y.example.org\r\n\r\n", DKIM_LONG, "example.org e1 r1" },
	{ "a domain of its own below it", "From: a@deep.example.org\r\n\r\n", DKIM_BRIEF,
	  "deep.example.org e3" },
	{ "the default", "From: a@unknown.test\r\n\r\n", DKIM_BRIEF, "other.test e2" },
	{ "below a domain that has no keys for it", "From: a@x.other.test\r\n\r\n", DKIM_BRIEF,
	  "other.test e2" },
	{ "below a domain below another", "From: a@x.deep.example.org\r\n\r\n", DKIM_LONG,
	  "example.org e1 r1" },
	{ "one key has signed already",
	  "DKIM-Signature: d=example.org; s=r1\r\nFrom: a@example.org\r\n\r\n", DKIM_BRIEF,
	  "example.org e1" },
	{ "all keys have signed already",
	  "DKIM-Signature: d=other.test; s=e2\r\nFrom: a@other.test\r\n\r\n", DKIM_NOTHING,
	  "none: already signed" },
	{ "a signature of somebody else",
	  "DKIM-Signature: d=else.test; s=e2\r\nFrom: a@other.test\r\n\r\n", DKIM_BRIEF,
	  "other.test e2" },
	{ "no From:", "To: a@example.org\r\n\r\n", DKIM_NOTHING, "none: no From:" },
	{ "several From:", "From: a@example.org\r\nFrom: b@example.org\r\n\r\n", DKIM_NOTHING,
	  "none: several From:" },
	{ "an empty message", "", DKIM_NOTHING, "none: no From:" },
};

static void check_message(void **state)
{
	const struct message_case *row = *state;
	struct dkim_store *store = store_make(two_domains);
	struct dkim *dkim = dkim_create();

	assert_int_equal(sign(dkim, store, span_text(row->message), 1000), row->work);
	assert_string_equal(dkim_outcome(dkim), row->outcome);
	if (row->work == DKIM_NOTHING)
		assert_int_equal(dkim_prefix(dkim).len, 0);
	else
		assert_memory_equal(dkim_prefix(dkim).at, "DKIM-Signature: v=1; a=", 23);
	dkim_destroy(dkim);
	dkim_store_destroy(store);
}

static void pieces_of_one_byte_give_the_same_signature(void **state)
{
	static const char message[] =
		"Subject: folded\r\n \t and 8-bit \xe4\xf6\r\nFROM : \"A\" <a@Example.org>\r\n"
		"To: x\r\nTo: y\r\nDate: now\r\n\r\n"
		"--b\r\nContent-Type: multipart/mixed\r\n\r\n  two  spaces \r\n\r\n\r\nend";
	struct dkim_store *store = store_make(two_domains);
	struct dkim *dkim = dkim_create();
	char *whole;
	size_t bytes;

	(void)state;
	sign(dkim, store, span_text(message), sizeof(message));
	bytes = dkim_prefix(dkim).len;
	whole = malloc(bytes);
	memcpy(whole, dkim_prefix(dkim).at, bytes);
	for (size_t piece = 1; piece < 30; piece += 3) {
		sign(dkim, store, span_text(message), piece); /* the same one again */
		assert_int_equal(dkim_prefix(dkim).len, bytes);
		assert_memory_equal(dkim_prefix(dkim).at, whole, bytes);
	}
	assert_null(memmem(whole, bytes, "\n.", 2));
	assert_null(memmem(whole, bytes, "l=", 2));
	assert_non_null(memmem(whole, bytes, "t=1700000000;", 13));
	assert_non_null(memmem(whole, bytes, "x=1700605800;", 13)); /* 7 d after KEEP_S */
	assert_non_null(memmem(whole, bytes, "h=From:From:To:To:To:Subject:Subject:", 37));
	free(whole);
	dkim_destroy(dkim);
	dkim_store_destroy(store);
}

/* ── key files ────────────────────────────────────────────────────────────────────── */

static const struct file_case {
	const char *name, *text;
	mode_t mode;
	const char *says; /* in what is said */
} files[] = {
	{ "a key that everybody may read", rfc8463_edwards, 0604, "is open to others (mode 0604)" },
	{ "a key that a group may write", rfc8463_edwards, 0660, "is open to others (mode 0660)" },
	{ "not a key", "hello\n", 0600, "holds no private key" },
	{ "a key with a passphrase", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", 0600,
	  "holds no private key" },
};

static void check_file(void **state)
{
	const struct file_case *row = *state;
	char error[DKIM_ERROR_BYTES] = "";

	assert_null(dkim_key_load(file_make("bad.pem", row->text, row->mode), error));
	if (!strstr(error, row->says))
		fail_msg("%s", error);
}

static void a_key_that_is_not_there(void **state)
{
	char error[DKIM_ERROR_BYTES] = "";

	(void)state;
	assert_null(dkim_key_load(path_of("nowhere.pem"), error));
	assert_non_null(strstr(error, "cannot be read"));
}

static void keys_are_replaced_while_a_message_is_signed(void **state)
{
	static const char other[] = "dkim { domain \"example.org\" { key \"new\" { file = "
				    "\"%s/e.pem\" } } }\n";
	static const char broken[] = "dkim { domain \"example.org\" { key \"x\" { file = "
				     "\"%s/nowhere.pem\" } } }\n";
	struct dkim_store *store = store_make(two_domains);
	struct config *config = config_make(other), *bad = config_make(broken);
	struct dkim *dkim = dkim_create();
	struct dkim_set *next;
	char error[1024];

	(void)state;
	dkim_begin(dkim, dkim_keys_take(store));
	dkim_feed(dkim, span_text("From: a@example.org\r\n\r\n"));
	assert_true(dkim_keys_read(config, &next, error, sizeof(error)));
	dkim_store_put(store, next);
	assert_int_equal(dkim_end(dkim, NOW_S, KEEP_S), DKIM_LONG);
	dkim_sign(dkim);
	assert_string_equal(dkim_outcome(dkim), "example.org e1 r1");
	sign(dkim, store, span_text("From: a@example.org\r\n\r\n"), 100);
	assert_string_equal(dkim_outcome(dkim), "example.org new");
	assert_false(dkim_keys_read(bad, &next, error, sizeof(error)));
	assert_non_null(strstr(error, "nowhere.pem cannot be read"));
	sign(dkim, store, span_text("From: a@example.org\r\n\r\n"), 100);
	assert_string_equal(dkim_outcome(dkim), "example.org new");
	dkim_destroy(dkim);
	config_destroy(config);
	config_destroy(bad);
	dkim_store_destroy(store);
}

static void without_domains_nothing_is_signed(void **state)
{
	struct dkim_store *store = store_make("dkim { sign_relayed = true }\n");

	(void)state;
	assert_null(dkim_keys_take(store));
	dkim_store_destroy(store);
}

static void a_generated_key_can_be_loaded(void **state)
{
	(void)state;
	for (enum dkim_kind kind = DKIM_RSA; kind <= DKIM_ED25519; kind++) {
		struct dkim_text pem, made_public, read_public;
		struct dkim_key *made, *read;

		dkim_text_init(&pem, TEXT_MAX);
		dkim_text_init(&made_public, TEXT_MAX);
		dkim_text_init(&read_public, TEXT_MAX);
		made = dkim_key_generate(kind, &pem);
		assert_non_null(made);
		dkim_text_put(&pem, '\0');
		file_make("new.pem", pem.at, 0600);
		read = key_load("new.pem");
		assert_int_equal(dkim_key_kind(read), kind);
		dkim_record_write(made, &made_public);
		dkim_record_write(read, &read_public);
		assert_int_equal(made_public.len, read_public.len);
		assert_memory_equal(made_public.at, read_public.at, made_public.len);
		dkim_key_destroy(made);
		dkim_key_destroy(read);
		dkim_text_deinit(&pem);
		dkim_text_deinit(&made_public);
		dkim_text_deinit(&read_public);
	}
}

/* ── records ──────────────────────────────────────────────────────────────────────── */

#define PUBLIC "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

static const struct record_case {
	const char *name, *record, *wrong;
} records[] = {
	{ "as RFC 8463 has it", "v=DKIM1; k=ed25519; p=" PUBLIC, NULL },
	{ "white space and further tags",
	  " v = DKIM1 ;k= ed25519;n=x=y;s=email;h=sha1:sha256; p=11qYAYKxCrfVS/7TyWQH\t"
	  "Og7hcvPapiMlrwIaaPcHURo= ;",
	  NULL },
	{ "without version", "k=ed25519; p=" PUBLIC, NULL },
	{ "another key", "v=DKIM1; k=ed25519; p=22qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
	  "it has another key" },
	{ "a key cut short", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7", "it has another key" },
	{ "no kind means RSA", "v=DKIM1; p=" PUBLIC, "its key is of another kind" },
	{ "revoked", "v=DKIM1; k=ed25519; p=", "its key is revoked (p= is empty)" },
	{ "no key", "v=DKIM1; k=ed25519", "it has no key" },
	{ "another version", "v=DKIM2; k=ed25519; p=" PUBLIC, "it does not begin with v=DKIM1" },
	{ "the version is not first", "k=ed25519; v=DKIM1; p=" PUBLIC,
	  "it does not begin with v=DKIM1" },
	{ "a tag like the version is first", "vx=1; v=DKIM1; k=ed25519; p=" PUBLIC,
	  "it does not begin with v=DKIM1" },
	{ "only for sha1", "v=DKIM1; h=sha1; k=ed25519; p=" PUBLIC,
	  "it does not allow sha256 (h=)" },
	{ "for something else", "v=DKIM1; s=tlsrpt; k=ed25519; p=" PUBLIC,
	  "it is not for e-mail (s=)" },
	{ "nothing", "", "it has no key" },
};

static void check_record(void **state)
{
	const struct record_case *row = *state;
	struct dkim_key *key = key_load("e.pem");
	const char *wrong = dkim_record_check(span_text(row->record), key);

	assert_string_equal(wrong ? wrong : "", row->wrong ? row->wrong : "");
	dkim_key_destroy(key);
}

static void the_flag_for_tests(void **state)
{
	(void)state;
	assert_true(dkim_record_is_test(span_text("v=DKIM1; t=s:y; p=x")));
	assert_false(dkim_record_is_test(span_text("v=DKIM1; t=s; p=y")));
}

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(the_body_hash_of_rfc_8463),
		cmocka_unit_test(the_ed25519_signature_of_rfc_8463),
		cmocka_unit_test(the_rsa_signature_of_rfc_8463),
		cmocka_unit_test(pieces_of_one_byte_give_the_same_signature),
		cmocka_unit_test(a_key_that_is_not_there),
		cmocka_unit_test(keys_are_replaced_while_a_message_is_signed),
		cmocka_unit_test(without_domains_nothing_is_signed),
		cmocka_unit_test(a_generated_key_can_be_loaded),
		cmocka_unit_test(the_flag_for_tests),
	};
	struct CMUnitTest rows[array_count(others) + array_count(messages) + array_count(files) +
			       array_count(records)];
	size_t count = array_count(others);

	memcpy(rows, others, sizeof(others));
	for (size_t i = 0; i < array_count(messages); i++)
		rows[count++] = (struct CMUnitTest){ messages[i].name, check_message, NULL, NULL,
						     (void *)&messages[i] };
	for (size_t i = 0; i < array_count(files); i++)
		rows[count++] = (struct CMUnitTest){ files[i].name, check_file, NULL, NULL,
						     (void *)&files[i] };
	for (size_t i = 0; i < array_count(records); i++)
		rows[count++] = (struct CMUnitTest){ records[i].name, check_record, NULL, NULL,
						     (void *)&records[i] };
	return _cmocka_run_group_tests("DKIM with keys", rows, count, set_up, tear_down);
}
