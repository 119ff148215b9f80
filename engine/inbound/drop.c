/*
 * drop - see drop.h. One file at a time, one operation in flight: what is slow about it is the
 * disk, and who keeps mail here waits for nothing.
 */
#include "engine/inbound/drop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/inbound/drop_file.h"
#include "engine/inbound/drop_folder.h"
#include "engine/inbound/intake.h"
#include "engine/inbound/relay.h"
#include "engine/smtp/params.h"

enum {
	LOOK_MS = 2000,
	NAMES_MAX = 64, /* of one look */
	NAME_BYTES = 256,
	PIECE_BYTES = 256 << 10,
	LEFT_MAX = 256,
	LEFT_MS = 5 * 60 * 1000,  /* a try may take long, and fill the spool in vain */
	FRESH_KEPT_S = 36 * 3600, /* an unfinished file: its writer is long dead */
};

enum found { FOUND_GOOD, FOUND_BAD, FOUND_GONE, FOUND_UNREAD };

/* A file that stays where it is: it can't be read, or not be moved away. */
struct left {
	uint64_t name; /* its hash */
	struct os_mono again;
};

struct drop {
	struct worker *worker;
	struct timer timer;
	struct os_op op;
	int folder, bad; /* owned; bad: -1 if there is none */
	char *path;	 /* owned */
	struct intake_pool intakes;
	bool draining;
	bool busy;   /* from a look to the next timer */
	bool broken; /* a sync failed: nothing more is taken in */
	/* Accepted, and its file is still to be removed. */
	bool held, held_told;

	char names[NAMES_MAX][NAME_BYTES]; /* of this look */
	uint32_t name_count, name_at, fresh_seen;
	/* A look begins behind the files before it that stay, until one comes to the folder's end:
	 * however many they are, they starve nobody. */
	uint32_t behind, seen;
	struct left left[LEFT_MAX];

	/* The file in hand. */
	const char *name;
	int fd; /* -1: none */
	struct os_file_facts facts;
	struct drop_head head;
	char *envelope; /* owned */
	enum found found;
	bool hollow; /* no file at all: a link, a pipe */
	int error;   /* FOUND_UNREAD */
	const char *complaint;
	char text[256]; /* a complaint that was put together */
	struct intake *intake;
	char *piece; /* owned */
	uint64_t at; /* of the body */
	uint32_t crc;
};

static void begin_look(struct timer *timer);
static void next_file(struct drop *drop);
static void remove_file(struct drop *drop);

/* ── between files ────────────────────────────────────────────────────────────────── */

static void rest(struct drop *drop, uint32_t ms)
{
	drop->busy = false;
	if (!drop->draining && !drop->broken)
		timer_set(&drop->worker->timers, &drop->timer,
			  os_mono_add_ms(worker_mono(drop->worker), ms));
}

static void let_go(struct drop *drop)
{
	if (drop->fd >= 0)
		os_close(drop->fd);
	drop->fd = -1;
	free(drop->envelope);
	drop->envelope = NULL;
	if (drop->intake)
		intake_drop(drop->intake);
	drop->intake = NULL;
}

/* Not now: everything stays where it is until the next look. */
static void try_later(struct drop *drop)
{
	let_go(drop);
	rest(drop, LOOK_MS);
}

/* ── what stays there ─────────────────────────────────────────────────────────────── */

static bool is_left(const struct drop *drop, const char *name)
{
	uint64_t hash = drop_origin(name, 0).message;

	for (uint32_t i = 0; i < LEFT_MAX; i++)
		if (drop->left[i].name == hash)
			return os_mono_now().ns < drop->left[i].again.ns;
	return false;
}

/* The file in hand is left alone for a while. True: that is news. One for which there is no room
 * is tried in each look, and not told. */
static bool leave(struct drop *drop)
{
	uint64_t hash = drop_origin(drop->name, 0).message;
	struct os_mono now = worker_mono(drop->worker);
	struct left *place = &drop->left[0];
	bool known;

	drop->behind++;
	for (uint32_t i = 0; i < LEFT_MAX && place->name != hash; i++)
		if (drop->left[i].name == hash || drop->left[i].again.ns < place->again.ns)
			place = &drop->left[i];
	known = place->name == hash;
	if (!known && place->again.ns > now.ns)
		return false;
	*place = (struct left){ .name = hash, .again = os_mono_add_ms(now, LEFT_MS) };
	return !known;
}

/* That it can't be read says nothing about what is in it: it may be a good message, and be read
 * when the disk is well again. Want of descriptors or memory is not the file's. */
static void pass_over(struct drop *drop, int error)
{
	if (error == -EMFILE || error == -ENFILE || error == -ENOMEM) {
		try_later(drop);
		return;
	}
	let_go(drop);
	if (leave(drop))
		log_notice(LOG_WARNING,
			   "drop directory %s: %s can't be read: %s; it stays there, and is tried "
			   "again every %d minutes",
			   drop->path, drop->name, strerror(-error), LEFT_MS / 60000);
	next_file(drop);
}

/* ── what is no message of ours ───────────────────────────────────────────────────── */

static void run_spoil(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);
	char name[NAME_BYTES];
	uint32_t random;

	/* A link or a pipe holds nothing that anybody could want back. */
	if (drop->hollow && os_unlink(drop->folder, drop->name) == 0) {
		op->result = 0;
		return;
	}
	os_random(&random, sizeof(random));
	snprintf(name, sizeof(name), "%.200s.%08x", drop->name, random);
	op->result = drop->bad < 0 ? -EACCES : os_rename(drop->folder, drop->name, drop->bad, name);
}

static void on_spoiled(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);

	if (op->result == 0 || op->result == -ENOENT) {
		log_notice(LOG_WARNING,
			   "drop directory %s: %s is not taken in: %s; it is out of the way",
			   drop->path, drop->name, drop->complaint);
	} else if (leave(drop)) {
		log_notice(LOG_WARNING,
			   "drop directory %s: %s is not taken in: %s; it stays there: %s",
			   drop->path, drop->name, drop->complaint, strerror(-op->result));
	}
	next_file(drop);
}

static void spoil(struct drop *drop, const char *complaint)
{
	let_go(drop);
	drop->complaint = complaint;
	drop->op.done = on_spoiled;
	os_offload(drop->worker->loop, &drop->op, run_spoil);
}

/* ── removing what was taken in ───────────────────────────────────────────────────── */

static void run_remove(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);
	int error = os_unlink(drop->folder, drop->name);

	if (error != 0 && error != -ENOENT) {
		op->result = error;
		return;
	}
	op->result = os_file_sync(drop->folder);
	drop->broken = op->result != 0;
}

static void on_removed(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);

	if (op->result == 0) {
		queue_origin_gone(drop->worker->streams[0]);
		drop->held = drop->held_told = false;
		next_file(drop);
		return;
	}
	if (!drop->held_told)
		log_notice(LOG_ERROR,
			   "drop directory %s: %s was taken in, but can't be removed: %s. No more "
			   "is taken in until that works%s",
			   drop->path, drop->name, strerror(-op->result),
			   drop->broken ? " after a restart" : "");
	drop->held_told = true;
	rest(drop, LOOK_MS);
}

static void remove_file(struct drop *drop)
{
	drop->op.done = on_removed;
	os_offload(drop->worker->loop, &drop->op, run_remove);
}

/* ── a message ────────────────────────────────────────────────────────────────────── */

static void on_verdict(void *context, struct intake *intake, const struct smtp_answer *answer)
{
	struct drop *drop = context;

	(void)intake;
	drop->intake = NULL; /* the pool's again */
	if (!answer) {
		/* Once more: what a later start finds of this try is void, or its file goes. */
		try_later(drop);
	} else if (answer->code / 100 == 2) {
		drop->held = true;
		let_go(drop);
		remove_file(drop);
	} else if (answer->code / 100 == 5) {
		snprintf(drop->text, sizeof(drop->text), "%s", answer->text ? answer->text : "");
		spoil(drop, drop->text);
	} else {
		try_later(drop);
	}
}

static void finish_message(struct drop *drop)
{
	struct intake *intake = drop->intake;
	const struct smtp_scan *scan = &intake->scan;
	struct format_origin origin = drop_origin(drop->name, drop->facts.inode);

	if (~drop->crc != drop->head.crc) {
		spoil(drop, "its checksum is wrong");
		return;
	}
	if (scan->bare_cr || scan->bare_lf || !smtp_scan_ends_in_crlf(scan)) {
		spoil(drop, "it has lines that do not end in CR and LF");
		return;
	}
	envelope_add_origin(intake->envelope, &origin);
	if (intake_commit(intake, on_verdict, drop)) {
		drop->intake = NULL; /* until on_verdict() */
		return;
	}
	snprintf(drop->text, sizeof(drop->text), "%s", intake->refusal.text);
	if (intake->refusal.code / 100 == 5)
		spoil(drop, drop->text);
	else
		try_later(drop);
}

static void read_on(void *context);

static void on_piece(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);
	struct span bytes;

	if (op->result <= 0) {
		if (op->result < 0)
			pass_over(drop, op->result);
		else
			spoil(drop, "it became shorter while it was read");
		return;
	}
	bytes = span_of(drop->piece, (size_t)op->result);
	drop->at += bytes.len;
	drop->crc = crc_add(drop->crc, bytes.at, bytes.len);
	intake_body(drop->intake, bytes);
	if (queue_message_may_append(drop->intake->message, read_on, drop))
		read_on(drop);
}

static void read_on(void *context)
{
	struct drop *drop = context;
	uint64_t left = drop->head.body_bytes - drop->at;

	if (left == 0) {
		finish_message(drop);
		return;
	}
	drop->op.done = on_piece;
	os_read(drop->worker->loop, &drop->op, drop->fd, drop->piece,
		left < PIECE_BYTES ? left : PIECE_BYTES,
		sizeof(drop->head) + drop->head.envelope_bytes + drop->at);
}

/* ── its envelope ─────────────────────────────────────────────────────────────────── */

/* What is asked for a recipient could be asked by a client as well: it goes into commands. */
static bool rcpt_sound(const struct drop *drop, const struct smtp_rcpt *rcpt)
{
	return (rcpt->orcpt.len == 0 ||
		smtp_orcpt_valid(rcpt->orcpt, drop->head.flags & DROP_UTF8)) &&
	       smtp_notify_valid(rcpt->notify);
}

/* NULL, or what is wrong with it. A recipient whose route fails is taken: its sender, who was
 * told that the message is kept, gets the report. */
static const char *add_recipients(struct drop *drop, struct span envelope)
{
	const struct config *config = drop->worker->config;
	struct relay_client client = { .address = &drop->intake->client, .trusted = true };
	struct envelope_cursor cursor = { .rest = envelope };
	struct envelope_recipient found;
	uint32_t count = 0;

	while (envelope_next(&cursor, &found)) {
		struct smtp_rcpt rcpt = { .notify = found.notify, .orcpt = found.orcpt };

		if (++count > config->recipients_max)
			return "it has too many recipients";
		if (smtp_address_parse(found.address, true, &rcpt.recipient) != SMTP_ADDRESS_OK ||
		    relay_decide(config, &client, &rcpt.recipient).code == 501)
			return "one of its recipients is no address";
		if (!rcpt_sound(drop, &rcpt))
			return "what it asks for a recipient has no meaning";
		intake_recipient(drop->intake, &rcpt);
	}
	return count > 0 ? NULL : "it has no recipient";
}

static bool has_room(struct drop *drop)
{
	struct worker *worker = drop->worker;
	struct queue_stats stats;

	queue_stream_stats(worker->streams[0], &stats);
	return stats.body_memory < worker->config->memory_bytes / worker->engine->worker_count &&
	       queue_stream_room(worker->streams[0], drop->head.body_bytes) == QUEUE_OK;
}

static bool open_message(struct drop *drop)
{
	struct os_address client = { .family = AF_UNIX };
	struct session_facts facts = {
		.client = &client,
		.tls = span_of("", 0),
		.user = span_of("", 0),
	};
	char owner[32];
	int len = snprintf(owner, sizeof(owner), "uid:%u", drop->facts.owner);
	struct smtp_greeting greeting = { .name = span_of(owner, (size_t)len) };

	/* Who may leave mail here is trusted, like a client of a UNIX socket. */
	snprintf(client.path, sizeof(client.path), "drop");
	drop->intake->from_file = true;
	return intake_open(drop->intake, &greeting, &facts);
}

static void begin_message(struct drop *drop)
{
	struct span envelope = span_of(drop->envelope, drop->head.envelope_bytes);
	struct span sender = envelope_sender(envelope);
	struct span ret = envelope_get(envelope, FORMAT_RET);
	struct smtp_mail mail = {
		.size = drop->head.body_bytes,
		.body = SMTP_BODY_8BITMIME,
		.utf8 = drop->head.flags & DROP_UTF8,
		.ret = ret.len == 1 && (*ret.at == 'F' || *ret.at == 'H') ? *ret.at : '\0',
		.envid = envelope_get(envelope, FORMAT_ENVID),
	};
	const char *complaint;

	if (sender.len > 0 && smtp_address_parse(sender, true, &mail.sender) != SMTP_ADDRESS_OK) {
		spoil(drop, "its sender is no address");
		return;
	}
	if (mail.envid.len > 0 && !smtp_envid_valid(mail.envid)) {
		spoil(drop, "its envelope id has characters that it can't have");
		return;
	}
	drop->intake = has_room(drop) ? intake_begin(&drop->intakes, &mail) : NULL;
	if (!drop->intake) {
		try_later(drop);
		return;
	}
	complaint = add_recipients(drop, envelope);
	if (complaint) {
		spoil(drop, complaint);
	} else if (!open_message(drop)) {
		try_later(drop);
	} else {
		drop->at = 0;
		read_on(drop);
	}
}

/* ── opening ──────────────────────────────────────────────────────────────────────── */

static enum found bad(struct drop *drop, const char *complaint)
{
	drop->complaint = complaint;
	return FOUND_BAD;
}

static enum found unread(struct drop *drop, int error)
{
	drop->error = error;
	return FOUND_UNREAD;
}

static enum found open_failed(struct drop *drop, int error)
{
	switch (error) {
	case -ENOENT:
		return FOUND_GONE;
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
	case -EIO:
		return unread(drop, error);
	case -ELOOP:
		drop->hollow = true;
		return bad(drop, "it is a symbolic link");
	default:
		return bad(drop, "it can't be opened");
	}
}

static enum found read_envelope(struct drop *drop)
{
	uint32_t bytes = drop->head.envelope_bytes;
	ssize_t got;

	drop->envelope = malloc(bytes);
	if (!drop->envelope)
		return unread(drop, -ENOMEM);
	got = os_file_read(drop->fd, drop->envelope, bytes, sizeof(drop->head));
	if (got < 0)
		return unread(drop, (int)got);
	if (got != (ssize_t)bytes)
		return bad(drop, "it became shorter while it was read");
	if (!envelope_check(span_of(drop->envelope, bytes)))
		return bad(drop, "its envelope is damaged");
	drop->crc = crc_add(drop_head_crc(&drop->head), drop->envelope, bytes);
	return FOUND_GOOD;
}

static enum found open_file(struct drop *drop)
{
	const char *complaint;
	ssize_t got;
	int error;

	drop->hollow = false;
	drop->fd = os_file_open(drop->folder, drop->name, OS_READ | OS_STRANGE, 0);
	if (drop->fd < 0)
		return open_failed(drop, drop->fd);
	error = os_file_facts(drop->fd, &drop->facts);
	if (error != 0)
		return unread(drop, error);
	drop->hollow = !drop->facts.regular;
	if (drop->hollow)
		return bad(drop, "it is no regular file");
	if (drop->facts.links != 1)
		return bad(drop, "it has other names (hard links)");
	got = os_file_read(drop->fd, &drop->head, sizeof(drop->head), 0);
	if (got < 0)
		return unread(drop, (int)got);
	if (got != sizeof(drop->head))
		return bad(drop, "it is too short");
	complaint = drop_head_complaint(&drop->head, drop->facts.bytes);
	if (complaint)
		return bad(drop, complaint);
	if (drop->head.body_bytes > drop->worker->config->message_bytes_max)
		return bad(drop, "it is larger than message_bytes_max");
	if (drop->head.body_bytes == 0)
		return bad(drop, "it is empty");
	return read_envelope(drop);
}

static void run_open(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);

	drop->found = open_file(drop);
	op->result = 0;
}

static void on_opened(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);

	switch (drop->found) {
	case FOUND_GOOD:
		begin_message(drop);
		break;
	case FOUND_BAD:
		spoil(drop, drop->complaint);
		break;
	case FOUND_GONE:
		let_go(drop);
		next_file(drop);
		break;
	case FOUND_UNREAD:
		pass_over(drop, drop->error);
		break;
	}
}

static void next_file(struct drop *drop)
{
	if (drop->draining || drop->name_at == drop->name_count) {
		bool more = drop->name_count == NAMES_MAX;

		if (!more)
			drop->behind = 0;
		rest(drop, more ? 0 : LOOK_MS);
		return;
	}
	drop->name = drop->names[drop->name_at++];
	drop->op.done = on_opened;
	os_offload(drop->worker->loop, &drop->op, run_open);
}

/* ── looking ──────────────────────────────────────────────────────────────────────── */

/* What a killed sendmail left behind goes when nobody can be at work on it any more. */
static void sweep_fresh(struct drop *drop, const char *name)
{
	int fd = os_file_open(drop->folder, name, OS_READ | OS_STRANGE, 0);
	struct os_file_facts facts;

	drop->fresh_seen++;
	if (fd < 0)
		return;
	if (os_file_facts(fd, &facts) == 0 && facts.regular &&
	    os_wall_now().us - facts.modified.us > FRESH_KEPT_S * OS_US_PER_S)
		os_unlink(drop->folder, name);
	os_file_close(fd);
}

static int each_name(void *context, const char *name)
{
	struct drop *drop = context;

	if (strncmp(name, DROP_FRESH_PREFIX, sizeof(DROP_FRESH_PREFIX) - 1) == 0 &&
	    drop->fresh_seen < NAMES_MAX)
		sweep_fresh(drop, name);
	if (name[0] == '.' || strcmp(name, DROP_BAD_FOLDER) == 0 || strlen(name) >= NAME_BYTES ||
	    ++drop->seen <= drop->behind)
		return 0;
	if (is_left(drop, name)) {
		drop->behind++;
		return 0;
	}
	memcpy(drop->names[drop->name_count++], name, strlen(name) + 1);
	return drop->name_count == NAMES_MAX;
}

static void run_look(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);
	int result;

	drop->name_count = drop->name_at = drop->fresh_seen = drop->seen = 0;
	result = os_folder_list(drop->folder, each_name, drop);
	op->result = result < 0 ? result : 0;
}

static void on_looked(struct os_op *op)
{
	struct drop *drop = container_of(op, struct drop, op);

	next_file(drop);
}

static void begin_look(struct timer *timer)
{
	struct drop *drop = container_of(timer, struct drop, timer);

	drop->busy = true;
	if (drop->held) {
		remove_file(drop);
		return;
	}
	drop->op.done = on_looked;
	os_offload(drop->worker->loop, &drop->op, run_look);
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

static struct drop *no_memory_for(const char *path)
{
	log_notice(LOG_WARNING, "drop directory %s: out of memory; it is not looked into", path);
	return NULL;
}

struct drop *drop_create(struct worker *worker)
{
	char path[DROP_PATH_BYTES];
	struct drop *drop;
	int folder;

	if (!drop_folder_path(worker->config, path))
		return NULL;
	folder = drop_folder_open(worker->config, path);
	if (folder < 0)
		return NULL;
	drop = calloc(1, sizeof(*drop));
	if (!drop) {
		os_file_close(folder);
		return no_memory_for(path);
	}
	drop->worker = worker;
	drop->folder = folder;
	drop->bad = drop_folder_open_bad(folder, path);
	drop->fd = -1;
	drop->path = strdup(path);
	drop->piece = malloc(PIECE_BYTES);
	intake_pool_init(&drop->intakes, worker);
	timer_init(&drop->timer, begin_look);
	if (!drop->path || !drop->piece) {
		drop_destroy(drop);
		return no_memory_for(path);
	}
	rest(drop, 0);
	return drop;
}

void drop_destroy(struct drop *drop)
{
	if (!drop)
		return;
	assert(!drop->busy);
	timer_cancel(&drop->worker->timers, &drop->timer);
	intake_pool_deinit(&drop->intakes);
	os_file_close(drop->folder);
	if (drop->bad >= 0)
		os_file_close(drop->bad);
	free(drop->piece);
	free(drop->path);
	free(drop);
}

void drop_drain(struct drop *drop)
{
	if (!drop)
		return;
	drop->draining = true;
	timer_cancel(&drop->worker->timers, &drop->timer);
}

bool drop_idle(const struct drop *drop)
{
	return !drop || !drop->busy;
}
