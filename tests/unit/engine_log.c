/*
 * The delivery log: lines are whole and valid JSON, whatever a peer says; losses are told.
 */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/log/escape.h"
#include "engine/log/log.h"
#include "os/check.h"

/* ── escaping ─────────────────────────────────────────────────────────────────────── */

static const struct escape_case {
	const char *name, *text, *expected;
	size_t room; /* 0: plenty */
} escapes[] = {
	{ "plain text passes", "250 2.0.0 ok", "250 2.0.0 ok", 0 },
	{ "empty text stays empty", "", "", 0 },
	{ "quotes get a backslash", "a\"b\\c", "a\\\"b\\\\c", 0 },
	{ "line ends cannot forge a line", "a\r\nb", "a\\u000d\\u000ab", 0 },
	{ "DEL is escaped", "\x7f", "\\u007f", 0 },
	{ "valid UTF-8 passes", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xae",
	  "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xae", 0 },
	{ "a C1 control is escaped", "a\xc2\x9bz", "a\\u009bz", 0 },
	{ "a line separator is escaped", "a\xe2\x80\xa8z", "a\\u2028z", 0 },
	{ "a paragraph separator is escaped", "\xe2\x80\xa9", "\\u2029", 0 },
	{ "a right-to-left override is escaped", "\xe2\x80\xae", "\\u202e", 0 },
	{ "an isolate is escaped", "\xe2\x81\xa6", "\\u2066", 0 },
	{ "a mark of direction is escaped", "\xe2\x80\x8f", "\\u200f", 0 },
	{ "a joiner, which words need, passes", "\xe2\x80\x8d", "\xe2\x80\x8d", 0 },
	{ "a byte order mark is escaped", "\xef\xbb\xbf", "\\ufeff", 0 },
	{ "U+00A0 passes", "\xc2\xa0", "\xc2\xa0", 0 },
	{ "a lone tail byte is escaped", "a\x80z", "a\\u0080z", 0 },
	{ "an overlong slash is escaped", "\xc0\xaf", "\\u00c0\\u00af", 0 },
	{ "an overlong of three is escaped", "\xe0\x80\xaf", "\\u00e0\\u0080\\u00af", 0 },
	{ "a surrogate is escaped", "\xed\xa0\x80", "\\u00ed\\u00a0\\u0080", 0 },
	{ "beyond U+10FFFF is escaped", "\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080", 0 },
	{ "a character cut short is escaped", "a\xe2\x82", "a\\u00e2\\u0082", 0 },
	{ "no room for a whole escape ends the text", "abc\n", "abc", 8 },
	{ "no room for a whole character ends it", "a\xe2\x82\xac", "a", 3 },
	{ "what fits exactly is taken", "a\xe2\x82\xac", "a\xe2\x82\xac", 4 },
};

static void escape_test(void **state)
{
	const struct escape_case *row = *state;
	size_t room = row->room > 0 ? row->room : 256, used;
	char out[256];
	size_t taken = log_escape(span_text(row->text), out, room, &used);

	assert_int_equal(used, strlen(row->expected));
	assert_memory_equal(out, row->expected, used);
	if (row->room == 0)
		assert_int_equal(taken, strlen(row->text));
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

struct fixture {
	char folder[64], path[96], moved[96];
	struct log *log;
};

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	strcpy(fixture->folder, "/tmp/engine_log.XXXXXX");
	assert_non_null(mkdtemp(fixture->folder));
	snprintf(fixture->path, sizeof(fixture->path), "%s/log", fixture->folder);
	snprintf(fixture->moved, sizeof(fixture->moved), "%s/log.1", fixture->folder);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	unlink(fixture->path);
	unlink(fixture->moved);
	rmdir(fixture->folder);
	free(fixture);
	return 0;
}

static const struct os_wall noon = { INT64_C(1795348800123456) }; /* 2026-11-22T12:00:00.123456Z */

/* The lines of a file, each parsed; the caller frees the array. */
static json_t *lines_of(const char *path)
{
	json_t *lines = json_array();
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t room = 0;

	assert_non_null(file);
	while (getline(&line, &room, file) > 0) {
		json_error_t error;
		json_t *one = json_loads(line, 0, &error);

		if (one == NULL)
			fail_msg("not JSON: %s in %s", error.text, line);
		json_array_append_new(lines, one);
	}
	free(line);
	fclose(file);
	return lines;
}

static const char *text_of(json_t *lines, size_t index, const char *key)
{
	return json_string_value(json_object_get(json_array_get(lines, index), key));
}

static void line_test(void **state)
{
	struct fixture *fixture = *state;
	struct log_channel *channel;
	FILE *file;
	char line[256] = "";

	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	channel = log_channel(fixture->log, 0);
	log_begin(channel, noon, "delivered");
	log_text(channel, "id", span_text("0123456789ABC"));
	log_number(channel, "least", INT64_MIN);
	log_number(channel, "none", 0);
	log_end(channel);
	log_close(fixture->log);
	file = fopen(fixture->path, "re");
	assert_non_null(fgets(line, sizeof(line), file));
	fclose(file);
	assert_string_equal(
		line, "{\"time\":\"2026-11-22T12:00:00.123Z\",\"event\":\"delivered\","
		      "\"id\":\"0123456789ABC\",\"least\":-9223372036854775808,\"none\":0}\n");
}

/* What a daemon that was killed in the middle of a write has left. */
static void torn_test(void **state)
{
	struct fixture *fixture = *state;
	FILE *file = fopen(fixture->path, "we");
	char line[256] = "";

	assert_true(fputs("{\"time\":\"2026", file) > 0);
	fclose(file);
	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	log_begin(log_channel(fixture->log, 0), noon, "next");
	log_end(log_channel(fixture->log, 0));
	log_close(fixture->log);
	file = fopen(fixture->path, "re");
	assert_non_null(fgets(line, sizeof(line), file));
	assert_string_equal(line, "{\"time\":\"2026\n");
	assert_non_null(fgets(line, sizeof(line), file));
	assert_string_equal(line, "{\"time\":\"2026-11-22T12:00:00.123Z\",\"event\":\"next\"}\n");
	assert_null(fgets(line, sizeof(line), file));
	fclose(file);
}

static void time_test(void **state)
{
	struct fixture *fixture = *state;
	struct log_channel *channel;
	json_t *lines;

	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	channel = log_channel(fixture->log, 0);
	for (int i = 0; i < 3; i++) {
		log_begin(channel, (struct os_wall){ noon.us + i * 900000 }, "tick");
		log_end(channel);
	}
	log_close(fixture->log);
	lines = lines_of(fixture->path);
	assert_string_equal(text_of(lines, 0, "time"), "2026-11-22T12:00:00.123Z");
	assert_string_equal(text_of(lines, 1, "time"), "2026-11-22T12:00:01.023Z");
	assert_string_equal(text_of(lines, 2, "time"), "2026-11-22T12:00:01.923Z");
	json_decref(lines);
}

static void long_test(void **state)
{
	struct fixture *fixture = *state;
	struct log_channel *channel;
	static char text[40000];
	json_t *lines;

	memset(text, 0x80, sizeof(text));
	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	channel = log_channel(fixture->log, 0);
	log_begin(channel, noon, "refused");
	log_text(channel, "reply", span_of(text, sizeof(text)));
	log_text(channel, "more", span_of(text, sizeof(text)));
	for (int i = 0; i < 200; i++)
		log_number(channel, "count", i);
	log_end(channel);
	log_begin(channel, noon, "next");
	log_end(channel);
	log_close(fixture->log);
	lines = lines_of(fixture->path);
	assert_int_equal(json_array_size(lines), 2);
	assert_true(json_is_true(json_object_get(json_array_get(lines, 0), "truncated")));
	assert_true(strlen(text_of(lines, 0, "reply")) > 1000);
	assert_non_null(json_object_get(json_array_get(lines, 0), "count"));
	assert_null(json_object_get(json_array_get(lines, 1), "truncated"));
	json_decref(lines);
}

/* ── threads ──────────────────────────────────────────────────────────────────────── */

#define WRITERS	     3
#define WRITER_LINES 20000

struct producer {
	struct log_channel *channel;
	int64_t index;
	struct os_thread *thread;
};

static void produce(void *context)
{
	struct producer *producer = context;

	for (int64_t i = 0; i < WRITER_LINES; i++) {
		log_begin(producer->channel, noon, "delivered");
		log_number(producer->channel, "channel", producer->index);
		log_number(producer->channel, "line", i);
		log_text(producer->channel, "reply", span_text("250 2.0.0 ok: queued\r\n"));
		log_end(producer->channel);
	}
}

/* Every line arrives in its channel's order, or is counted as lost. */
static void channels_test(void **state)
{
	struct fixture *fixture = *state;
	struct producer producers[WRITERS];
	int64_t next[WRITERS] = { 0 }, lost = 0, seen = 0;
	json_t *lines, *line;
	size_t at;

	assert_int_equal(log_open(fixture->path, WRITERS, &fixture->log), 0);
	for (int i = 0; i < WRITERS; i++) {
		producers[i] = (struct producer){ log_channel(fixture->log, (uint32_t)i), i, NULL };
		assert_int_equal(
			os_thread_start(&producers[i].thread, "producer", produce, &producers[i]),
			0);
	}
	for (int i = 0; i < WRITERS; i++)
		os_thread_join(producers[i].thread);
	log_close(fixture->log);
	lines = lines_of(fixture->path);
	json_array_foreach(lines, at, line)
	{
		json_t *channel = json_object_get(line, "channel");
		int64_t number = json_integer_value(json_object_get(line, "line"));

		if (channel == NULL) {
			assert_string_equal(text_of(lines, at, "event"), "log-lost");
			lost += json_integer_value(json_object_get(line, "count"));
			continue;
		}
		assert_true(number >= next[json_integer_value(channel)]);
		next[json_integer_value(channel)] = number + 1;
		seen++;
	}
	assert_int_equal(seen + lost, WRITERS * WRITER_LINES);
	json_decref(lines);
}

#define PATIENCE_MS 60000

static void wait_for_line(const char *path)
{
	for (int i = 0; i < PATIENCE_MS; i++) {
		if (access(path, F_OK) == 0) {
			json_t *lines = lines_of(path);
			size_t count = json_array_size(lines);

			json_decref(lines);
			if (count > 0)
				return;
		}
		usleep(1000);
	}
	fail_msg("%s has no line after a minute", path);
}

/* The writer wakes from its sleep for a single line, and a moved file is left alone after
 * log_reopen(). */
static void reopen_test(void **state)
{
	struct fixture *fixture = *state;
	struct log_channel *channel;

	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	channel = log_channel(fixture->log, 0);
	usleep(400 * 1000); /* longer than its naps */
	log_begin(channel, noon, "one");
	log_end(channel);
	wait_for_line(fixture->path);
	assert_int_equal(rename(fixture->path, fixture->moved), 0);
	log_reopen(fixture->log);
	for (int i = 0; i < PATIENCE_MS && access(fixture->path, F_OK) != 0; i++)
		usleep(1000);
	log_begin(channel, noon, "two");
	log_end(channel);
	log_close(fixture->log);
	json_t *old = lines_of(fixture->moved), *new = lines_of(fixture->path);
	assert_int_equal(json_array_size(old), 1);
	assert_int_equal(json_array_size(new), 1);
	assert_string_equal(text_of(new, 0, "event"), "two");
	json_decref(old);
	json_decref(new);
}

static bool is_open(const char *path)
{
	bool open = false;

	for (int fd = 0; fd < 64 && !open; fd++) {
		char name[32], target[256];
		ssize_t length;

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		length = readlink(name, target, sizeof(target));
		open = length == (ssize_t)strlen(path) && memcmp(target, path, (size_t)length) == 0;
	}
	return open;
}

/* What came before is in the old file, what comes after in the new one; a file that cannot be
 * opened changes nothing. */
static void move_test(void **state)
{
	struct fixture *fixture = *state;
	struct log_channel *channel;
	struct log_target *next;

	assert_int_equal(log_open(fixture->path, 1, &fixture->log), 0);
	channel = log_channel(fixture->log, 0);
	log_begin(channel, noon, "one");
	log_end(channel);
	wait_for_line(fixture->path);
	assert_int_equal(log_target_open("/nowhere/at/all", &next), -ENOENT);
	assert_int_equal(log_target_open(fixture->moved, &next), 0);
	log_move(fixture->log, next);
	for (int i = 0; i < PATIENCE_MS && is_open(fixture->path); i++)
		usleep(1000); /* until the writer has changed */
	log_begin(channel, noon, "two");
	log_end(channel);
	wait_for_line(fixture->moved);
	log_close(fixture->log);
	json_t *old = lines_of(fixture->path), *new = lines_of(fixture->moved);
	assert_int_equal(json_array_size(old), 1);
	assert_int_equal(json_array_size(new), 1);
	assert_string_equal(text_of(new, 0, "event"), "two");
	json_decref(old);
	json_decref(new);
}

/* /dev/full takes nothing: the daemon goes on, and closing does not hang. */
static void full_disk_test(void **state)
{
	struct log *log;

	(void)state;
	assert_int_equal(log_open("/dev/full", 1, &log), 0);
	for (int i = 0; i < 100; i++) {
		log_begin(log_channel(log, 0), noon, "delivered");
		log_end(log_channel(log, 0));
	}
	log_close(log);
}

static void no_folder_test(void **state)
{
	struct log *log;

	(void)state;
	assert_true(log_open("/nonexistent/log", 1, &log) < 0);
}

static void notice_test(void **state)
{
	struct fixture *fixture = *state;
	char line[256] = "";
	int saved = dup(2);
	FILE *file = fopen(fixture->path, "w+e");

	dup2(fileno(file), 2);
	log_notice(LOG_WARNING, "peer said \"%s\"", "hi\n\x1b[2J");
	dup2(saved, 2);
	close(saved);
	rewind(file);
	assert_non_null(fgets(line, sizeof(line), file));
	assert_string_equal(line, "stafetted: warning: peer said \"hi\\u000a\\u001b[2J\"\n");
	fclose(file);
}

int main(void)
{
	struct CMUnitTest tests[array_count(escapes) + 10] = { 0 };
	const struct CMUnitTest others[] = {
		{ "a line has time, event and fields", line_test, setup, teardown, NULL },
		{ "a line that a kill has cut short ends before the next", torn_test, setup,
		  teardown, NULL },
		{ "the time advances within and across seconds", time_test, setup, teardown, NULL },
		{ "a long line is cut and stays JSON", long_test, setup, teardown, NULL },
		{ "lines of all channels arrive or are counted", channels_test, setup, teardown,
		  NULL },
		{ "another file takes over", move_test, setup, teardown, NULL },
		{ "a moved file is let go, and one line wakes the writer", reopen_test, setup,
		  teardown, NULL },
		{ "a full disk stops nothing", full_disk_test, NULL, NULL, NULL },
		{ "a missing folder is an error at once", no_folder_test, NULL, NULL, NULL },
		{ "a notice is one line without controls", notice_test, setup, teardown, NULL },
	};
	size_t count = 0;

	for (size_t i = 0; i < array_count(escapes); i++)
		tests[count++] = (struct CMUnitTest){ escapes[i].name, escape_test, NULL, NULL,
						      (void *)&escapes[i] };
	for (size_t i = 0; i < array_count(others); i++)
		tests[count++] = others[i];
	return cmocka_run_group_tests_name("engine/log", tests, NULL, NULL);
}
