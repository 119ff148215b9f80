/*
 * sandbox - what a taken-over process could not do either: Landlock for files, seccomp for
 * system calls. The ring's operations, which pass by seccomp, are restricted in uring.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

/* Younger than Debian 12's headers. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                   \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                             \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REFER |   \
	 LANDLOCK_ACCESS_FS_TRUNCATE)
#define FS_OTHER                                                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |                               \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                            \
	 LANDLOCK_ACCESS_FS_MAKE_SYM)
/* Of a file that is no folder. */
#define FS_FILE                                                                                    \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)

/* What the libraries read, wherever the configuration is: names, time zones, modules, CPUs. */
static const char *const system_paths[] = { "/etc",
					    "/usr",
					    "/lib",
					    "/lib64",
					    "/proc/self",
					    "/sys/devices/system",
					    "/run/systemd/resolve",
					    "/dev/urandom" };
static const char *const system_paths_written[] = { "/dev/shm", "/dev/null" };

/* ── files ────────────────────────────────────────────────────────────────────────── */

/* Of the kernel's Landlock: what came with which version. */
static uint64_t rights_known(int version)
{
	uint64_t rights = FS_READ | FS_WRITE | FS_OTHER;

	if (version < 2)
		rights &= ~(uint64_t)LANDLOCK_ACCESS_FS_REFER;
	if (version < 3)
		rights &= ~(uint64_t)LANDLOCK_ACCESS_FS_TRUNCATE;
	return rights;
}

/* What is not there needs no rule. */
static int path_allow(int rules, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr attr = { .allowed_access = rights };
	struct stat info;
	int result = 0;

	attr.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (attr.parent_fd < 0)
		return errno == ENOENT || errno == EACCES || errno == ENOTDIR ? 0 : -errno;
	if (fstat(attr.parent_fd, &info) == 0 && !S_ISDIR(info.st_mode))
		attr.allowed_access &= FS_FILE;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) != 0)
		result = -errno;
	close(attr.parent_fd);
	return result;
}

static int paths_allow(int rules, const char *const *paths, size_t count, uint64_t rights)
{
	int result = 0;

	for (size_t i = 0; i < count && result == 0; i++)
		result = path_allow(rules, paths[i], rights);
	return result;
}

static int files_restrict(const struct os_sandbox *sandbox, int version)
{
	uint64_t known = rights_known(version);
	struct landlock_ruleset_attr attr = { .handled_access_fs = known };
	int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	int result;

	if (rules < 0)
		return -errno;
	result = paths_allow(rules, system_paths, array_count(system_paths), known & FS_READ);
	if (result == 0)
		result = paths_allow(rules, system_paths_written, array_count(system_paths_written),
				     known & (FS_READ | FS_WRITE));
	if (result == 0)
		result = paths_allow(rules, sandbox->read, sandbox->read_count, known & FS_READ);
	if (result == 0)
		result = paths_allow(rules, sandbox->written, sandbox->written_count,
				     known & (FS_READ | FS_WRITE));
	if (result == 0 && syscall(SYS_landlock_restrict_self, rules, 0) != 0)
		result = -errno;
	close(rules);
	return result;
}

/* ── system calls ─────────────────────────────────────────────────────────────────── */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* A sanitizer stops threads and reads its own memory by calls that nobody else needs. */
static int calls_restrict(void)
{
	return -ENOTSUP;
}

/* It looks at its own process for leaks, as a debugger does. */
static int secrets_keep(void)
{
	return 0;
}
#else

/* A core would hold keys and mail; so would /proc/PID/mem, for others of the same user. */
static int secrets_keep(void)
{
	static const struct rlimit no_core = { 0, 0 };

	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && setrlimit(RLIMIT_CORE, &no_core) == 0
		       ? 0
		       : -errno;
}

/* What the daemon and its libraries do, as seen under the whole test-suite on both backends. */
static const char *const calls_allowed[] = {
	/* files */
	"access",
	"chmod",
	"close",
	"close_range",
	"dup",
	"dup2",
	"dup3",
	"faccessat",
	"faccessat2",
	"fadvise64",
	"fallocate",
	"fchmod",
	"fchmodat",
	"fchown",
	"fchownat",
	"fcntl",
	"fdatasync",
	"flock",
	"fstat",
	"fstatfs",
	"fsync",
	"ftruncate",
	"getcwd",
	"getdents",
	"getdents64",
	"ioctl",
	"linkat",
	"lseek",
	"lstat",
	"mkdir",
	"mkdirat",
	"newfstatat",
	"open",
	"openat",
	"openat2",
	"pread64",
	"preadv",
	"preadv2",
	"pwrite64",
	"pwritev",
	"pwritev2",
	"read",
	"readahead",
	"readlink",
	"readlinkat",
	"readv",
	"rename",
	"renameat",
	"renameat2",
	"rmdir",
	"stat",
	"statfs",
	"statx",
	"sync_file_range",
	"umask",
	"unlink",
	"unlinkat",
	"utimensat",
	"write",
	"writev",
	/* waiting */
	"epoll_create1",
	"epoll_ctl",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_wait",
	"eventfd2",
	"inotify_add_watch",
	"inotify_init1",
	"inotify_rm_watch",
	"io_uring_enter",
	"io_uring_register",
	"io_uring_setup",
	"pipe2",
	"poll",
	"ppoll",
	"pselect6",
	"select",
	"timerfd_create",
	"timerfd_settime",
	/* sockets */
	"accept",
	"accept4",
	"bind",
	"connect",
	"getpeername",
	"getsockname",
	"getsockopt",
	"listen",
	"recvfrom",
	"recvmmsg",
	"recvmsg",
	"sendmmsg",
	"sendmsg",
	"sendto",
	"setsockopt",
	"shutdown",
	"socketpair",
	/* memory */
	"brk",
	"madvise",
	"membarrier",
	"mlock",
	"mmap",
	"mprotect",
	"mremap",
	"msync",
	"munlock",
	"munmap",
	/* threads and signals */
	"clone",
	"clone3",
	"exit",
	"exit_group",
	"futex",
	"futex_waitv",
	"get_robust_list",
	"gettid",
	"restart_syscall",
	"rseq",
	"rt_sigaction",
	"rt_sigpending",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigsuspend",
	"rt_sigtimedwait",
	"sched_getaffinity",
	"sched_yield",
	"set_robust_list",
	"set_tid_address",
	"sigaltstack",
	"tgkill",
	/* the clock, the process, the machine */
	"adjtimex",
	"arch_prctl",
	"capget",
	"clock_adjtime",
	"clock_getres",
	"clock_gettime",
	"clock_nanosleep",
	"getegid",
	"geteuid",
	"getgid",
	"getgroups",
	"getpgrp",
	"getpid",
	"getppid",
	"getrandom",
	"getresgid",
	"getresuid",
	"getrlimit",
	"getrusage",
	"gettimeofday",
	"getuid",
	"nanosleep",
	"prctl",
	"prlimit64",
	"setrlimit",
	"sysinfo",
	"time",
	"times",
	"uname",
};

/* Whoever tries these is not us any more. */
static const char *const calls_deadly[] = {
	"add_key",	    "bpf",
	"chroot",	    "delete_module",
	"execve",	    "execveat",
	"finit_module",	    "init_module",
	"kexec_file_load",  "kexec_load",
	"keyctl",	    "mount",
	"move_mount",	    "open_by_handle_at",
	"perf_event_open",  "pivot_root",
	"process_vm_readv", "process_vm_writev",
	"ptrace",	    "reboot",
	"request_key",	    "setns",
	"swapon",	    "umount2",
	"unshare",	    "userfaultfd",
};

static const int families_allowed[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };

static int calls_add(scmp_filter_ctx filter, uint32_t action, const char *const *names,
		     size_t count)
{
	int result = 0;

	for (size_t i = 0; i < count && result == 0; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);

		/* Not every architecture has every one. */
		if (number >= 0)
			result = seccomp_rule_add(filter, action, number, 0);
	}
	return result;
}

static int sockets_add(scmp_filter_ctx filter)
{
	int result = 0;

	for (size_t i = 0; i < array_count(families_allowed) && result == 0; i++)
		result = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
			SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families_allowed[i], 0));
	return result;
}

static int calls_restrict(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int result;

	if (filter == NULL)
		return -ENOMEM;
	/* jemalloc's thread, too. */
	result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (result == 0) /* a tree of comparisons, not a row of them: it is asked at every call */
		result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (result == 0)
		result = calls_add(filter, SCMP_ACT_ALLOW, calls_allowed,
				   array_count(calls_allowed));
	if (result == 0)
		result = calls_add(filter, SCMP_ACT_KILL_PROCESS, calls_deadly,
				   array_count(calls_deadly));
	if (result == 0)
		result = sockets_add(filter);
	if (result == 0)
		result = seccomp_load(filter);
	seccomp_release(filter);
	return result;
}
#endif

/* ── both ─────────────────────────────────────────────────────────────────────────── */

int os_sandbox(const struct os_sandbox *sandbox, char *what_out, size_t what_bytes)
{
	int version =
		(int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int files = version < 0 ? 0 : files_restrict(sandbox, version), calls;
	char landlock[80];

	if (files < 0)
		return files;
	if (secrets_keep() < 0)
		return -errno;
	calls = calls_restrict();
	if (calls < 0 && calls != -EINVAL && calls != -ENOSYS && calls != -ENOTSUP &&
	    calls != -ECANCELED)
		return calls;
	if (version >= 0)
		snprintf(landlock, sizeof(landlock), "Landlock %d over files", version);
	else
		snprintf(landlock, sizeof(landlock),
			 "no Landlock here: the kernel lacks or forbids it");
	snprintf(what_out, what_bytes, "%s, %s", landlock,
		 calls == 0	     ? "seccomp over system calls"
		 : calls == -ENOTSUP ? "no seccomp under a sanitizer"
				     : "no seccomp here: the kernel lacks or forbids it");
	return 0;
}
