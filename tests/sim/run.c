/*
 * run - see run.h.
 */
#include "tests/sim/run.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/dns.h"
#include "tests/sim/fiber.h"
#include "tests/sim/kernel.h"
#include "tests/sim/ledger.h"
#include "tests/sim/life.h"
#include "tests/sim/story.h"
#include "tests/sim/weather.h"

#define ARENA_BYTES ((size_t)8 << 30)

/* ── what a life ended by ─────────────────────────────────────────────────────────── */

/* A daemon may give up only for what the weather did to it in this life. */
static void judge_exit(const struct life_plan *plan, int status, uint64_t failures_before)
{
	bool disk_failed = disk_failures() > failures_before;

	switch (status) {
	case EX_OK:
		if (!plan->crashes)
			return;
		sim_finding("the daemon stopped by itself");
	case EX_TEMPFAIL:
		if (!plan->crashes && plan->kind == LIFE_BAD)
			return; /* stopped before it was ready */
		sim_finding("the daemon's start was ended by nobody");
	case EX_IOERR:
	case EX_OSERR:
	case EX_CANTCREAT:
		if (disk_failed || weather()->tight_disk)
			return;
		sim_finding("the daemon gave up with status %d, and the disk has not failed",
			    status);
	default:
		sim_finding("the daemon ended with status %d", status);
	}
}

/* How the daemon ended, as the disk and the ledger have to know it. */
static void judge_life(const struct life_plan *plan, int status, uint64_t failures_before,
		       struct run_result *result)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	bool crashed = code != EX_OK;

	if (code < 0)
		sim_finding("the daemon was ended by signal %d (%s)", WTERMSIG(status),
			    strsignal(WTERMSIG(status)));
	if (code == STORY_FINDING) {
		story_flush();
		_exit(STORY_FINDING);
	}
	if (code == STORY_KILLED || code == STORY_POWER_CUT)
		result->crashes++;
	else
		judge_exit(plan, code, failures_before);
	disk_crash(code == STORY_POWER_CUT);
	ledger_life_ended(crashed);
	result->lives++;
}

static void live(const struct life_plan *plan, struct run_result *result)
{
	uint64_t failures_before = disk_failures();
	pid_t child = fork();
	int status;

	assert(child >= 0);
	if (child == 0)
		life_run(plan);
	while (waitpid(child, &status, 0) < 0)
		assert(errno == EINTR);
	judge_life(plan, status, failures_before, result);
}

/* ── the run ──────────────────────────────────────────────────────────────────────── */

static void world_create(uint64_t seed)
{
	arena_create(ARENA_BYTES);
	story_begin(seed);
	weather_draw();
	kernel_create();
	clock_create();
	disk_create();
	sim_dns_create();
	ledger_create();
}

static void draw_bad_life(struct life_plan *plan)
{
	const struct weather *now = weather();

	*plan = (struct life_plan){
		.kind = LIFE_BAD,
		.crashes = sim_below(1000) < now->crash_permille,
		.end = sim_below(1000) < now->power_permille ? SIM_POWER_CUT : SIM_KILLED,
		.early = sim_below(1000) < now->early_permille,
		.near = sim_below(1000) < now->near_permille,
		.end_ns = sim_below(now->life_ms * SIM_MS),
	};
	/* The moment has time to come. */
	if (plan->near)
		plan->end_ns = now->life_ms * SIM_MS;
}

static void stay_down(void)
{
	if (weather()->down_ms > 0)
		story_set_now(sim_now() + sim_below(weather()->down_ms * SIM_MS));
}

void run_seed(uint64_t seed, struct run_result *result)
{
	struct life_plan plan;
	uint64_t deliveries;

	world_create(seed);
	for (uint32_t i = 0; i < weather()->lives; i++) {
		draw_bad_life(&plan);
		live(&plan, result);
		stay_down();
	}
	weather_clear();
	plan = (struct life_plan){ .kind = LIFE_LAST };
	live(&plan, result);
	deliveries = ledger_deliveries();
	plan = (struct life_plan){ .kind = LIFE_EMPTY };
	live(&plan, result);
	if (ledger_deliveries() != deliveries)
		sim_finding("something was delivered after all had come to its end");
	ledger_check();
	story_flush();
	result->hash = story_hash();
	result->virtual_ns = sim_now();
	result->deliveries = ledger_deliveries();
	result->end = RUN_GOOD;
}
