/*
 * A process that accepts, delivers and defers is killed at any moment, again and again; a ledger
 * outside of it knows every accept that was confirmed and every delivery that was begun.
 * CRASH_SEED and CRASH_ROUNDS repeat a run, or make it longer.
 */
#include <fcntl.h>
#include <signal.h>

#include "os/prng.h"
#include "tests/unit/queue_world.h"

enum { CRASH_ROUNDS = 8, CRASH_SESSIONS = 24, CRASH_IDS_MAX = 1 << 20 };

struct ledger_line {
	uint64_t id;
	uint8_t what; /* 'A': accepted; 'D': being delivered */
};

struct crash_session {
	struct queue_accept accept;
	struct world *world;
	struct prng *prng;
	bool busy;
};

/* ── the process that dies ────────────────────────────────────────────────────────── */

static void crash_tell(uint8_t what, uint64_t id)
{
	struct ledger_line line = { .id = id, .what = what };

	if (write(STDOUT_FILENO, &line, sizeof(line)) != (ssize_t)sizeof(line))
		_exit(1);
}

static void crash_on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct crash_session *session = container_of(accept, struct crash_session, accept);

	session->busy = false;
	if (status != QUEUE_OK)
		_exit(2);
	crash_tell('A', accept->message->id);
}

static void crash_send(struct crash_session *session, struct span envelope)
{
	static char body[400000];
	struct queue_message *message = queue_message_create(session->world->stream);
	uint64_t bytes = prng_below(session->prng, 20) == 0
				 ? prng_below(session->prng, sizeof(body))
				 : prng_below(session->prng, 9000);

	message->expiry_s = UINT32_MAX;
	queue_message_append(message, span_of(body, bytes));
	session->busy = true;
	session->accept = (struct queue_accept){ .message = message,
						 .envelope = envelope,
						 .done = crash_on_accepted };
	queue_accept(session->world->stream, &session->accept);
}

static void crash_work(struct world *world, struct prng *prng, uint32_t dest)
{
	struct queue_job *job = queue_take(world->stream, dest);

	if (job == NULL)
		return;
	while (job->message == NULL && (job->flags & FORMAT_JOB_DAMAGED) == 0)
		world_turn(world, 10);
	if (job->message == NULL)
		_exit(3);
	if (prng_below(prng, 4) == 0) {
		world_defer(world, job, os_wall_seconds(os_wall_now()) + 2);
		return;
	}
	crash_tell('D', job->message_id);
	world_deliver(world, job);
}

static void body_work_until_killed(struct world *world)
{
	static struct crash_session sessions[CRASH_SESSIONS];
	struct prng prng = { os_mono_now().ns };
	struct span envelope;
	uint32_t dest;

	world->options.evacuate_after_s = 1;
	world_begin(world);
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	assert_true(envelope_seal(world->builder, &envelope));
	dest = stream_dest(world->stream, span_text("a.example"));
	for (;;) {
		for (uint32_t i = 0; i < CRASH_SESSIONS; i++) {
			sessions[i].world = world;
			sessions[i].prng = &prng;
			if (!sessions[i].busy && prng_below(&prng, 3) == 0)
				crash_send(&sessions[i], envelope);
		}
		for (uint32_t i = 0; i < CRASH_SESSIONS; i++)
			crash_work(world, &prng, dest);
		world_turn(world, 1);
	}
}

/* ── the ledger ───────────────────────────────────────────────────────────────────── */

struct ledger {
	struct ledger_line *lines; /* all that was ever said */
	size_t count;
};

static int line_compare(const void *a, const void *b)
{
	const struct ledger_line *left = a, *right = b;

	if (left->id != right->id)
		return left->id < right->id ? -1 : 1;
	return left->what - right->what;
}

static bool ledger_has(const struct ledger *ledger, uint8_t what, uint64_t id)
{
	struct ledger_line line = { .id = id, .what = what };

	return bsearch(&line, ledger->lines, ledger->count, sizeof(line), line_compare) != NULL;
}

static void ledger_read(struct ledger *ledger, int fd)
{
	struct ledger_line line;

	while (read(fd, &line, sizeof(line)) == (ssize_t)sizeof(line)) {
		assert_true(ledger->count < CRASH_IDS_MAX);
		ledger->lines[ledger->count++] = line;
	}
	qsort(ledger->lines, ledger->count, sizeof(line), line_compare);
}

/* Lets the process run for `ms`, then kills it; reads what it said. */
static void crash_round(struct world *world, struct ledger *ledger, uint64_t ms)
{
	int ends[2];
	pid_t child;

	assert_int_equal(pipe(ends), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		close(ends[0]);
		execl("/proc/self/exe", "child", "body_work_until_killed", world->path,
		      (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	usleep((useconds_t)ms * 1000);
	assert_int_equal(kill(child, SIGKILL), 0);
	ledger_read(ledger, ends[0]);
	close(ends[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
}

/* Everything accepted and not begun to be delivered is there; what is offered although its
 * delivery was begun says so. */
static void crash_check(struct world *world, const struct ledger *ledger)
{
	uint8_t *seen = calloc(ledger->count + 1, 1);
	size_t lost = 0, silent = 0;

	world_begin(world);
	assert_int_equal(world->problems, 0);
	for (uint32_t slot = 0; slot < world->stream->index.used; slot++) {
		const struct format_job *job = index_job(&world->stream->index, slot);
		struct ledger_line line = { .id = job->message, .what = 'A' };
		struct ledger_line *found =
			bsearch(&line, ledger->lines, ledger->count, sizeof(line), line_compare);

		if (found != NULL)
			seen[found - ledger->lines] = 1;
		silent += ledger_has(ledger, 'D', job->message) &&
			  (job->flags & FORMAT_JOB_MAYBE_DUPLICATE) == 0;
	}
	for (size_t i = 0; i < ledger->count; i++)
		lost += ledger->lines[i].what == 'A' && seen[i] == 0 &&
			!ledger_has(ledger, 'D', ledger->lines[i].id);
	free(seen);
	assert_int_equal(lost, 0);
	assert_int_equal(silent, 0);
	world_end(world);
}

static void test_killed_at_any_moment(void **state)
{
	const char *seed = getenv("CRASH_SEED"), *rounds = getenv("CRASH_ROUNDS");
	struct world *world = *state;
	struct prng prng = { seed != NULL ? strtoull(seed, NULL, 0) : os_mono_now().ns };
	struct ledger ledger = { .lines = malloc(CRASH_IDS_MAX * sizeof(struct ledger_line)) };
	int count = rounds != NULL ? atoi(rounds) : CRASH_ROUNDS;

	print_message("CRASH_SEED=%lu\n", prng.state);
	world->options.evacuate_after_s = 1;
	for (int i = 0; i < count; i++) {
		crash_round(world, &ledger, 100 + prng_below(&prng, 900));
		crash_check(world, &ledger);
	}
	assert_true(ledger.count > 100);
	print_message("%zu accepts and deliveries\n", ledger.count);
	free(ledger.lines);
}

static const struct world_body bodies[] = {
	{ "body_work_until_killed", body_work_until_killed },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		{ "killed at any moment, nothing is lost", test_killed_at_any_moment, world_setup,
		  world_teardown, NULL },
	};

	world_child(argc, argv, bodies, array_count(bodies));
	return cmocka_run_group_tests_name("queue_crash", tests, NULL, NULL);
}
