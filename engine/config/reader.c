/*
 * libconfuse splits the file into options and texts; every option is a text to it, and it keeps
 * no more than that: a text carries the line that it stood on: "12:30s".
 */
#include "engine/config/reader.h"

#include <confuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/os.h"

#define FILE_BYTES_MAX	    (64u << 20)
#define SECTION_OPTIONS_MAX 48
#define END_OPTION	    "end-of-file"
#define FLAG_GIVEN	    (1 << 30) /* ours, beside libconfuse's flags of an option */

/* libconfuse's callbacks have no context. */
static _Thread_local struct config_reader *reading;

void config_complain(struct config_reader *reader, int line, const char *format, ...)
{
	size_t room = reader->error_bytes - reader->error_used;
	char text[1024];
	va_list list;
	int length;

	reader->failed = true;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	if (line > 0)
		length = snprintf(reader->error + reader->error_used, room, "%s%s:%d: %s",
				  reader->error_used > 0 ? "\n" : "", reader->path, line, text);
	else
		length = snprintf(reader->error + reader->error_used, room, "%s%s: %s",
				  reader->error_used > 0 ? "\n" : "", reader->path, text);
	reader->error_used += (size_t)length < room ? (size_t)length : room > 0 ? room - 1 : 0;
}

char *config_text_copy(struct config_reader *reader, const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		config_complain(reader, 0, "out of memory.");
	return copy;
}

/* ── libconfuse's side ────────────────────────────────────────────────────────────── */

static void on_error(cfg_t *cfg, const char *format, va_list list)
{
	char text[512];

	vsnprintf(text, sizeof(text), format, list);
	if (strstr(text, END_OPTION) != NULL)
		return config_complain(reading, cfg->line, "a '{' is not closed. Add the '}'.");
	config_complain(reading, cfg->line,
			"%s. Correct it as stafette.conf(5) says; what follows was not read.",
			text);
}

static int on_value(cfg_t *cfg, cfg_opt_t *option, const char *value, void *result)
{
	if (option->nvalues == 1) { /* the first value behind a '=' */
		if ((option->flags & FLAG_GIVEN) != 0)
			config_complain(reading, cfg->line, "%s is given twice. Remove one.",
					option->name);
		option->flags |= FLAG_GIVEN;
	}
	free(reading->text);
	if (asprintf(&reading->text, "%d:%s", cfg->line, value) < 0) {
		reading->text = NULL;
		return -1;
	}
	*(const char **)result = reading->text;
	return 0;
}

/* Its sections are ours under another name. */
static cfg_t *tree_of(struct config_section *section)
{
	return (cfg_t *)section;
}

/* The options of one section, as libconfuse wants them; it copies them. */
struct section {
	cfg_opt_t options[SECTION_OPTIONS_MAX];
	size_t count;
};

static void section_add(struct section *section, cfg_opt_t option)
{
	assert(section->count + 1 < SECTION_OPTIONS_MAX);
	section->options[section->count++] = option;
	section->options[section->count] = (cfg_opt_t)CFG_END();
}

static void section_text(struct section *section, const char *name)
{
	section_add(section, (cfg_opt_t)CFG_STR_CB(name, NULL, CFGF_NODEFAULT, on_value));
}

static void section_list(struct section *section, const char *name)
{
	section_add(section, (cfg_opt_t)CFG_STR_LIST_CB(name, NULL, CFGF_NODEFAULT, on_value));
}

/* MULTI also where only one is allowed: libconfuse would drop the first without a word. */
static void section_nest(struct section *section, const char *name, struct section *inner,
			 cfg_flag_t flags)
{
	section_add(section, (cfg_opt_t)CFG_SEC(name, inner->options, CFGF_MULTI | flags));
}

static void section_table(struct section *section, const struct config_option *table)
{
	for (; table->name != NULL; table++)
		section_text(section, table->name);
}

static cfg_t *grammar_create(void)
{
	struct section timeouts = { 0 }, delivery = { 0 }, route = { 0 }, dns = { 0 }, top = { 0 };
	struct section tls = { 0 }, certificate = { 0 }, listener = { 0 };
	struct section auth = { 0 };
	struct section dkim = { 0 }, dkim_domain = { 0 }, dkim_key = { 0 };
	cfg_t *cfg;

	section_table(&timeouts, config_timeouts_options);
	section_table(&delivery, config_delivery_options);
	section_nest(&delivery, "timeouts", &timeouts, CFGF_NONE);
	section_table(&route, config_delivery_options);
	section_nest(&route, "timeouts", &timeouts, CFGF_NONE);
	section_text(&route, "to");
	section_text(&route, "fail");
	section_text(&route, "discard");
	section_text(&route, "accept");
	section_text(&route, "lmtp");
	section_list(&route, "hosts");
	section_table(&dns, config_dns_options);
	section_list(&dns, "servers");
	section_table(&tls, config_tls_options);
	section_table(&auth, config_auth_options);
	section_table(&certificate, config_certificate_options);
	section_table(&listener, config_listener_options);
	section_list(&listener, "proxy_networks");
	section_list(&listener, "xclient_networks");
	section_table(&dkim_key, config_dkim_key_options);
	section_table(&dkim_domain, config_dkim_domain_options);
	section_nest(&dkim_domain, "key", &dkim_key, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_table(&dkim, config_dkim_options);
	section_nest(&dkim, "domain", &dkim_domain, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_table(&top, config_top_options);
	section_list(&top, "listen");
	section_list(&top, "trusted");
	section_text(&top, END_OPTION);
	section_nest(&top, "delivery", &delivery, CFGF_NONE);
	section_nest(&top, "dns", &dns, CFGF_NONE);
	section_nest(&top, "tls", &tls, CFGF_NONE);
	section_nest(&top, "auth", &auth, CFGF_NONE);
	section_nest(&top, "certificate", &certificate, CFGF_NONE);
	section_nest(&top, "listener", &listener, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_nest(&top, "dkim", &dkim, CFGF_NONE);
	section_nest(&top, "route", &route, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	cfg = cfg_init(top.options, CFGF_NONE);
	if (cfg != NULL)
		cfg_set_error_function(cfg, on_error);
	return cfg;
}

/* To libconfuse the end of the file closes every section. An option behind the end, which only
 * the top level knows, finds out what is still open. */
static bool parse(cfg_t *cfg, const char *bytes, size_t count)
{
	const char *line_end = count > 0 && bytes[count - 1] != '\n' ? "\n" : "";
	char *whole;
	int result;

	if (asprintf(&whole, "%s%s" END_OPTION " = here\n", bytes, line_end) < 0)
		return false;
	result = cfg_parse_buf(cfg, whole);
	free(whole);
	return result == CFG_SUCCESS;
}

struct config_section *config_reader_open(struct config_reader *reader)
{
	cfg_t *cfg;
	char *bytes;
	size_t count;
	int failed = os_file_load(OS_CURRENT_FOLDER, reader->path, FILE_BYTES_MAX, &bytes, &count);

	if (failed < 0) {
		config_complain(reader, 0, "cannot be read: %s. Give a readable file.",
				strerror(-failed));
		return NULL;
	}
	cfg = grammar_create();
	reading = reader;
	if (cfg == NULL)
		config_complain(reader, 0, "out of memory.");
	else if (strlen(bytes) != count)
		config_complain(reader, 0, "contains a zero byte. Write it as plain text.");
	else if (!parse(cfg, bytes, count) && !reader->failed)
		config_complain(reader, cfg->line, "cannot be understood. See stafette.conf(5).");
	free(bytes);
	reader->top = (struct config_section *)cfg;
	return reader->top;
}

void config_reader_close(struct config_reader *reader)
{
	if (reader->top != NULL)
		cfg_free(tree_of(reader->top));
	reader->top = NULL;
	reading = NULL;
	free(reader->text);
	reader->text = NULL;
}

/* ── sections and their values ────────────────────────────────────────────────────── */

int config_section_line(const struct config_section *section)
{
	return ((const cfg_t *)section)->line;
}

const char *config_section_title(struct config_section *section)
{
	return cfg_title(tree_of(section));
}

bool config_section_gives(struct config_section *section, const char *name)
{
	return (cfg_getopt(tree_of(section), name)->flags & CFGF_MODIFIED) != 0;
}

unsigned int config_section_count(struct config_section *section, const char *name)
{
	return cfg_size(tree_of(section), name);
}

struct config_section *config_section_nth(struct config_section *parent, const char *name,
					  unsigned int index)
{
	return (struct config_section *)cfg_getnsec(tree_of(parent), name, index);
}

const char *config_section_text(struct config_section *section, const char *name,
				unsigned int index, int *line_out)
{
	cfg_opt_t *option = cfg_getopt(tree_of(section), name);
	char *text;

	if (option == NULL || index >= cfg_opt_size(option))
		return NULL;
	*line_out = (int)strtol(cfg_opt_getnstr(option, index), &text, 10);
	assert(*text == ':');
	return text + 1;
}

void config_section_default(struct config_reader *reader, const struct config_option *option,
			    void *target)
{
	if (!config_options_default(option, target))
		config_complain(reader, 0, "out of memory.");
}

void config_section_apply(struct config_reader *reader, struct config_section *section,
			  const struct config_option *option, void *target)
{
	for (; option->name != NULL; option++) {
		int line;
		const char *text = config_section_text(section, option->name, 0, &line);
		const char *expected =
			text == NULL ? NULL : config_option_set(option, target, text);

		if (expected != NULL)
			config_complain(reader, line, "%s = \"%s\" is not possible. Give %s.",
					option->name, text, expected);
	}
}

struct config_section *config_section_only(struct config_reader *reader,
					   struct config_section *parent, const char *name)
{
	unsigned int count = config_section_count(parent, name);

	if (count > 1)
		config_complain(reader, config_section_line(config_section_nth(parent, name, 1)),
				"section %s is given twice. Put all of it into one.", name);
	return count > 0 ? config_section_nth(parent, name, 0) : NULL;
}
