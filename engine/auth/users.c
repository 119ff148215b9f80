#include "engine/auth/users.h"

#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"

enum { HASH_MAX = CRYPT_OUTPUT_SIZE - 1, PATH_BYTES = 4096 };

/* name:hash[:senders] */
struct user {
	struct span name, hash, senders; /* senders.at NULL: any */
};

/* ── lines ────────────────────────────────────────────────────────────────────────── */

bool users_name_valid(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if ((unsigned char)name.at[i] < ' ' || name.at[i] == 127 || name.at[i] == ':')
			return false;
	return name.len > 0 && name.len <= USERS_NAME_MAX && name.at[0] != '#' &&
	       name.at[0] != ' ' && name.at[name.len - 1] != ' ';
}

static bool hash_valid(struct span hash)
{
	static const char *const methods[] = { "$y$",  "$gy$", "$7$", "$2b$",
					       "$2a$", "$2y$", "$6$", "$5$" };

	for (size_t i = 0; i < array_count(methods); i++)
		if (hash.len > strlen(methods[i]) && hash.len <= HASH_MAX &&
		    memcmp(hash.at, methods[i], strlen(methods[i])) == 0)
			return true;
	return false;
}

static bool line_is_user(struct span line)
{
	return line.len > 0 && *line.at != '#';
}

/* False: a line that says nothing of use; its parts are set as far as they are there. */
static bool user_parse(struct span line, struct user *out)
{
	const char *end = line.at + line.len, *colon = memchr(line.at, ':', line.len);
	const char *second = colon ? memchr(colon + 1, ':', (size_t)(end - colon - 1)) : NULL;

	*out = (struct user){ .name.len = 0 };
	if (!colon)
		return false;
	out->name = span_of(line.at, (size_t)(colon - line.at));
	out->hash = span_of(colon + 1, (size_t)((second ? second : end) - colon - 1));
	out->senders = second ? span_of(second + 1, (size_t)(end - second - 1)) : span_of(NULL, 0);
	return users_name_valid(out->name) && hash_valid(out->hash);
}

/* ── checking ─────────────────────────────────────────────────────────────────────── */

/* Whether the password has that hash; takes as long as the hash wants. Unavailable: no memory. */
static enum users_status hash_check(struct span hash, const char *password)
{
	struct crypt_data *data = calloc(1, sizeof(*data));
	char setting[HASH_MAX + 1];
	const char *made;
	unsigned char differs = 0;

	if (!data)
		return USERS_UNAVAILABLE;
	memcpy(setting, hash.at, hash.len);
	setting[hash.len] = '\0';
	made = crypt_r(password, setting, data);
	if (!made || made[0] == '*' || strlen(made) != hash.len)
		differs = 1;
	else /* in the same time wherever they differ */
		for (size_t i = 0; i < hash.len; i++)
			differs |= (unsigned char)(made[i] ^ setting[i]);
	explicit_bzero(data, sizeof(*data));
	explicit_bzero(setting, sizeof(setting));
	free(data);
	return differs ? USERS_WRONG : USERS_OK;
}

/* The user of that name; else the first one, for the time that the hash takes. False: none. */
static bool user_find(struct span file, struct span name, struct user *out)
{
	bool any = false;

	for (struct span line; secret_file_line(&file, &line);) {
		struct user user;

		if (!line_is_user(line) || !user_parse(line, &user))
			continue;
		if (!any || span_equal(user.name, name))
			*out = user;
		any = true;
		if (span_equal(user.name, name))
			break;
	}
	return any;
}

static bool senders_copy(struct span senders, char **out)
{
	*out = senders.at ? strndup(senders.at, senders.len) : NULL;
	return *out || !senders.at;
}

enum users_status users_verify(const char *path, struct span name, const char *password,
			       char **senders_out, char error[static SECRET_FILE_ERROR_BYTES])
{
	enum users_status status = USERS_WRONG;
	struct user user = { .name.len = 0 };
	size_t count;
	char *bytes;

	if (!secret_file_load(path, &bytes, &count, error))
		return USERS_UNAVAILABLE;
	if (strlen(password) <= USERS_PASSWORD_MAX && user_find(span_of(bytes, count), name, &user))
		status = hash_check(user.hash, password);
	if (status == USERS_OK && !span_equal(user.name, name))
		status = USERS_WRONG;
	if (status == USERS_OK && !senders_copy(user.senders, senders_out))
		status = USERS_UNAVAILABLE;
	if (status == USERS_UNAVAILABLE)
		snprintf(error, SECRET_FILE_ERROR_BYTES, "out of memory");
	secret_file_free(bytes, count);
	return status;
}

bool users_check(const char *path, char error[static SECRET_FILE_ERROR_BYTES])
{
	uint32_t number = 0;
	bool good = true;
	struct span rest, line;
	size_t count;
	char *bytes;

	if (!secret_file_load(path, &bytes, &count, error))
		return false;
	rest = span_of(bytes, count);
	while (good && secret_file_line(&rest, &line)) {
		struct user user;

		number++;
		good = !line_is_user(line) || user_parse(line, &user);
	}
	if (!good)
		snprintf(error, SECRET_FILE_ERROR_BYTES,
			 "%s:%u: not a user. Give name:hash, the hash by 'stafette passwd' or in "
			 "crypt(5)'s yescrypt, scrypt, bcrypt, SHA-512 or SHA-256",
			 path, number);
	secret_file_free(bytes, count);
	return good;
}

/* ── senders ──────────────────────────────────────────────────────────────────────── */

/* An address: the local part as it is, the domain without case. "@domain": all of it. */
static bool sender_matches(struct span entry, struct span address)
{
	const char *at = memrchr(address.at, '@', address.len);
	size_t local = at ? (size_t)(at - address.at) : address.len;
	size_t sign = 0;

	while (sign < entry.len && entry.at[entry.len - 1 - sign] != '@')
		sign++;
	if (!at || sign == entry.len)
		return false;

	size_t entry_local = entry.len - 1 - sign;

	return span_equal_nocase(span_skip(entry, entry_local), span_skip(address, local)) &&
	       (entry_local == 0 ||
		span_equal(span_of(entry.at, entry_local), span_of(address.at, local)));
}

bool users_sender_allowed(const char *senders, struct span address)
{
	if (address.len == 0)
		return true;
	while (*senders != '\0') {
		size_t len = strcspn(senders, ", ");

		if (len > 0 && sender_matches(span_of(senders, len), address))
			return true;
		senders += len;
		senders += strspn(senders, ", ");
	}
	return false;
}

/* ── changing ─────────────────────────────────────────────────────────────────────── */

/* What is being written. */
struct draft {
	char *bytes;
	size_t count, size;
};

static void draft_add(struct draft *draft, struct span text)
{
	assert(draft->count + text.len <= draft->size);
	memcpy(draft->bytes + draft->count, text.at, text.len);
	draft->count += text.len;
}

static void draft_user(struct draft *draft, struct span name, const char *hash, struct span senders)
{
	draft_add(draft, name);
	draft_add(draft, span_text(":"));
	draft_add(draft, span_text(hash));
	if (senders.at) {
		draft_add(draft, span_text(":"));
		draft_add(draft, senders);
	}
	draft_add(draft, span_text("\n"));
}

/* The name of a line, whatever its hash is. */
static bool line_is_of(struct span line, struct span name, struct user *out)
{
	(void)!user_parse(line, out);
	return line_is_user(line) && span_equal(out->name, name);
}

/* The old file with its change; false: the user to be taken out isn't there. */
static bool draft_fill(struct draft *draft, struct span old, struct span name, const char *hash)
{
	bool found = false;

	for (struct span line; secret_file_line(&old, &line);) {
		struct user user;

		if (!line_is_of(line, name, &user)) {
			draft_add(draft, line);
			draft_add(draft, span_text("\n"));
			continue;
		}
		if (hash && !found)
			draft_user(draft, name, hash, user.senders);
		found = true;
	}
	if (hash && !found)
		draft_user(draft, name, hash, span_of(NULL, 0));
	return hash || found;
}

/* Beside the file, then in its place. */
static int replace(const char *path, const struct draft *draft, int old_fd)
{
	char beside[PATH_BYTES];
	ssize_t written;
	int fd, result;

	if (snprintf(beside, sizeof(beside), "%s.new", path) >= (int)sizeof(beside))
		return -ENAMETOOLONG;
	os_unlink(OS_CURRENT_FOLDER, beside); /* of one that was interrupted */
	fd = os_file_open(OS_CURRENT_FOLDER, beside, OS_WRITE | OS_CREATE_NEW, 0600);
	if (fd < 0)
		return fd;
	written = os_file_write(fd, draft->bytes, draft->count, 0);
	result = written < 0 ? (int)written : (size_t)written < draft->count ? -ENOSPC : 0;
	if (result == 0 && old_fd >= 0)
		result = os_file_resemble(fd, old_fd);
	if (result == 0)
		result = os_file_sync(fd);
	os_file_close(fd);
	if (result == 0)
		result = os_rename(OS_CURRENT_FOLDER, beside, OS_CURRENT_FOLDER, path);
	if (result < 0)
		os_unlink(OS_CURRENT_FOLDER, beside);
	return result;
}

/* No file is an empty one. */
static int load_old(int fd, const char *path, char **bytes_out, size_t *count_out)
{
	if (fd >= 0)
		return os_file_load(OS_CURRENT_FOLDER, path, SECRET_FILE_BYTES_MAX, bytes_out,
				    count_out);
	*bytes_out = fd == -ENOENT ? strdup("") : NULL;
	*count_out = 0;
	return *bytes_out ? 0 : fd == -ENOENT ? -ENOMEM : fd;
}

int users_change(const char *path, struct span name, const char *hash)
{
	int fd = os_file_open(OS_CURRENT_FOLDER, path, OS_READ, 0);
	struct draft draft = { 0 };
	size_t count;
	char *old;
	int result = load_old(fd, path, &old, &count);

	if (result == 0) {
		draft.size = count + name.len + (hash ? strlen(hash) : 0) + 8;
		draft.bytes = malloc(draft.size);
		if (!draft.bytes)
			result = -ENOMEM;
		else if (!draft_fill(&draft, span_of(old, count), name, hash))
			result = -ENOENT;
		else
			result = replace(path, &draft, fd);
		secret_file_free(draft.bytes, draft.count);
		secret_file_free(old, count);
	}
	if (fd >= 0)
		os_file_close(fd);
	return result;
}
