#include "engine/confine.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "engine/inbound/drop_file.h"
#include "engine/log/log.h"

/* ── who ──────────────────────────────────────────────────────────────────────────── */

static int find_user(const struct config *config, struct os_user *out)
{
	const char *name = config->user ? config->user : CONFINE_USER;
	int result = os_user_find(name, config->group, out);

	if (result == 0)
		return EX_OK;
	if (result != -ENOENT)
		log_notice(LOG_ERROR, "the user %s cannot be looked up: %s", name,
			   strerror(-result));
	else if (config->user || config->group)
		log_notice(LOG_ERROR,
			   "there is no user %s, or no group %s; make it, or change "
			   "user or group in the configuration",
			   name, config->group ? config->group : name);
	else
		log_notice(LOG_ERROR,
			   "not running as root: make the user " CONFINE_USER
			   " (useradd --system " CONFINE_USER "), or name another one with user in "
			   "the configuration; user = \"root\" if you really want that");
	return EX_NOUSER;
}

/* ── what root makes for the user ─────────────────────────────────────────────────── */

static int complain(const char *path, int error)
{
	log_notice(LOG_ERROR, "%s cannot be made: %s", path, strerror(-error));
	return EX_CANTCREAT;
}

static int give_spool(const char *path, const struct os_user *user)
{
	int folder = os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	bool made = folder == -ENOENT;
	uint32_t owner = user->uid;
	int result;

	if (made) {
		result = os_mkdir_durable(path, 0750);
		folder = result < 0 ? result
				    : os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	}
	if (folder < 0)
		return complain(path, folder);
	result = made ? os_file_give(folder, user) : os_file_owner(folder, &owner);
	os_file_close(folder);
	if (result < 0)
		return complain(path, result);
	if (owner == user->uid)
		return EX_OK;
	log_notice(LOG_ERROR,
		   "the spool %s is not %s's: stop what uses it, then chown -R %s %s, or set user "
		   "to whom it belongs",
		   path, user->name, user->name, path);
	return EX_NOPERM;
}

static bool is_file(const char *path)
{
	return path != NULL && strcmp(path, "-") != 0;
}

/* One that is there is left alone: if the user may not write it, opening will say so. */
static int give_log(const char *path, const struct os_user *user)
{
	int fd = is_file(path) ? os_file_open(OS_CURRENT_FOLDER, path,
					      OS_WRITE | OS_APPEND | OS_CREATE_NEW, 0640)
			       : -EEXIST;
	int result;

	if (fd == -EEXIST)
		return EX_OK;
	result = fd < 0 ? fd : os_file_give(fd, user);
	if (fd >= 0)
		os_file_close(fd);
	return result < 0 ? complain(path, result) : EX_OK;
}

int confine_user(const struct config *config)
{
	bool is_root = os_is_root();
	struct os_user user = { 0 };
	int result = is_root ? find_user(config, &user) : EX_OK;

	if (is_root && result == EX_OK && user.uid != 0)
		result = give_spool(config->spool, &user);
	if (is_root && result == EX_OK && user.uid != 0)
		result = give_log(config->delivery_log, &user);
	if (result != EX_OK)
		return result;
	result = os_drop_privileges(is_root ? &user : NULL);
	if (result == 0)
		return EX_OK;
	log_notice(LOG_ERROR, "cannot become the user %s: %s", user.name, strerror(-result));
	return EX_OSERR;
}

/* ── which files ──────────────────────────────────────────────────────────────────── */

/* Paths that the sandbox lets through, until it knows them. */
struct paths {
	char **at;
	size_t count, room;
};

static void paths_add(struct paths *paths, const char *path)
{
	if (paths->count == paths->room) {
		paths->room = paths->room ? 2 * paths->room : 16;
		paths->at = realloc(paths->at, paths->room * sizeof(paths->at[0]));
		assert(paths->at != NULL);
	}
	paths->at[paths->count] = strdup(path);
	assert(paths->at[paths->count] != NULL);
	paths->count++;
}

static void paths_free(struct paths *paths)
{
	while (paths->count > 0)
		free(paths->at[--paths->count]);
	free(paths->at);
}

static void add_folder_of(struct paths *paths, const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_MAX];

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) : 1,
		 slash ? path : ".");
	paths_add(paths, folder[0] ? folder : "/");
}

/* Files are replaced by renaming others over them, so it is their folder that counts; also the
 * one that a symbolic link leads to. */
static void add_file(struct paths *paths, const char *path)
{
	char real[PATH_MAX];

	if (!is_file(path))
		return;
	add_folder_of(paths, path);
	if (os_path_real(path, real, sizeof(real)) == 0 && strcmp(real, path) != 0)
		add_folder_of(paths, real);
}

static void add_read(struct paths *paths, const struct config *config)
{
	add_file(paths, config->path);
	add_file(paths, config->tls_ca_file);
	add_file(paths, config->auth.users);
	add_file(paths, config->credentials_file);
	for (uint32_t i = 0; i < config->certificate_count; i++) {
		add_file(paths, config->certificates[i].chain);
		add_file(paths, config->certificates[i].key);
	}
	for (uint32_t i = 0; i < config->dkim.domain_count; i++)
		for (uint32_t k = 0; k < config->dkim.domains[i].key_count; k++)
			add_file(paths, config->dkim.domains[i].keys[k].file);
}

/* A spool that is still to be made is made in its parent: that one, then. */
static void add_spool(struct paths *paths, const char *spool)
{
	int folder = os_file_open(OS_CURRENT_FOLDER, spool, OS_READ | OS_FOLDER, 0);

	if (folder == -ENOENT && os_mkdir_durable(spool, 0750) < 0)
		add_folder_of(paths, spool);
	if (folder >= 0)
		os_file_close(folder);
	paths_add(paths, spool);
}

static void add_written(struct paths *paths, const struct config *config)
{
	char drop[DROP_PATH_BYTES];

	add_spool(paths, config->spool);
	if (drop_folder_path(config, drop)) {
		paths_add(paths, drop);
		add_folder_of(paths, drop);
	}
	add_file(paths, config->delivery_log);
	for (uint32_t i = 0; i < config->listener_count; i++)
		if (config->listeners[i].address.family == AF_UNIX)
			add_file(paths, config->listeners[i].address.path);
}

int confine_files(const struct config *config)
{
	struct paths read = { 0 }, written = { 0 };
	struct os_sandbox sandbox;
	char what[256];
	int result;

	if (!config->sandbox) {
		log_notice(LOG_WARNING, "no sandbox, as configured");
		return EX_OK;
	}
	add_read(&read, config);
	add_written(&written, config);
	sandbox = (struct os_sandbox){
		.read = (const char *const *)read.at,
		.written = (const char *const *)written.at,
		.read_count = read.count,
		.written_count = written.count,
	};
	result = os_sandbox(&sandbox, what, sizeof(what));
	paths_free(&read);
	paths_free(&written);
	if (result < 0) {
		log_notice(LOG_ERROR, "the sandbox fails: %s; sandbox = false goes without it",
			   strerror(-result));
		return EX_OSERR;
	}
	log_notice(LOG_NOTICE, "sandbox: %s", what);
	return EX_OK;
}
