/*
 * The sandbox: what is left to a process, and what it can no longer do. Each row is tried by a
 * process of its own, which goes into the sandbox first.
 *
 * Where the kernel has no Landlock, or a sanitizer stands in for seccomp, the sandbox says that it
 * is without; then what that one refuses is not asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/check.h"
#include "os/os.h"

static char folder[64]; /* with "read/file", "written/file" and "other/file" */

static char *inside(const char *path)
{
	static char text[160];

	snprintf(text, sizeof(text), "%s/%s", folder, path);
	return text;
}

/* ── what is tried: 0 or an errno ─────────────────────────────────────────────────── */

static int opened(const char *path, int flags)
{
	return open(path, flags | O_CLOEXEC, 0600) >= 0 ? 0 : errno;
}

static int read_what_is_read(void)
{
	return opened(inside("read/file"), O_RDONLY);
}

static int write_what_is_read(void)
{
	return opened(inside("read/file"), O_WRONLY);
}

static int write_what_is_written(void)
{
	return opened(inside("written/file"), O_RDWR);
}

static int make_what_is_written(void)
{
	return opened(inside("written/new"), O_WRONLY | O_CREAT | O_EXCL);
}

static int read_elsewhere(void)
{
	return opened(inside("other/file"), O_RDONLY);
}

static int make_elsewhere(void)
{
	return opened(inside("other/new"), O_WRONLY | O_CREAT);
}

static int unlink_what_is_read(void)
{
	return unlink(inside("read/file")) == 0 ? 0 : errno;
}

static int write_system_file(void)
{
	return opened("/etc/passwd", O_WRONLY);
}

static int read_system_file(void)
{
	return opened("/etc/passwd", O_RDONLY);
}

static int run_program(void)
{
	char *const arguments[] = { "true", NULL };

	execv("/usr/bin/true", arguments);
	return errno;
}

static int trace_parent(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0 ? 0 : errno;
}

static int leave_namespace(void)
{
	return unshare(CLONE_NEWNS) == 0 ? 0 : errno;
}

static int mount_something(void)
{
	return mount("none", folder, "tmpfs", 0, NULL) == 0 ? 0 : errno;
}

static int open_raw_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0) >= 0 ? 0 : errno;
}

static int open_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : errno;
}

static int change_user(void)
{
	return setuid(getuid()) == 0 ? 0 : errno;
}

static int change_name(void)
{
	return sethostname("elsewhere", 9) == 0 ? 0 : errno;
}

static int leave_core(void)
{
	struct rlimit core = { 0 };

	getrlimit(RLIMIT_CORE, &core);
	return core.rlim_max == 0 && prctl(PR_GET_DUMPABLE) == 0 ? EPERM : 0;
}

/* ── the rows ─────────────────────────────────────────────────────────────────────── */

enum side { FILES, CALLS };

static const struct sandbox_case {
	const char *name;
	enum side side;
	int (*run)(void);
	int error;  /* 0: it works */
	int signal; /* instead: the end of the process */
} cases[] = {
	{ "a file to be read is read", FILES, read_what_is_read, 0, 0 },
	{ "a file to be read is not written", FILES, write_what_is_read, EACCES, 0 },
	{ "a file to be read is not removed", FILES, unlink_what_is_read, EACCES, 0 },
	{ "a file to be written is written", FILES, write_what_is_written, 0, 0 },
	{ "a file is made in a folder to be written", FILES, make_what_is_written, 0, 0 },
	{ "a file elsewhere is not read", FILES, read_elsewhere, EACCES, 0 },
	{ "a file is not made elsewhere", FILES, make_elsewhere, EACCES, 0 },
	{ "a file of the system is read", FILES, read_system_file, 0, 0 },
	{ "a file of the system is not written", FILES, write_system_file, EACCES, 0 },
	{ "a TCP socket is opened", CALLS, open_socket, 0, 0 },
	{ "a raw socket is refused", CALLS, open_raw_socket, EPERM, 0 },
	{ "another user is refused", CALLS, change_user, EPERM, 0 },
	{ "another host name is refused", CALLS, change_name, EPERM, 0 },
	{ "another program is the end", CALLS, run_program, 0, SIGSYS },
	{ "a debugger's call is the end", CALLS, trace_parent, 0, SIGSYS },
	{ "another namespace is the end", CALLS, leave_namespace, 0, SIGSYS },
	{ "a mount is the end", CALLS, mount_something, 0, SIGSYS },
	{ "no core is left", CALLS, leave_core, EPERM, 0 },
};

enum { NOT_IN_FORCE = 250, BROKEN = 251 }; /* no errno */

static _Noreturn void try(const struct sandbox_case *one)
{
	char read[80], written[80], what[256];
	const char *const reads[] = { read }, *const writes[] = { written };
	struct os_sandbox sandbox = { reads, writes, 1, 1 };

	snprintf(read, sizeof(read), "%s/read", folder);
	snprintf(written, sizeof(written), "%s/written", folder);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    os_sandbox(&sandbox, what, sizeof(what)) != 0)
		_exit(BROKEN);
	if (strstr(what, one->side == FILES ? "no Landlock" : "no seccomp") != NULL)
		_exit(NOT_IN_FORCE);
	_exit(one->run());
}

static void check_case(void **state)
{
	const struct sandbox_case *one = *state;
	pid_t child = fork();
	int status;

	if (child == 0)
		try(one);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_IN_FORCE) {
		print_message("not in force here\n");
		return;
	}
	assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : 0, one->signal);
	if (one->signal == 0)
		assert_int_equal(WEXITSTATUS(status), one->error);
}

static int folders_up(void **state)
{
	static const char *const names[] = { "read", "written", "other" };

	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/stafette-sandbox-XXXXXX");
	assert_non_null(mkdtemp(folder));
	for (size_t i = 0; i < array_count(names); i++) {
		char path[80];

		assert_int_equal(mkdir(inside(names[i]), 0700), 0);
		snprintf(path, sizeof(path), "%s/file", names[i]);
		assert_int_equal(opened(inside(path), O_WRONLY | O_CREAT), 0);
	}
	return 0;
}

static int folders_down(void **state)
{
	static const char *const paths[] = { "read/file",   "written/file",
					     "written/new", "other/file",
					     "read",	    "written",
					     "other",	    "" };

	(void)state;
	for (size_t i = 0; i < array_count(paths); i++)
		remove(inside(paths[i]));
	return 0;
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] = (struct CMUnitTest){
			.name = cases[i].name,
			.test_func = check_case,
			.initial_state = (void *)&cases[i],
		};
	return _cmocka_run_group_tests("sandbox", tests, array_count(tests), folders_up,
				       folders_down);
}
