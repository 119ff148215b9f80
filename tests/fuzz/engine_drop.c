/*
 * The drop directory, to which any local user writes: one file of any bytes, its head made to fit
 * them or not. It is taken in and removed, or it is in bad/; and what is taken in says nothing
 * that a client of the network could not say. The intake behind is a stand-in; so are the loop
 * and the queue, and what they would do later they do at once.
 *
 *   input: { head as given?, verdict, octets of the envelope / 256 and % 256 }, envelope, body
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/inbound/drop.h"
#include "engine/inbound/drop_file.h"
#include "engine/inbound/intake.h"
#include "engine/smtp/params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NAME_ROOM = 128, CONTROL_BYTES = 4 };

static struct {
	struct worker worker;
	struct engine engine;
	struct drop *drop;
	struct timer *timer;
	char folder[64], file[NAME_ROOM];
	int bad;	   /* the folder */
	struct span given; /* the body */
	struct smtp_answer answer;
	struct intake intake;
	uint32_t recipients;
	size_t body_len;
	bool begun, taken, gone;
} scene;

/* ── the intake ───────────────────────────────────────────────────────────────────── */

/* A parameter as a client may send it: nothing that ends the word, or the line. */
static void check_param(const char *name, struct span value)
{
	static const struct smtp_session_options offered = { .dsn = true };
	struct smtp_mail mail = { .envid.len = 0 };
	struct smtp_rcpt rcpt = { .orcpt.len = 0 };
	char text[1024];
	size_t len = (size_t)snprintf(text, sizeof(text), " %s=", name);

	assert(len + value.len <= sizeof(text));
	memcpy(text + len, value.at, value.len);
	len += value.len;
	if (strcmp(name, "ORCPT") == 0)
		assert(smtp_params_rcpt(span_of(text, len), &offered, true, &rcpt) ==
			       SMTP_PARAMS_OK &&
		       span_equal(rcpt.orcpt, value));
	else
		assert(smtp_params_mail(span_of(text, len), &offered, &mail) == SMTP_PARAMS_OK &&
		       span_equal(mail.envid, value));
}

static void check_address(const struct smtp_address *address)
{
	struct smtp_address again;

	assert(smtp_address_parse(smtp_address_span(address), true, &again) == SMTP_ADDRESS_OK);
	assert(span_equal(smtp_address_span(address), smtp_address_span(&again)));
}

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
	assert(!scene.begun && pool->worker == &scene.worker);
	if (mail->sender.len > 0)
		check_address(&mail->sender);
	if (mail->envid.len > 0)
		check_param("ENVID", mail->envid);
	assert(mail->ret == 'F' || mail->ret == 'H' || mail->ret == '\0');
	scene.begun = true;
	scene.recipients = 0;
	scene.body_len = 0;
	smtp_scan_init(&scene.intake.scan);
	envelope_builder_reset(scene.intake.envelope);
	return &scene.intake;
}

void intake_recipient(struct intake *intake, const struct smtp_rcpt *rcpt)
{
	(void)intake;
	check_address(&rcpt->recipient);
	if (rcpt->orcpt.len > 0)
		check_param("ORCPT", rcpt->orcpt);
	assert(rcpt->notify < 16 && (!(rcpt->notify & 1) || rcpt->notify == 1));
	scene.recipients++;
}

bool intake_open(struct intake *intake, const struct smtp_greeting *greeting,
		 const struct session_facts *facts)
{
	assert(intake->from_file && greeting->name.len > 4 && facts->user.len == 0);
	return true;
}

void intake_body(struct intake *intake, struct span bytes)
{
	assert(scene.body_len + bytes.len <= scene.given.len);
	assert(memcmp(scene.given.at + scene.body_len, bytes.at, bytes.len) == 0);
	scene.body_len += bytes.len;
	smtp_scan_feed(&intake->scan, bytes);
}

bool intake_commit(struct intake *intake, intake_verdict *verdict, void *context)
{
	assert(scene.recipients > 0 && scene.recipients <= scene.worker.config->recipients_max);
	assert(scene.body_len == scene.given.len && !intake->scan.bare_lf);
	if (scene.answer.code == 0) { /* refused for what only the whole shows */
		intake->refusal = (struct smtp_answer){ 554, "5.6.0", "Refused" };
		return false;
	}
	scene.taken = scene.answer.code / 100 == 2;
	verdict(context, intake, scene.answer.code == 1 ? NULL : &scene.answer);
	return true;
}

void intake_drop(struct intake *intake)
{
	assert(intake == &scene.intake && scene.begun);
}

/* ── the loop and the queue ───────────────────────────────────────────────────────── */

struct os_mono os_loop_mono(const struct os_loop *loop)
{
	(void)loop;
	return (struct os_mono){ 0 };
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
	op->result = (int32_t)pread(fd, bytes, count < 1000 ? count : 1000, (off_t)offset);
	op->done(op);
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
	timer->fire = fire;
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, struct os_mono when)
{
	(void)wheel;
	(void)when;
	scene.timer = timer;
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
	(void)wheel;
	(void)timer;
}

void log_notice(enum log_level level, const char *format, ...)
{
	(void)level;
	assert(format);
}

void queue_stream_stats(const struct queue_stream *stream, struct queue_stats *out)
{
	(void)stream;
	*out = (struct queue_stats){ 0 };
}

enum queue_status queue_stream_room(const struct queue_stream *stream, uint64_t bytes)
{
	(void)stream;
	assert(bytes == scene.given.len);
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
	assert(scene.taken && access(scene.file, F_OK) != 0);
	scene.gone = true;
}

/* ── a file ───────────────────────────────────────────────────────────────────────── */

static void remove_folder(void)
{
	char command[128];

	drop_destroy(scene.drop);
	snprintf(command, sizeof(command), "rm -rf %s", scene.folder);
	if (system(command) != 0)
		fprintf(stderr, "%s: still there\n", scene.folder);
}

static void scene_make(void)
{
	static struct queue_stream *streams[1];
	char error[256] = "", path[NAME_ROOM], text[NAME_ROOM];
	FILE *file;

	strcpy(scene.folder, "/dev/shm/stafette-fuzz-XXXXXX");
	assert(mkdtemp(scene.folder) != NULL && chmod(scene.folder, 01733) == 0);
	atexit(remove_folder);
	snprintf(scene.file, sizeof(scene.file), "%s/name", scene.folder);
	snprintf(path, sizeof(path), "%s/.conf", scene.folder);
	snprintf(text, sizeof(text), "hostname = \"mx.example\"\nspool = \"%s\"\ndrop = \"%s\"\n",
		 scene.folder, scene.folder);
	file = fopen(path, "w");
	assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
	scene.worker.config = config_load(path, error, sizeof(error));
	if (!scene.worker.config)
		fprintf(stderr, "%s\n", error);
	assert(scene.worker.config);
	scene.engine.worker_count = 1;
	scene.worker.engine = &scene.engine;
	scene.worker.streams = streams;
	scene.intake.envelope = envelope_builder_create();
	scene.drop = drop_create(&scene.worker);
	assert(scene.drop && scene.intake.envelope);
	snprintf(path, sizeof(path), "%s/" DROP_BAD_FOLDER, scene.folder);
	scene.bad = os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	assert(scene.bad >= 0);
}

static void write_file(const uint8_t *data, size_t size)
{
	size_t envelope_len = (size_t)data[2] << 8 | data[3];
	struct span rest = span_of(data + CONTROL_BYTES, size - CONTROL_BYTES);
	int fd = os_file_open(OS_CURRENT_FOLDER, scene.file, OS_WRITE | OS_CREATE_NEW, 0600);
	struct drop_head head;
	ssize_t at = 0;

	assert(fd >= 0);
	envelope_len = envelope_len < rest.len ? envelope_len : rest.len;
	scene.given = span_skip(rest, envelope_len);
	if (data[0] % 4 != 1) {
		drop_head_fill(&head, data[0] & DROP_UTF8 << 1 ? DROP_UTF8 : 0,
			       span_of(rest.at, envelope_len), scene.given);
		at = os_file_write(fd, &head, sizeof(head), 0);
	} else if (rest.len >= sizeof(head)) { /* all of it as given */
		memcpy(&head, rest.at, sizeof(head));
		scene.given = span_skip(rest, sizeof(head));
		if (head.envelope_bytes < scene.given.len)
			scene.given = span_skip(scene.given, head.envelope_bytes);
	}
	assert(os_file_write(fd, rest.at, rest.len, (uint64_t)at) == (ssize_t)rest.len);
	os_file_close(fd);
}

static int remove_bad(void *context, const char *name)
{
	++*(uint32_t *)context;
	assert(os_unlink(scene.bad, name) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t codes[] = { 250, 250, 250, 250, 250, 451, 550, 1, 0 };
	uint32_t bad = 0;

	if (size < CONTROL_BYTES)
		return 0;
	if (!scene.drop)
		scene_make();
	scene.begun = scene.taken = scene.gone = false;
	scene.answer = (struct smtp_answer){ codes[data[1] % array_count(codes)], "", "" };
	write_file(data, size);
	scene.timer->fire(scene.timer);
	assert(drop_idle(scene.drop));
	assert(os_folder_list(scene.bad, remove_bad, &bad) >= 0);
	if (access(scene.file, F_OK) == 0) /* to be tried again */
		assert(bad == 0 && unlink(scene.file) == 0 &&
		       (scene.answer.code == 451 || scene.answer.code == 1));
	else
		assert(scene.taken ? scene.gone && bad == 0 : bad == 1);
	return 0;
}
