/*
 * privilege - from root to an ordinary user, for good.
 *
 * glibc's set*id() reach all threads of the process, capset() only the caller's: no thread but
 * jemalloc's own may be there yet, and that one does nothing but return memory.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

bool os_is_root(void)
{
	return geteuid() == 0;
}

int os_user_find(const char *name, const char *group, struct os_user *out)
{
	char text[64 << 10]; /* a group's members have to fit, too */
	struct passwd user, *found = NULL;
	struct group entry, *found_group = NULL;
	int error = getpwnam_r(name, &user, text, sizeof(text), &found);

	if (found == NULL)
		return error == 0 ? -ENOENT : -error;
	snprintf(out->name, sizeof(out->name), "%s", name);
	out->uid = user.pw_uid;
	out->gid = user.pw_gid;
	if (group == NULL)
		return 0;
	error = getgrnam_r(group, &entry, text, sizeof(text), &found_group);
	if (found_group == NULL)
		return error == 0 ? -ENOENT : -error;
	out->gid = entry.gr_gid;
	return 0;
}

int os_file_owner(int fd, uint32_t *uid_out)
{
	struct stat info;

	if (fstat(fd, &info) != 0)
		return -errno;
	*uid_out = info.st_uid;
	return 0;
}

int os_file_give(int fd, const struct os_user *user)
{
	return fchown(fd, user->uid, user->gid) == 0 ? 0 : -errno;
}

/* Whatever is held beyond it goes; nothing is passed on to another program. */
static int capabilities_keep_one(unsigned int one)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3] = { 0 };
	uint32_t mask = UINT32_C(1) << one;

	if (syscall(SYS_capget, &header, held) != 0)
		return -errno;
	held[0].permitted &= mask;
	held[0].effective = held[0].permitted;
	held[0].inheritable = 0;
	held[1] = (struct __user_cap_data_struct){ 0 };
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, held) == 0 ? 0 : -errno;
}

/* Without CAP_SETPCAP the bounding set stays: it only matters to programs that we never start. */
static void bounding_set_drop(void)
{
	for (unsigned long one = 0; one <= CAP_LAST_CAP; one++)
		if (one != CAP_NET_BIND_SERVICE)
			prctl(PR_CAPBSET_DROP, one, 0, 0, 0);
}

static int identity_change(const struct os_user *user)
{
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || initgroups(user->name, user->gid) != 0 ||
	    setresgid(user->gid, user->gid, user->gid) != 0 ||
	    setresuid(user->uid, user->uid, user->uid) != 0)
		return -errno;
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	/* If there is a way back, there is a bug in the kernel or here. */
	assert(user->uid == 0 || setuid(0) != 0);
	return 0;
}

int os_drop_privileges(const struct os_user *user)
{
	int result = 0;

	bounding_set_drop();
	if (user != NULL)
		result = identity_change(user);
	if (result == 0)
		result = capabilities_keep_one(CAP_NET_BIND_SERVICE);
	if (result == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		result = -errno;
	return result;
}
