#include "engine/auth/credentials.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/config/config.h"
#include "os/check.h"

struct entry {
	const char *host, *user, *password; /* in `bytes` */
};

struct credentials {
	char *bytes; /* the file, cut into words */
	size_t byte_count;
	struct entry *entries;
	uint32_t count;
};

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The next word of the line, ended by a NUL in its place; NULL: it is too long, or not there. */
static const char *word_cut(char **at)
{
	char *word = *at;

	while (**at != '\0' && !blank(**at))
		(*at)++;
	if (*at == word || *at - word > CREDENTIALS_WORD_MAX || **at == '\0')
		return NULL;
	*(*at)++ = '\0';
	while (blank(**at))
		(*at)++;
	return word;
}

/* `line` ends in a NUL. */
static bool entry_parse(char *line, struct entry *out)
{
	out->host = word_cut(&line);
	out->user = out->host ? word_cut(&line) : NULL;
	out->password = line;
	return out->user && *line != '\0' && strlen(line) <= CREDENTIALS_WORD_MAX;
}

static bool parse(struct credentials *credentials, const char *path,
		  char error[static SECRET_FILE_ERROR_BYTES])
{
	struct span rest = span_of(credentials->bytes, credentials->byte_count), line;
	uint32_t number = 0;

	while (secret_file_line(&rest, &line)) {
		char *at = credentials->bytes + (line.at - credentials->bytes);

		number++;
		if (line.len == 0 || *line.at == '#')
			continue;
		at[line.len] = '\0'; /* over its end, or that of the file */
		if (!entry_parse(at, &credentials->entries[credentials->count])) {
			snprintf(error, SECRET_FILE_ERROR_BYTES,
				 "%s:%u: not a line of credentials. Give host, user and password, "
				 "with blanks between them",
				 path, number);
			return false;
		}
		credentials->count++;
	}
	return true;
}

static uint32_t lines_max(const char *bytes, size_t count)
{
	uint32_t lines = 1;

	for (size_t i = 0; i < count; i++)
		lines += bytes[i] == '\n';
	return lines;
}

struct credentials *credentials_load(const char *path, char error[static SECRET_FILE_ERROR_BYTES])
{
	struct credentials *credentials = calloc(1, sizeof(*credentials));

	snprintf(error, SECRET_FILE_ERROR_BYTES, "out of memory for %s", path);
	if (!credentials ||
	    !secret_file_load(path, &credentials->bytes, &credentials->byte_count, error)) {
		free(credentials);
		return NULL;
	}
	credentials->entries = calloc(lines_max(credentials->bytes, credentials->byte_count),
				      sizeof(*credentials->entries));
	if (credentials->entries && parse(credentials, path, error))
		return credentials;
	credentials_destroy(credentials);
	return NULL;
}

void credentials_destroy(struct credentials *credentials)
{
	if (!credentials)
		return;
	secret_file_free(credentials->bytes, credentials->byte_count);
	free(credentials->entries);
	free(credentials);
}

const char *credentials_find(const struct credentials *credentials, const char *host,
			     const char *user)
{
	const char *any = NULL;

	for (uint32_t i = 0; credentials && i < credentials->count; i++) {
		const struct entry *entry = &credentials->entries[i];

		assert(entry->host && entry->user && entry->password);
		if (strcmp(entry->user, user) != 0)
			continue;
		if (strcasecmp(entry->host, host) == 0)
			return entry->password;
		if (!any && strcmp(entry->host, "*") == 0)
			any = entry->password;
	}
	return any;
}

/* ── of a configuration ───────────────────────────────────────────────────────────── */

static bool route_has_its_passwords(const struct config *config, const struct config_route *route,
				    char error[static SECRET_FILE_ERROR_BYTES])
{
	const char *user = route->delivery.auth_user;

	for (uint32_t i = 0; user[0] != '\0' && i < route->host_count; i++) {
		if (credentials_find(config->credentials, route->hosts[i].name, user))
			continue;
		snprintf(error, SECRET_FILE_ERROR_BYTES,
			 "route \"%.100s\": no password of %.100s for %.100s. Add a line to the "
			 "file that credentials names",
			 route->pattern, user, route->hosts[i].name);
		return false;
	}
	return true;
}

bool credentials_read(struct config *config, char error[static SECRET_FILE_ERROR_BYTES])
{
	if (config->credentials_file) {
		config->credentials = credentials_load(config->credentials_file, error);
		if (!config->credentials)
			return false;
	}
	for (uint32_t i = 0; i < config->route_count; i++)
		if (!route_has_its_passwords(config, &config->routes[i], error))
			return false;
	return true;
}
