/*
 * process - what this process and its machine are.
 */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "os/os.h"

uint32_t os_cpu_count(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	return (uint32_t)CPU_COUNT(&set);
}

uint32_t os_process_id(void)
{
	return (uint32_t)getpid();
}

/* The first name with a dot on the line of /etc/hosts that names `name`: without asking DNS,
 * which may be slow or away when we start. */
static bool host_name_complete(char *name, size_t bytes)
{
	FILE *file = fopen("/etc/hosts", "re");
	bool found = false;
	char line[1024];

	while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
		char *rest = line, *word, *full = NULL;
		bool ours = false;

		line[strcspn(line, "#")] = '\0';
		strtok_r(line, " \t\n", &rest);
		while ((word = strtok_r(NULL, " \t\n", &rest)) != NULL) {
			if (full == NULL && strchr(word, '.') != NULL)
				full = word;
			ours |= strcmp(word, name) == 0;
		}
		if (ours && full != NULL) {
			snprintf(name, bytes, "%s", full);
			found = true;
		}
	}
	if (file != NULL)
		fclose(file);
	return found;
}

const char *os_host_name(void)
{
	static char name[256]; /* written by the first call, which belongs to start-up */

	if (name[0] != '\0')
		return name;
	if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0')
		snprintf(name, sizeof(name), "localhost");
	if (strchr(name, '.') == NULL)
		host_name_complete(name, sizeof(name));
	return name;
}

void os_vectors_narrow(char **argv)
{
#if defined(__GLIBC__) && defined(__x86_64__)
	static const char tunables[] = "GLIBC_TUNABLES";
	char path[PATH_MAX];
	ssize_t len;

	/* With privileges by its file the C library heeds no tunables, and may hide them from us:
	 * we would go on executing ourselves. */
	if (!__builtin_cpu_supports("avx512f") || getauxval(AT_SECURE) != 0 ||
	    getenv(tunables) != NULL)
		return;
	len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (len <= 0 || setenv(tunables, "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW", 1) != 0)
		return;
	path[len] = '\0';
	execv(path, argv);
#else
	(void)argv;
#endif
}

/* Rings count as locked memory of their user, all processes together. */
static void memlock_raise(void)
{
	struct rlimit limit, all = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_MEMLOCK, &all) == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

uint64_t os_limits_raise(void)
{
	struct rlimit limit;

	memlock_raise();
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 0;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	return limit.rlim_cur;
}

void os_notify(const char *state)
{
	sd_notify(0, state);
}
