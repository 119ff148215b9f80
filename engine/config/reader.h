/*
 * reader - one reading of a configuration: the file as sections of texts, and the complaints.
 *
 *   file ──► reader: sections, options, lines ──► config.c, listener_section.c, route_section.c:
 *                                                 what the texts mean ──► struct config
 *
 * What texts mean is decided after reading, section by section, so that routes inherit from
 * `delivery` wherever that stands, and one run reports all wrong values.
 *
 * Promise: every text keeps the line that it stood on; a complaint names file and line.
 * Non-promise: that a text means anything, or that a section is there only once.
 *
 * Thread: the one that is in config_load().
 * Source: man/stafette.conf.5.
 */
#ifndef ENGINE_CONFIG_READER_H
#define ENGINE_CONFIG_READER_H

#include "engine/config/table.h"

struct config_section; /* opaque; borrowed from the reader until config_reader_close() */

struct config_reader {
	const char *path; /* borrowed */
	char *error;	  /* the caller's buffer: a line for each complaint */
	size_t error_bytes, error_used;
	bool failed;
	struct config *config; /* borrowed: what is being built */
	/* Private. */
	struct config_section *top;
	char *text; /* of the last value, which libconfuse copies */
};

/* Reads the file; its top level, or NULL: there is none. What is wrong has been complained of; a
 * file that is wrong may have a top level all the same. */
struct config_section *config_reader_open(struct config_reader *reader);
/* Frees the sections and all their texts; after a failure, too. */
void config_reader_close(struct config_reader *reader);

/* `line` 0: of the file as a whole. From here on the reader has failed. */
__attribute__((format(printf, 3, 4))) void config_complain(struct config_reader *reader, int line,
							   const char *format, ...);

/* The caller's; NULL: no memory, which has been complained of. */
char *config_text_copy(struct config_reader *reader, const char *text);

int config_section_line(const struct config_section *section);
const char *config_section_title(struct config_section *section);
/* The option stands there, be it as an empty list. */
bool config_section_gives(struct config_section *section, const char *name);
/* Values of an option, or sections of that name. */
unsigned int config_section_count(struct config_section *section, const char *name);
/* The text of an option's value, and its line; NULL if it isn't given. */
const char *config_section_text(struct config_section *section, const char *name,
				unsigned int index, int *line_out);
struct config_section *config_section_nth(struct config_section *parent, const char *name,
					  unsigned int index);
/* The only section of that name; NULL if there is none. */
struct config_section *config_section_only(struct config_reader *reader,
					   struct config_section *parent, const char *name);
/* Gives all of the table's options their defaults. */
void config_section_default(struct config_reader *reader, const struct config_option *option,
			    void *target);
/* Reads what is given of the table's options into the struct that they are about. */
void config_section_apply(struct config_reader *reader, struct config_section *section,
			  const struct config_option *option, void *target);

#endif
