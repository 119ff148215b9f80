#include "engine/smtp/downgrade.h"

#include "engine/smtp/mime_header.h"
#include "engine/smtp/scan.h"
#include "os/check.h"

struct downgrade {
	struct mime_output *output;
	const char *end; /* of the message */
	const char *why; /* refused; NULL: not so far */
};

/* What a stretch of text would be to a server that knows 7-bit only. */
struct octets {
	bool strange;	 /* above 127, or a line end that is none: it has to be encoded */
	bool unlabelled; /* 7bit may not be said of it: NUL, or a line that is too long */
};

static struct octets look_at(struct span text)
{
	struct smtp_scan scan;

	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, text);
	smtp_scan_finish(&scan);
	return (struct octets){
		.strange = scan.eightbit || scan.bare_cr || scan.bare_lf,
		.unlabelled = scan.nul || scan.long_line,
	};
}

static void refuse(struct downgrade *downgrade, const char *why)
{
	if (!downgrade->why)
		downgrade->why = why;
}

/* As it is, if that will do. */
static void put_plain(struct downgrade *downgrade, struct span text, const char *why)
{
	if (look_at(text).strange)
		refuse(downgrade, why);
	else
		mime_put(downgrade->output, text);
}

/* ── headers ──────────────────────────────────────────────────────────────────────── */

/* The header with another Content-Transfer-Encoding (NULL: the same) and, if `is_message`, with a
 * MIME-Version. */
static void put_header(struct downgrade *downgrade, const struct mime_header *header,
		       const char *encoding, bool is_message)
{
	struct mime_output *output = downgrade->output;
	struct span fields = header->fields, old = header->encoding_field;
	size_t before = old.len > 0 ? (size_t)(old.at - fields.at) : fields.len;

	if (!encoding) {
		mime_put(output, fields);
	} else {
		mime_put(output, span_of(fields.at, before));
		mime_put(output, span_text("Content-Transfer-Encoding: "));
		mime_put(output, span_text(encoding));
		/* The last field of a part without a body may lack its CRLF. */
		if (old.len == 0 || old.at[old.len - 1] == '\n')
			mime_put(output, span_text("\r\n"));
		mime_put(output, span_skip(fields, before + old.len));
	}
	if (is_message && !header->has_version && header->body.len > 0)
		mime_put(output, span_text("MIME-Version: 1.0\r\n"));
}

static void put_empty_line(struct downgrade *downgrade, const struct mime_header *header)
{
	mime_put(downgrade->output, span_of(header->rest.at, header->rest.len - header->body.len));
}

/* ── leaves ───────────────────────────────────────────────────────────────────────── */

static void put_encoded(struct downgrade *downgrade, const struct mime_header *header,
			bool is_message)
{
	bool text = header->kind == MIME_TEXT;
	bool closed = header->body.at + header->body.len == downgrade->end;

	put_header(downgrade, header, text ? "quoted-printable" : "base64", is_message);
	if (!header->has_type)
		mime_put(downgrade->output,
			 span_text("Content-Type: text/plain; charset=unknown-8bit\r\n"));
	put_empty_line(downgrade, header);
	if (text)
		mime_put_quoted_printable(downgrade->output, header->body, closed);
	else
		mime_put_base64(downgrade->output, header->body, closed);
}

static void convert_leaf(struct downgrade *downgrade, const struct mime_header *header,
			 bool is_message)
{
	bool labelled = header->encoding == MIME_ENCODING_8BIT;
	struct octets body = look_at(header->body);

	if (!body.strange && !(labelled && body.unlabelled)) {
		put_header(downgrade, header, labelled ? "7bit" : NULL, false);
		mime_put(downgrade->output, header->rest);
	} else if (header->encoding == MIME_ENCODING_CODED) {
		refuse(downgrade, "a part with 8-bit octets claims to be encoded");
	} else if (header->kind == MIME_REPORTED) {
		refuse(downgrade, "a part with 8-bit octets is of a type that may not be encoded");
	} else {
		put_encoded(downgrade, header, is_message);
	}
}

/* ── parts ────────────────────────────────────────────────────────────────────────── */

struct delimiter {
	size_t at;    /* with the CRLF before it, which belongs to it */
	size_t after; /* its line */
	bool close;
};

/* Is this line, without its CRLF, a delimiter? */
static bool is_delimiter(struct span line, struct span boundary, bool *close_out)
{
	if (line.len < 2 + boundary.len || memcmp(line.at, "--", 2) != 0 ||
	    memcmp(line.at + 2, boundary.at, boundary.len) != 0)
		return false;
	line = span_skip(line, 2 + boundary.len);
	*close_out = line.len >= 2 && memcmp(line.at, "--", 2) == 0;
	if (*close_out)
		line = span_skip(line, 2);
	while (line.len > 0 && (line.at[0] == ' ' || line.at[0] == '\t'))
		line = span_skip(line, 1);
	return line.len == 0;
}

static bool find_delimiter(struct span text, struct span boundary, struct delimiter *out)
{
	size_t at = 0;

	while (at < text.len) {
		struct span rest = span_skip(text, at);
		const char *crlf = memmem(rest.at, rest.len, "\r\n", 2);
		size_t len = crlf ? (size_t)(crlf - rest.at) : rest.len;

		if (is_delimiter(span_of(rest.at, len), boundary, &out->close)) {
			out->at = at > 0 ? at - 2 : 0;
			out->after = at + len + (crlf ? 2 : 0);
			return true;
		}
		at += len + 2;
	}
	return false;
}

static void convert_entity(struct downgrade *downgrade, struct span entity, enum mime_kind kind,
			   bool is_message, uint32_t depth);

static void convert_parts(struct downgrade *downgrade, const struct mime_header *header,
			  uint32_t depth)
{
	static const char beside[] = "there are 8-bit octets beside its parts";
	enum mime_kind kind = header->kind == MIME_DIGEST ? MIME_MESSAGE : MIME_TEXT;
	struct span boundary = span_text(header->boundary), rest = header->body;
	struct delimiter delimiter;
	bool more = find_delimiter(rest, boundary, &delimiter);

	put_plain(downgrade, span_of(rest.at, more ? delimiter.at : rest.len), beside);
	while (more && !downgrade->why) {
		mime_put(downgrade->output,
			 span_of(rest.at + delimiter.at, delimiter.after - delimiter.at));
		rest = span_skip(rest, delimiter.after);
		if (delimiter.close) {
			put_plain(downgrade, rest, beside);
			return;
		}
		more = find_delimiter(rest, boundary, &delimiter);
		convert_entity(downgrade, span_of(rest.at, more ? delimiter.at : rest.len), kind,
			       false, depth + 1);
	}
}

/* Why what is in it can't be converted; NULL: it can. */
static const char *obstacle(const struct mime_header *header, uint32_t depth)
{
	bool composite = header->kind == MIME_MULTIPART || header->kind == MIME_DIGEST ||
			 header->kind == MIME_MESSAGE;

	if (header->doubtful)
		return "a header is malformed or ambiguous";
	if (header->kind == MIME_SEALED)
		return "8-bit text is signed or encrypted";
	if (!composite)
		return NULL;
	if (header->encoding == MIME_ENCODING_CODED)
		return "what has parts claims to be encoded";
	if (header->kind != MIME_MESSAGE && header->boundary[0] == '\0')
		return "a multipart has no boundary";
	return depth >= DOWNGRADE_DEPTH_MAX ? "its parts are nested too deep" : NULL;
}

/* `kind`: what it is if it doesn't say. `is_message`: not a part, but a message. */
static void convert_entity(struct downgrade *downgrade, struct span entity, enum mime_kind kind,
			   bool is_message, uint32_t depth)
{
	struct mime_header header;
	const char *why;

	mime_header_read(entity, kind, &header);
	if (header.eightbit) {
		refuse(downgrade, "a header has 8-bit text");
		return;
	}
	why = obstacle(&header, depth);
	if (why) {
		put_plain(downgrade, entity, why);
		return;
	}
	if (header.kind == MIME_TEXT || header.kind == MIME_DATA || header.kind == MIME_REPORTED) {
		convert_leaf(downgrade, &header, is_message);
		return;
	}
	put_header(downgrade, &header, header.encoding == MIME_ENCODING_8BIT ? "7bit" : NULL,
		   is_message && look_at(header.body).strange);
	put_empty_line(downgrade, &header);
	if (header.kind == MIME_MESSAGE)
		convert_entity(downgrade, header.body, MIME_TEXT, true, depth + 1);
	else
		convert_parts(downgrade, &header, depth);
}

static bool is_signed(struct span fields)
{
	struct mime_header header;

	mime_header_read(fields, MIME_TEXT, &header);
	return header.is_signed;
}

const char *downgrade_message(struct span prefix, struct span message, struct mime_output *output)
{
	struct downgrade downgrade = { .output = output };

	if (message.len == 0)
		return NULL;
	downgrade.end = message.at + message.len;
	if (is_signed(prefix) || is_signed(message))
		return "it is signed (DKIM or ARC)";
	convert_entity(&downgrade, message, MIME_TEXT, true, 0);
	if (downgrade.why)
		return downgrade.why;
	if (output->failed)
		return "there is no memory to convert it";
	assert(!look_at(span_of(output->at, output->len)).strange);
	return NULL;
}
