/*
 * life - see life.h.
 */
#include "tests/sim/life.h"

#include <execinfo.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "os/check.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/dropper.h"
#include "tests/sim/kernel.h"
#include "tests/sim/ledger.h"
#include "tests/sim/memory.h"
#include "tests/sim/near.h"
#include "tests/sim/net.h"
#include "tests/sim/story.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

/* The daemon's main(), renamed by the linker's tools. */
int stafetted_main(int argc, char **argv);
/* Its _exit(). */
_Noreturn void stafetted_exit(int status);

#define SETTLE_NS_MAX	 (UINT64_C(86400) * SIM_S) /* good weather for a day is enough */
#define LOOK_NS		 (100 * SIM_MS)
#define CALM_NS		 (20 * SIM_S)  /* after all is settled: what comes now is too much */
#define EMPTY_NS	 (600 * SIM_S) /* of a life without work */
#define STOP_NS_MAX	 (300 * SIM_S) /* from TERM to the end */
#define WALL_ERROR_S_MAX INT64_C(1800)

enum {
	CPU_S_MAX = 60, /* of one life: then something spins */
	EARLY_EVENTS_MAX = 4000,
	/* What the heap may have grown by when the queue is empty. Without work only MARKs are
	 * written, when the clock drifts: a journal notes each chunk while it has the file. */
	IDLE_BYTES_MAX = 128 << 10,
	/* After work names, sites and sessions are kept, and buffers: 1.1 MB were the most. */
	CACHES_BYTES_MAX = 4 << 20,
	SIGNAL_STACK_BYTES = 64 << 10,
	FRAMES_MAX = 40,
};

static const struct life_plan *plan; /* borrowed: of this life */

/* ── the end ──────────────────────────────────────────────────────────────────────── */

static void on_too_late(struct sim_event *event)
{
	(void)event;
	sim_finding("the daemon has not stopped %u s after TERM", (unsigned)(STOP_NS_MAX / SIM_S));
}

static void on_second_term(struct sim_event *event)
{
	(void)event;
	kernel_signal(SIGTERM);
}

static void on_crash(struct sim_event *event)
{
	(void)event;
	sim_crash(plan->end);
}

static void stop_daemon(void)
{
	static struct sim_event too_late = { .run = on_too_late };
	static struct sim_event second_term = { .run = on_second_term };

	kernel_signal(SIGTERM);
	sim_after(&too_late, STOP_NS_MAX);
	if (sim_below(4) == 0)
		sim_after(&second_term, sim_below(20 * SIM_S));
}

/* The queue is empty, and the life has seen all of its mail, or none. */
static void check_memory(void)
{
	int64_t bytes_max = plan->kind == LIFE_EMPTY ? IDLE_BYTES_MAX : CACHES_BYTES_MAX;
	int64_t bytes = memory_grown_bytes();

	if (bytes > bytes_max)
		sim_finding("the queue is empty, and %lld bytes more of the heap are in use than "
			    "when the daemon was ready",
			    (long long)bytes);
}

static void on_time(struct sim_event *event)
{
	(void)event;
	if (kernel_is_ready())
		ledger_index_seen(plan->kind == LIFE_EMPTY);
	if (plan->kind != LIFE_BAD)
		check_memory();
	stop_daemon();
}

/* Some moments come often, and one must not always be among the first. */
static void plan_near(void)
{
	static const uint32_t often[NEAR_COUNT] = {
		[NEAR_TAKEN] = 6,
		[NEAR_SEGMENT_FREED] = 4,
		[NEAR_JOURNAL_FREED] = 4,
		[NEAR_SEGMENT_WRITTEN] = 200,
		[NEAR_JOURNAL_WRITTEN] = 400,
		[NEAR_SEGMENT_READ] = 40,
		[NEAR_BIG_GONE] = 4,
		[NEAR_DROP_GONE] = 4,
		[NEAR_FAILED] = 2,
		[NEAR_REPORT] = 10,
	};
	const uint64_t delays_ns[] = { 1, weather()->disk_us * SIM_US,
				       10 * weather()->disk_us * SIM_US,
				       world_plan()->outcome_sync_ms * SIM_MS, SIM_S };
	enum near_moment moment = sim_chance(weather()->fails_permille * 1000)
					  ? NEAR_FAILED
					  : (enum near_moment)sim_below(NEAR_COUNT);

	near_crash(moment, 1 + (uint32_t)sim_below(1 + sim_below(often[moment])),
		   sim_below(delays_ns[sim_below(array_count(delays_ns))]), plan->end);
}

/* A crash comes after a number of events, or at a time: while it starts, while it works. */
static void plan_bad_end(void)
{
	static struct sim_event end;

	end.run = plan->crashes ? on_crash : on_time;
	if (plan->crashes && plan->early)
		sim_crash_after(1 + sim_below(1 + sim_below(EARLY_EVENTS_MAX)), plan->end);
	else
		sim_after(&end, plan->end_ns);
	if (plan->crashes && plan->near)
		plan_near();
}

/* ── the last two lives ───────────────────────────────────────────────────────────── */

static void on_look(struct sim_event *event)
{
	static struct sim_event calm = { .run = on_time };
	static uint64_t deadline;

	if (deadline == 0)
		deadline = sim_now() + SETTLE_NS_MAX;
	if (ledger_settled() && dropper_empty())
		sim_after(&calm, CALM_NS);
	else if (sim_now() > deadline)
		sim_finding("not settled after a day of good weather: %s", ledger_open_text());
	else
		sim_after(event, LOOK_NS);
}

static void plan_end(void)
{
	static struct sim_event look = { .run = on_look }, end = { .run = on_time };

	if (plan->kind == LIFE_BAD)
		plan_bad_end();
	else if (plan->kind == LIFE_LAST)
		sim_after(&look, LOOK_NS);
	else
		sim_after(&end, EMPTY_NS);
}

/* ── while it lives ───────────────────────────────────────────────────────────────── */

static void on_second(struct sim_event *event)
{
	static uint32_t seconds; /* at 1, 2, 4, ... of them the index is looked into */

	if (sim_chance(weather()->clock_jumps))
		clock_jump_to(((int64_t)sim_below(2 * WALL_ERROR_S_MAX) - WALL_ERROR_S_MAX) *
			      1000000);
	if (!weather_is_clear() && sim_below(64) == 0) {
		if (sim_below(2) == 0)
			world_reconfigure(); /* every site goes, and is made anew */
		kernel_signal(SIGHUP);
	}
	ledger_spool_seen();
	seconds++;
	if ((seconds & (seconds - 1)) == 0 && kernel_is_ready())
		ledger_index_seen(false);
	sim_after(event, SIM_S);
}

void stafetted_exit(int status)
{
	sim_trace("exit %d", status);
	net_end();
	_exit(status);
}

static void check_left_open(void)
{
	const char *path;
	uint32_t files = disk_open_count(&path);

	if (net_open_count() > 0)
		sim_finding("the daemon has stopped and left %u sockets open", net_open_count());
	if (files > 0)
		sim_finding("the daemon has stopped and left %u files open, one is %s", files,
			    path);
}

static void daemon_run(void *context)
{
	char *arguments[] = { "stafetted", "-c", "/etc/stafette.conf", NULL };
	int status = stafetted_main(array_count(arguments) - 1, arguments);

	(void)context;
	check_left_open();
	stafetted_exit(status);
}

/* A crash of the program itself is a finding, and says where. */
static void on_fault(int number)
{
	void *frames[FRAMES_MAX];
	int count = backtrace(frames, FRAMES_MAX);

	signal(SIGSEGV, SIG_DFL);
	signal(SIGABRT, SIG_DFL);
	if (getenv("TRACE") != NULL)
		backtrace_symbols_fd(frames, count, STDERR_FILENO);
	sim_finding("%s", number == SIGPROF ? "something spins" : strsignal(number));
}

static void watch_faults(void)
{
	static const int faults[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF };
	struct itimerval limit = { .it_value.tv_sec = CPU_S_MAX };
	stack_t stack = { .ss_sp = malloc(SIGNAL_STACK_BYTES), .ss_size = SIGNAL_STACK_BYTES };
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK };

	sigaltstack(&stack, NULL);
	for (size_t i = 0; i < array_count(faults); i++)
		sigaction(faults[i], &action, NULL);
	setitimer(ITIMER_PROF, &limit, NULL);
}

void life_run(const struct life_plan *of_this_life)
{
	static struct sim_event second = { .run = on_second };

	plan = of_this_life;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	watch_faults();
	sim_trace("life %u begins", weather_life());
	plan_end();
	sim_after(&second, SIM_S);
	clock_live();
	world_start();
	fiber_start("main", daemon_run, NULL);
	sim_run();
	sim_finding("nothing is left to happen");
}
