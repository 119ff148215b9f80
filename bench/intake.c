#include "bench/intake.h"

static const char ending[] = "\r\n.\r\n";
#define ENDING_LENGTH 5

void intake_expect_dot(struct intake *intake)
{
	intake->state = INTAKE_DOT;
	intake->dot_matched = 2; /* the command ended in CRLF */
}

void intake_expect_chunk(struct intake *intake, size_t bytes)
{
	intake->state = INTAKE_CHUNK;
	intake->chunk_left = bytes;
}

/* How much of the ending is matched after one more byte. */
static int dot_step(int matched, char byte)
{
	if (byte == ending[matched])
		return matched + 1;
	return byte == '\r' ? 1 : 0;
}

/* How many bytes belong to the data; *done if the ending is among them. */
static size_t dot_find(struct intake *intake, struct span bytes, bool *done)
{
	size_t at = 0;
	const char *found;

	while (at < bytes.len && intake->dot_matched > 0 && intake->dot_matched < ENDING_LENGTH)
		intake->dot_matched = dot_step(intake->dot_matched, bytes.at[at++]);
	*done = intake->dot_matched == ENDING_LENGTH;
	if (*done || at == bytes.len)
		return at;
	found = memmem(bytes.at + at, bytes.len - at, ending, ENDING_LENGTH);
	*done = found != NULL;
	if (found != NULL)
		return (size_t)(found - bytes.at) + ENDING_LENGTH;
	at = bytes.len - at < ENDING_LENGTH ? at : bytes.len - ENDING_LENGTH + 1;
	while (at < bytes.len)
		intake->dot_matched = dot_step(intake->dot_matched, bytes.at[at++]);
	return bytes.len;
}

static size_t data_feed(struct intake *intake, struct span bytes)
{
	bool done;
	size_t count;

	if (intake->state == INTAKE_DOT) {
		count = dot_find(intake, bytes, &done);
	} else {
		count = bytes.len < intake->chunk_left ? bytes.len : intake->chunk_left;
		intake->chunk_left -= count;
		done = intake->chunk_left == 0;
	}
	if (count > 0)
		intake->on_data(intake, span_of(bytes.at, count));
	if (done) {
		intake->state = INTAKE_LINES;
		intake->on_end(intake);
	}
	return count;
}

/* Bytes used; 0 if the line is too long. */
static size_t line_feed(struct intake *intake, struct span bytes)
{
	const char *end = memchr(bytes.at, '\n', bytes.len);
	size_t count = end != NULL ? (size_t)(end - bytes.at) + 1 : bytes.len;
	struct span line = span_of(bytes.at, count);

	if (intake->line_length > 0 || end == NULL) {
		if (intake->line_length + count > sizeof(intake->line))
			return 0;
		memcpy(intake->line + intake->line_length, bytes.at, count);
		intake->line_length += count;
		line = span_of(intake->line, intake->line_length);
	}
	if (end == NULL)
		return count;
	intake->line_length = 0;
	line.len--;
	if (line.len > 0 && line.at[line.len - 1] == '\r')
		line.len--;
	intake->on_command(intake, line);
	return count;
}

bool intake_feed(struct intake *intake, struct span bytes)
{
	/* A chunk of no bytes ends without any. */
	while (bytes.len > 0 || (intake->state == INTAKE_CHUNK && intake->chunk_left == 0)) {
		size_t used = intake->state == INTAKE_LINES ? line_feed(intake, bytes)
							    : data_feed(intake, bytes);

		if (used == 0 && intake->state == INTAKE_LINES && bytes.len > 0 &&
		    intake->line_length > 0)
			return false;
		bytes = span_skip(bytes, used);
	}
	return true;
}
