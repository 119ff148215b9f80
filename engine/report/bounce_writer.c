/*
 * bounce_writer - see bounce_writer.h.
 */
#include "engine/report/bounce_writer.h"

#include "engine/smtp/utf8.h"
#include "os/check.h"

void bounce_writer_init(struct bounce_writer *writer, bounce_append *append, void *context)
{
	writer->append = append;
	writer->context = context;
	writer->result = (struct bounce_result){ 0 };
	writer->line_start = true;
	writer->used = 0;
}

void bounce_writer_finish(struct bounce_writer *writer)
{
	if (writer->used > 0)
		writer->append(writer->context, span_of(writer->bytes, writer->used));
	writer->used = 0;
}

bool bounce_eightbit(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.at[i] > 127)
			return true;
	}
	return false;
}

static void write_octet(struct bounce_writer *writer, char octet)
{
	if (writer->used == sizeof(writer->bytes))
		bounce_writer_finish(writer);
	if (writer->line_start && octet == '.')
		writer->result.dot_lines = true;
	if ((unsigned char)octet > 127)
		writer->result.eightbit = true;
	writer->line_start = octet == '\n';
	writer->bytes[writer->used++] = octet;
	writer->result.bytes++;
}

void bounce_write(struct bounce_writer *writer, struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		write_octet(writer, bytes.at[i]);
}

void bounce_text(struct bounce_writer *writer, const char *text)
{
	bounce_write(writer, span_text(text));
}

void bounce_line(struct bounce_writer *writer, const char *text)
{
	bounce_text(writer, text);
	bounce_text(writer, "\r\n");
}

static char clean(char octet, bool utf8)
{
	unsigned char value = (unsigned char)octet;

	return value < ' ' || value == 127 || (value > 127 && !utf8) ? '?' : octet;
}

void bounce_write_clean(struct bounce_writer *writer, struct span text, size_t len_max, bool utf8)
{
	if (text.len > len_max) {
		/* A cut could split a character. */
		text.len = len_max;
		utf8 = false;
	}
	utf8 = utf8 && smtp_utf8_valid(text);
	for (size_t i = 0; i < text.len; i++)
		write_octet(writer, clean(text.at[i], utf8));
}

static bool blank(char octet)
{
	return octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n';
}

/* The next word; empty at the end. */
static struct span next_word(struct span *rest)
{
	size_t len = 0;

	while (rest->len > 0 && blank(rest->at[0]))
		*rest = span_skip(*rest, 1);
	while (len < rest->len && !blank(rest->at[len]))
		len++;

	struct span word = span_of(rest->at, len);
	*rest = span_skip(*rest, len);
	return word;
}

void bounce_write_folded(struct bounce_writer *writer, const char *first, const char *next,
			 struct span text)
{
	size_t column = strlen(first), next_bytes = strlen(next);
	size_t word_max = BOUNCE_LINE_MAX / 2;
	bool fresh = true; /* nothing of the text is in this line */
	struct span word;

	assert(column < word_max && next_bytes < word_max);
	bounce_text(writer, first);
	while ((word = next_word(&text)).len > 0) {
		while (word.len > 0) {
			struct span piece =
				span_of(word.at, word.len < word_max ? word.len : word_max);

			if (!fresh && column + 1 + piece.len > BOUNCE_FOLD_COLUMN) {
				bounce_text(writer, "\r\n");
				bounce_text(writer, next);
				column = next_bytes;
			} else if (!fresh) {
				write_octet(writer, ' ');
				column++;
			}
			for (size_t i = 0; i < piece.len; i++)
				write_octet(writer, clean(piece.at[i], false));
			column += piece.len;
			fresh = false;
			word = span_skip(word, piece.len);
		}
	}
	bounce_text(writer, "\r\n");
}
