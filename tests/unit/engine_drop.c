/*
 * A drop directory in which something can't be read. The folder and its files are real; the
 * intake, the loop and the queue are stand-ins, and what they would do later they do at once.
 *
 * Files are looked at by their names: those that begin with 'x' come first, and the fault is
 * theirs alone.
 */
#include "engine/inbound/drop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "engine/inbound/drop_file.h"
#include "engine/inbound/intake.h"
#include "queue/envelope.h"

enum { FILES_MAX = 1000, NAME_ROOM = 64, LOOKS_PER_S = 10, PAUSE_MS = 5 * 60 * 1000 };

enum fault {
	FAULT_NONE,
	FAULT_OPEN,
	FAULT_FACTS,
	FAULT_HEAD,
	FAULT_ENVELOPE,
	FAULT_BODY,
	FAULT_RENAME,
};

static struct {
	struct worker worker;
	struct engine engine;
	struct intake intake;
	struct drop *drop;
	struct timer *timer;
	struct os_mono now, next; /* the clock; when the next look begins */
	char path[NAME_ROOM];
	int folder;
	char names[FILES_MAX][NAME_ROOM]; /* as they are listed */
	uint32_t name_count;
	char hand[NAME_ROOM]; /* the file that was opened last */
	enum fault fault;
	int error;
	uint32_t faults, taken, told;
} scene;

static bool fails(enum fault fault)
{
	bool failing = scene.fault == fault && scene.hand[0] == 'x';

	scene.faults += failing;
	return failing;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
int __real_os_file_open(int folder, const char *name, int flags, mode_t mode);
int __wrap_os_file_open(int folder, const char *name, int flags, mode_t mode);
int __real_os_file_facts(int fd, struct os_file_facts *out);
int __wrap_os_file_facts(int fd, struct os_file_facts *out);
ssize_t __real_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
int __real_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context);
int __wrap_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context);
int __real_os_rename(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_os_rename(int from_folder, const char *from, int to_folder, const char *to);
struct os_mono __wrap_os_mono_now(void);

int __wrap_os_file_open(int folder, const char *name, int flags, mode_t mode)
{
	snprintf(scene.hand, sizeof(scene.hand), "%s", name);
	return fails(FAULT_OPEN) ? scene.error : __real_os_file_open(folder, name, flags, mode);
}

int __wrap_os_file_facts(int fd, struct os_file_facts *out)
{
	return fails(FAULT_FACTS) ? scene.error : __real_os_file_facts(fd, out);
}

ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	return fails(offset == 0 ? FAULT_HEAD : FAULT_ENVELOPE)
		       ? scene.error
		       : __real_os_file_read(fd, bytes, count, offset);
}

static int each_name(void *context, const char *name)
{
	(void)context;
	assert_true(scene.name_count < FILES_MAX);
	snprintf(scene.names[scene.name_count++], NAME_ROOM, "%s", name);
	return 0;
}

static int by_name(const void *one, const void *other)
{
	return strcmp(one, other);
}

int __wrap_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context)
{
	int result;

	scene.name_count = 0;
	result = __real_os_folder_list(folder, each_name, NULL);
	qsort(scene.names, scene.name_count, NAME_ROOM, by_name);
	for (uint32_t i = 0; i < scene.name_count && result == 0; i++)
		result = each(context, scene.names[i]);
	return result;
}

int __wrap_os_rename(int from_folder, const char *from, int to_folder, const char *to)
{
	return fails(FAULT_RENAME) ? scene.error
				   : __real_os_rename(from_folder, from, to_folder, to);
}

struct os_mono __wrap_os_mono_now(void)
{
	return scene.now;
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* ── the loop ─────────────────────────────────────────────────────────────────────── */

struct os_mono os_loop_mono(const struct os_loop *loop)
{
	(void)loop;
	return scene.now;
}

void os_close(int fd)
{
	os_file_close(fd);
}

void os_offload(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	(void)loop;
	run(op);
	op->done(op);
}

void os_read(struct os_loop *loop, struct os_op *op, int fd, void *bytes, size_t count,
	     uint64_t offset)
{
	(void)loop;
	op->result = fails(FAULT_BODY) ? scene.error
				       : (int32_t)__real_os_file_read(fd, bytes, count, offset);
	op->done(op);
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
	timer->fire = fire;
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, struct os_mono when)
{
	(void)wheel;
	scene.timer = timer;
	scene.next = when;
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
	(void)wheel;
	(void)timer;
}

void log_notice(enum log_level level, const char *format, ...)
{
	(void)level;
	assert_non_null(format);
	scene.told++;
}

/* ── the intake and the queue ─────────────────────────────────────────────────────── */

void intake_pool_init(struct intake_pool *pool, struct worker *worker)
{
	pool->worker = worker;
}

void intake_pool_deinit(struct intake_pool *pool)
{
	(void)pool;
}

struct intake *intake_begin(struct intake_pool *pool, const struct smtp_mail *mail)
{
	(void)pool;
	(void)mail;
	smtp_scan_init(&scene.intake.scan);
	envelope_builder_reset(scene.intake.envelope);
	return &scene.intake;
}

void intake_recipient(struct intake *intake, const struct smtp_rcpt *rcpt)
{
	(void)intake;
	(void)rcpt;
}

bool intake_open(struct intake *intake, const struct smtp_greeting *greeting,
		 const struct session_facts *facts)
{
	(void)intake;
	(void)greeting;
	(void)facts;
	return true;
}

void intake_body(struct intake *intake, struct span bytes)
{
	smtp_scan_feed(&intake->scan, bytes);
}

bool intake_commit(struct intake *intake, intake_verdict *verdict, void *context)
{
	static const struct smtp_answer taken = { 250, "2.0.0", "Ok" };

	scene.taken++;
	verdict(context, intake, &taken);
	return true;
}

void intake_drop(struct intake *intake)
{
	(void)intake;
}

void queue_stream_stats(const struct queue_stream *stream, struct queue_stats *out)
{
	(void)stream;
	*out = (struct queue_stats){ 0 };
}

enum queue_status queue_stream_room(const struct queue_stream *stream, uint64_t bytes)
{
	(void)stream;
	(void)bytes;
	return QUEUE_OK;
}

bool queue_message_may_append(struct queue_message *message, void (*resume)(void *context),
			      void *context)
{
	(void)message;
	(void)resume;
	(void)context;
	return true;
}

void queue_origin_gone(struct queue_stream *stream)
{
	(void)stream;
}

/* ── a scene ──────────────────────────────────────────────────────────────────────── */

/* Its file's name begins with a dot: not one of those that are taken in. */
static struct config *load_config(void)
{
	char path[NAME_ROOM + 8], error[256] = "";
	struct config *config;
	FILE *file;

	snprintf(path, sizeof(path), "%s/.conf", scene.path);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "hostname = \"mx.example\"\nspool = \"%s\"\ndrop = \"%s\"\n", scene.path,
		scene.path);
	fclose(file);
	config = config_load(path, error, sizeof(error));
	assert_string_equal(error, "");
	return config;
}

static int scene_begin(void **state)
{
	static struct queue_stream *streams[1];

	(void)state;
	memset(&scene, 0, sizeof(scene));
	strcpy(scene.path, "/tmp/stafette-drop-XXXXXX");
	assert_non_null(mkdtemp(scene.path));
	assert_int_equal(chmod(scene.path, 01733), 0);
	scene.folder = os_file_open(OS_CURRENT_FOLDER, scene.path, OS_READ | OS_FOLDER, 0);
	assert_true(scene.folder >= 0);
	scene.worker.config = load_config();
	scene.engine.worker_count = 1;
	scene.worker.engine = &scene.engine;
	scene.worker.streams = streams;
	scene.intake.envelope = envelope_builder_create();
	assert_non_null(scene.intake.envelope);
	scene.drop = drop_create(&scene.worker);
	assert_non_null(scene.drop);
	scene.told = 0;
	return 0;
}

static int scene_end(void **state)
{
	char command[NAME_ROOM + 16];

	(void)state;
	drop_destroy(scene.drop);
	config_destroy((struct config *)scene.worker.config);
	envelope_builder_destroy(scene.intake.envelope);
	os_file_close(scene.folder);
	snprintf(command, sizeof(command), "rm -rf %s", scene.path);
	return system(command);
}

static void leave(const char *name)
{
	struct span body = span_text("Subject: kept\r\n\r\n"), envelope;
	struct envelope_recipient recipient = { .address = span_text("r@ours.example"),
						.domain = span_text("ours.example") };
	struct envelope_builder *builder = envelope_builder_create();
	struct drop_head head;
	int fd = os_file_open(scene.folder, name, OS_WRITE | OS_CREATE_NEW, 0600);

	assert_true(fd >= 0);
	envelope_set_sender(builder, span_text(""));
	envelope_add_recipient(builder, &recipient);
	assert_true(envelope_seal(builder, &envelope));
	drop_head_fill(&head, 0, envelope, body);
	os_file_write(fd, &head, sizeof(head), 0);
	os_file_write(fd, envelope.at, envelope.len, sizeof(head));
	os_file_write(fd, body.at, body.len, sizeof(head) + envelope.len);
	os_file_close(fd);
	envelope_builder_destroy(builder);
}

static void leave_many(uint32_t count)
{
	char name[NAME_ROOM];

	for (uint32_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "x%03u", i);
		leave(name);
	}
}

static void look(void)
{
	scene.now = scene.next;
	scene.timer->fire(scene.timer);
	assert_true(drop_idle(scene.drop));
}

static void look_for_ms(uint64_t ms)
{
	struct os_mono end = os_mono_add_ms(scene.now, ms);

	for (uint32_t i = 0; scene.next.ns <= end.ns; i++) {
		assert_true(i < (1 + ms / 1000) * LOOKS_PER_S); /* or it spins */
		look();
	}
}

static uint32_t files_in(const char *name)
{
	int folder = os_file_open(scene.folder, name, OS_READ | OS_FOLDER, 0);

	assert_true(folder >= 0);
	scene.name_count = 0;
	assert_int_equal(__real_os_folder_list(folder, each_name, NULL), 0);
	os_file_close(folder);
	return scene.name_count;
}

/* Beside bad/ and the configuration. */
static uint32_t files_left(void)
{
	return files_in(".") - 2;
}

/* ── what can't be read ───────────────────────────────────────────────────────────── */

static const struct unreadable_case {
	const char *name;
	enum fault fault;
	int error;
} unreadable[] = {
	{ "a file that can't be opened is passed over", FAULT_OPEN, -EIO },
	{ "one without its facts is", FAULT_FACTS, -EIO },
	{ "one whose head can't be read is", FAULT_HEAD, -EIO },
	{ "one whose envelope can't be read is", FAULT_ENVELOPE, -EIO },
	{ "one whose body can't be read is", FAULT_BODY, -EIO },
	{ "so it is with any error of a read", FAULT_BODY, -ETIMEDOUT },
};

static void unreadable_row(void **state)
{
	const struct unreadable_case *row = *state;

	leave_many(2);
	leave("y");
	scene.fault = row->fault;
	scene.error = row->error;
	look();
	assert_int_equal(scene.taken, 1); /* in the same look */
	assert_int_equal(files_left(), 2);
	assert_int_equal(scene.told, 2);

	look_for_ms(3 * PAUSE_MS);
	assert_int_equal(files_left(), 2);
	assert_int_equal(files_in(DROP_BAD_FOLDER), 0);
	assert_int_equal(scene.told, 2);	     /* once for each name */
	assert_in_range(scene.faults, 2 * 3, 2 * 4); /* now and then */

	scene.fault = FAULT_NONE;
	look_for_ms(PAUSE_MS + 2000);
	assert_int_equal(scene.taken, 3);
	assert_int_equal(files_left(), 0);
}

static const struct shortage_case {
	const char *name;
	enum fault fault;
	int error;
} shortages[] = {
	{ "no descriptor ends the look", FAULT_OPEN, -EMFILE },
	{ "none on this host does", FAULT_OPEN, -ENFILE },
	{ "no memory for an opening does", FAULT_OPEN, -ENOMEM },
	{ "no memory for a read does", FAULT_BODY, -ENOMEM },
};

static void shortage_row(void **state)
{
	const struct shortage_case *row = *state;

	leave_many(2);
	leave("y");
	scene.fault = row->fault;
	scene.error = row->error;
	look();
	look();
	assert_int_equal(scene.taken, 0);
	assert_int_equal(scene.faults, 2); /* it is no file's fault: one a look */
	assert_int_equal(scene.told, 0);
	scene.fault = FAULT_NONE;
	look();
	assert_int_equal(scene.taken, 3);
}

static const struct many_case {
	const char *name;
	uint32_t count;
} many[] = {
	{ "as many as a look takes starve nobody", 64 },
	{ "one more does not", 65 },
	{ "many do not", 300 },
	{ "nor more than are remembered", 700 },
};

static void many_row(void **state)
{
	const struct many_case *row = *state;

	leave_many(row->count);
	leave("y");
	scene.fault = FAULT_BODY;
	scene.error = -EIO;
	look_for_ms(1000);
	assert_int_equal(scene.taken, 1);
	leave("z");
	look_for_ms(3000);
	assert_int_equal(scene.taken, 2);
	look_for_ms(PAUSE_MS - 10000);
	assert_in_range(scene.told, row->count < 256 ? row->count : 256, row->count);
	scene.fault = FAULT_NONE;
	look_for_ms(PAUSE_MS + 2000);
	assert_int_equal(scene.taken, row->count + 2);
	assert_int_equal(files_left(), 0);
}

static void test_what_cannot_be_moved_away(void **state)
{
	(void)state;
	os_file_close(os_file_open(scene.folder, "x", OS_WRITE | OS_CREATE_NEW, 0600));
	leave("y");
	scene.fault = FAULT_RENAME;
	scene.error = -EROFS;
	look_for_ms(2 * PAUSE_MS + 10000);
	assert_int_equal(scene.taken, 1);
	assert_int_equal(files_left(), 1);
	assert_int_equal(scene.told, 1);
	assert_int_equal(scene.faults, 3);

	scene.fault = FAULT_NONE;
	look_for_ms(PAUSE_MS);
	assert_int_equal(files_left(), 0);
	assert_int_equal(files_in(DROP_BAD_FOLDER), 1);
	assert_int_equal(scene.told, 2);
}

int main(void)
{
	static struct CMUnitTest
		tests[array_count(unreadable) + array_count(shortages) + array_count(many) + 1];
	size_t count = 0;

	for (size_t i = 0; i < array_count(unreadable); i++)
		tests[count++] =
			(struct CMUnitTest){ unreadable[i].name, unreadable_row, scene_begin,
					     scene_end, (void *)&unreadable[i] };
	for (size_t i = 0; i < array_count(shortages); i++)
		tests[count++] = (struct CMUnitTest){ shortages[i].name, shortage_row, scene_begin,
						      scene_end, (void *)&shortages[i] };
	for (size_t i = 0; i < array_count(many); i++)
		tests[count++] = (struct CMUnitTest){ many[i].name, many_row, scene_begin,
						      scene_end, (void *)&many[i] };
	tests[count++] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(
		test_what_cannot_be_moved_away, scene_begin, scene_end);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
