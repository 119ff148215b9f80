/*
 * main - runs seeds, each in a process of its own, on all cores.
 *
 *   sim --seeds 1000            seeds 1 to 1000
 *   sim --fresh --seeds 50      50 that nobody has run before; printed
 *   SEED=4711 TRACE=1 sim       one, and its story
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/check.h"
#include "tests/sim/memory.h"
#include "tests/sim/run.h"
#include "tests/sim/signed.h"
#include "tests/sim/story.h"

enum {
	JOBS_MAX = 256,
	SEEDS_DEFAULT = 100,
	WALL_S_MAX = 600, /* of one seed */
};

static struct {
	uint64_t from, count; /* count 0: until `seconds` are over */
	uint32_t jobs, seconds;
	bool hashes; /* print them */
} wanted = { .from = 1, .count = SEEDS_DEFAULT };

struct job {
	pid_t process; /* 0: none */
	uint64_t seed;
	struct run_result *result; /* shared with the process */
};

static struct {
	struct job jobs[JOBS_MAX];
	uint32_t running;
	uint64_t begun, good, findings, lives, crashes, virtual_ns, deliveries;
	char commit[64];
	const char *program; /* argv[0] */
} state;

static const char usage[] =
	"Usage: sim [options]\n"
	"  -n, --seeds N      how many; 100\n"
	"  -f, --from S       the first; 1\n"
	"  -r, --fresh        from a random one, which is printed\n"
	"  -j, --jobs J       at once; one for each core\n"
	"  -s, --seconds T    go on until T seconds are over\n"
	"      --hashes       print what each seed came to: the same in each run\n"
	"SEED=n runs one; TRACE=1 prints its story.\n";

/* ── one seed ─────────────────────────────────────────────────────────────────────── */

static void job_start(struct job *job, uint64_t seed)
{
	memset(job->result, 0, sizeof(*job->result));
	job->seed = seed;
	fflush(stdout);
	job->process = fork();
	assert(job->process >= 0);
	if (job->process == 0) {
		alarm(WALL_S_MAX);
		run_seed(seed, job->result);
		_exit(0);
	}
	state.running++;
	state.begun++;
}

static void job_end(struct job *job, int status)
{
	const struct run_result *result = job->result;

	job->process = 0;
	state.running--;
	state.lives += result->lives;
	state.crashes += result->crashes;
	state.virtual_ns += result->virtual_ns;
	state.deliveries += result->deliveries;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && result->end == RUN_GOOD) {
		state.good++;
		if (wanted.hashes)
			printf("%llu %016llx\n", (unsigned long long)job->seed,
			       (unsigned long long)result->hash);
		return;
	}
	state.findings++;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != STORY_FINDING)
		fprintf(stderr,
			"FINDING seed %llu, commit %s: the simulator itself ended with %s %d\n"
			"    again: SEED=%llu TRACE=1 %s\n",
			(unsigned long long)job->seed, state.commit,
			WIFEXITED(status) ? "status" : "signal",
			WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
			(unsigned long long)job->seed, state.program);
}

static void await_one(void)
{
	int status;
	pid_t process = wait(&status);

	assert(process > 0);
	for (uint32_t i = 0; i < wanted.jobs; i++)
		if (state.jobs[i].process == process)
			job_end(&state.jobs[i], status);
}

/* ── all of them ──────────────────────────────────────────────────────────────────── */

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool wants_more(double began)
{
	if (wanted.seconds > 0)
		return seconds_now() - began < wanted.seconds;
	return state.begun < wanted.count;
}

static void run_all(double began)
{
	struct run_result *results =
		mmap(NULL, wanted.jobs * sizeof(*results), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(results != MAP_FAILED);
	for (uint32_t i = 0; i < wanted.jobs; i++)
		state.jobs[i].result = &results[i];
	while (wants_more(began) || state.running > 0) {
		for (uint32_t i = 0; i < wanted.jobs && wants_more(began); i++)
			if (state.jobs[i].process == 0)
				job_start(&state.jobs[i], wanted.from + state.begun);
		await_one();
	}
}

static void report(double began)
{
	struct rusage used;
	double cpu;

	getrusage(RUSAGE_CHILDREN, &used);
	cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	      (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	printf("%llu lives, %llu crashes, %.1f h of virtual time, %llu deliveries: %.0f for each "
	       "second of a core (%.1f s on %u)\n",
	       (unsigned long long)state.lives, (unsigned long long)state.crashes,
	       (double)state.virtual_ns / 3.6e12, (unsigned long long)state.deliveries,
	       (double)state.deliveries / cpu, seconds_now() - began, wanted.jobs);
	printf("sim: %llu passed, %llu failed\n", (unsigned long long)state.good,
	       (unsigned long long)state.findings);
}

/* ── start ────────────────────────────────────────────────────────────────────────── */

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	if (*end != '\0' || end == text) {
		fprintf(stderr, "sim: '%s' is no number\n%s", text, usage);
		exit(2);
	}
	return value;
}

static uint64_t fresh_seed(void)
{
	uint32_t seed;
	ssize_t got = getrandom(&seed, sizeof(seed), 0);

	assert(got == sizeof(seed));
	return (uint64_t)seed * 1000;
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 'n' },
		{ "from", required_argument, NULL, 'f' },
		{ "fresh", no_argument, NULL, 'r' },
		{ "jobs", required_argument, NULL, 'j' },
		{ "seconds", required_argument, NULL, 's' },
		{ "hashes", no_argument, NULL, 'H' },
		{ NULL, 0, NULL, 0 },
	};

	for (int option; (option = getopt_long(argc, argv, "n:f:rj:s:", options, NULL)) != -1;) {
		if (option == 'n')
			wanted.count = number(optarg);
		else if (option == 'f')
			wanted.from = number(optarg);
		else if (option == 'r')
			wanted.from = fresh_seed();
		else if (option == 'j')
			wanted.jobs = (uint32_t)number(optarg);
		else if (option == 's')
			wanted.seconds = (uint32_t)number(optarg);
		else if (option == 'H')
			wanted.hashes = true;
		else {
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (getenv("SEED") != NULL) {
		wanted.from = number(getenv("SEED"));
		wanted.count = wanted.jobs = 1;
	}
	if (wanted.jobs == 0)
		wanted.jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (wanted.jobs > JOBS_MAX)
		wanted.jobs = JOBS_MAX;
}

/* What differs from the commit is said as well; others may use the repository meanwhile. */
static void learn_commit(void)
{
	FILE *git = popen("exec 2>/dev/null; commit=$(git rev-parse --short=12 HEAD) || exit 0; "
			  "test -z \"$(git --no-optional-locks status --porcelain)\" || "
			  "commit=$commit-dirty; echo \"$commit\"",
			  "r");

	if (git == NULL || fgets(state.commit, sizeof(state.commit), git) == NULL)
		strcpy(state.commit, "unknown");
	state.commit[strcspn(state.commit, "\n")] = '\0';
	if (git != NULL)
		pclose(git);
}

int main(int argc, char **argv)
{
	const struct rlimit none = { 0 };
	double began = seconds_now();

	setrlimit(RLIMIT_CORE, &none);
	read_options(argc, argv);
	optind = 0; /* the daemon's main() reads its own, from the beginning */
	learn_commit();
	state.program = argv[0];
	story_tellers(state.program, state.commit, getenv("TRACE") != NULL);
	printf("seeds from %llu, commit %s\n", (unsigned long long)wanted.from, state.commit);
	memory_prepare();
	signed_prepare();
	run_all(began);
	report(began);
	return state.findings > 0 || state.good == 0;
}
