#include "engine/inbound/drop_folder.h"

#include <errno.h>
#include <string.h>

#include "engine/inbound/drop_file.h"
#include "engine/worker.h"

/* ── opening ──────────────────────────────────────────────────────────────────────── */

/* In the spool itself: everybody has to get through to it, and sees nothing on the way. */
static int open_the_way(const struct config *config)
{
	int spool = os_file_open(OS_CURRENT_FOLDER, config->spool, OS_READ | OS_FOLDER, 0);
	uint32_t mode;
	int error;

	if (spool < 0)
		return spool;
	error = os_file_mode(spool, &mode);
	if (error == 0 && !(mode & 1))
		error = os_file_set_mode(spool, mode | 1);
	os_file_close(spool);
	return error;
}

static int make_folder(const struct config *config, const char *path)
{
	int error = os_mkdir(OS_CURRENT_FOLDER, path, 0700);
	int folder =
		error == 0 ? os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0) : error;

	if (folder < 0)
		return folder;
	error = os_file_set_mode(folder, DROP_FOLDER_MODE);
	if (error == 0 && !config->drop)
		error = open_the_way(config);
	if (error == 0)
		return folder;
	os_file_close(folder);
	return error;
}

int drop_folder_open_bad(int folder, const char *path)
{
	struct os_file_facts mine, theirs;
	int bad;

	os_mkdir(folder, DROP_BAD_FOLDER, 0700);
	bad = os_file_open(folder, DROP_BAD_FOLDER, OS_READ | OS_FOLDER | OS_STRANGE, 0);
	if (bad >= 0 && os_file_facts(folder, &mine) == 0 && os_file_facts(bad, &theirs) == 0 &&
	    mine.owner == theirs.owner)
		return bad;
	log_notice(LOG_WARNING, "drop directory %s: %s in it is no folder of its owner's", path,
		   DROP_BAD_FOLDER);
	if (bad >= 0)
		os_file_close(bad);
	return -1;
}

/* A folder that only its owner can fill was made for something else: the spool, one for logs. What
 * is there is no mail, and to put it out of the way would take it from its owner. Our own in the
 * spool may be one whose maker was killed before it had its mode. */
static int check_mode(const struct config *config, int folder, const char *path)
{
	uint32_t mode;
	int error = os_file_mode(folder, &mode);

	if (error == 0 && config->drop && !(mode & 022)) {
		log_notice(LOG_ERROR,
			   "drop directory %s: nobody but its owner can leave mail there (mode "
			   "%o), so nothing there is touched or taken in; name a folder for "
			   "nothing else, which is made, or which has the mode %o",
			   path, mode & 07777, DROP_FOLDER_MODE);
		return -EPERM;
	}
	if (error == 0 && (mode & 01002) == 2)
		log_notice(LOG_WARNING,
			   "drop directory %s: users can remove each other's mail; give it the "
			   "mode %o",
			   path, DROP_FOLDER_MODE);
	return 0;
}

int drop_folder_open(const struct config *config, const char *path)
{
	int folder = os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	int error;

	if (folder == -ENOENT)
		folder = make_folder(config, path);
	if (folder < 0) {
		log_notice(LOG_WARNING,
			   "drop directory %s: %s; mail that sendmail keeps there is not taken in",
			   path, strerror(-folder));
		return folder;
	}
	error = check_mode(config, folder, path);
	if (error == 0)
		return folder;
	os_file_close(folder);
	return error;
}

/* ── after a crash ────────────────────────────────────────────────────────────────── */

struct taken {
	int folder;
	const struct format_origin *files;
	size_t count;
};

static bool is_taken(const struct taken *taken, const char *name, uint64_t inode)
{
	struct format_origin origin = drop_origin(name, inode);

	for (size_t i = 0; i < taken->count; i++)
		if (taken->files[i].message == origin.message &&
		    taken->files[i].recipients == origin.recipients)
			return true;
	return false;
}

static int remove_if_taken(void *context, const char *name)
{
	const struct taken *taken = context;
	int fd = os_file_open(taken->folder, name, OS_READ | OS_STRANGE, 0);
	struct os_file_facts facts;
	int error;

	/* What can't be opened was never taken in. */
	if (fd < 0)
		return fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -EIO ? fd : 0;
	error = os_file_facts(fd, &facts);
	os_file_close(fd);
	if (error == 0 && facts.regular && is_taken(taken, name, facts.inode))
		error = os_unlink(taken->folder, name);
	return error;
}

int drop_folder_remove_taken(void *context, const struct format_origin *files, size_t count)
{
	struct taken taken = { .files = files, .count = count };
	char path[DROP_PATH_BYTES];
	int error;

	if (!drop_folder_path(context, path))
		return 0;
	taken.folder = os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	/* Where there is no folder, there is no file that could be taken in again. */
	if (taken.folder < 0)
		return taken.folder == -ENOENT ? 0 : taken.folder;
	error = os_folder_list(taken.folder, remove_if_taken, &taken);
	if (error == 0)
		error = os_file_sync(taken.folder);
	os_file_close(taken.folder);
	return error;
}
